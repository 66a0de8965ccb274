"""Backfills: which days to run, and running them."""
