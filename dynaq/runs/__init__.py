"""Run folders: written by training, and read without Ray by everything that follows it."""
