"""Judging rows: features and sequences that can be used, and the quarantine of what cannot."""
