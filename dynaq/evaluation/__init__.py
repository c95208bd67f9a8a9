"""Ranking quality, its statistical uncertainty, and comparisons of runs."""
