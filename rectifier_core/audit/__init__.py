"""Audit: suspects, probable owners and hand checks."""
