"""Ranking quality, its uncertainty, and comparisons of runs."""
