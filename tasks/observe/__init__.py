"""Monitoring: metrics, events, freshness."""
