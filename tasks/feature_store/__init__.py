"""Feast: views, rows and the online store."""
