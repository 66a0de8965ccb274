"""Metrics, events, artifacts and freshness."""
