"""What is timed or measured at length, each against its peer in one run; results with their commands lie in ``benchmarks/results``."""
