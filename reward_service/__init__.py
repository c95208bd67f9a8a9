"""Judges that cost something: prompts, engines, the Ray Serve application, clients."""
