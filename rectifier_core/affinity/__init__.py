"""Affinity: the nearest features of every anchor."""
