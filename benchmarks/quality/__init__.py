"""Benchmarks of quality: detection, rates, coverage, mixing, owners, segments."""
