"""Sequences: features that are lists of segments."""
