"""Copies: groups of items that share one feature."""
