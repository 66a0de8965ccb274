"""Catalog rectifier, the pure core: finds features that belong to another item, and repairs them."""

__version__ = "0.2.0"
