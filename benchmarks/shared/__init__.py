"""What several benchmarks use: data, and a line that names the machine."""
