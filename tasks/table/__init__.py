"""The published Delta table."""
