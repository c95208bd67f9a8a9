"""Comparisons and searches as Ray Tune trials."""
