"""Benchmarks of single stages: CPU time and memory, beside a peer in the same process."""
