"""Catalog rectifier, the pure core: finds features that belong to another item and mends them, in memory and by blocks."""

__version__ = "0.1.0"
