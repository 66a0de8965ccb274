"""The audit's files and page."""
