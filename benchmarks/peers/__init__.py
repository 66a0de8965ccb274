"""Comparisons with other projects' recommenders."""
