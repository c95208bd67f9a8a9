"""Run folders: written by training, read by everything after it, without Ray."""
