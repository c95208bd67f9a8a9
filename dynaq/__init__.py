"""Dyna-Q agents that learn, one per applicant, which jobs that person would apply to.

The learning library: no Ray, no vLLM, no HTTP. Everything here runs in one process, in a notebook.
"""
