"""Judges that call a language model: prompts, engines, the Ray Serve application, clients."""
