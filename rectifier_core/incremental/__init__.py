"""Stages updated from a previous run. The cost grows with what has changed."""
