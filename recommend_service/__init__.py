"""Recommendations, feedback and new applicants over HTTP, and the web page."""
