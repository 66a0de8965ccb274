"""Rectify: mix each feature with its donors."""
