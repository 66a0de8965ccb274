"""Evaluation: corruption with known truth and the measures held against it. Nothing outside this package may import it."""
