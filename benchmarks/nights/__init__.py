"""Benchmarks of whole nights: growth, disk and memory over many nights, faults, reads."""
