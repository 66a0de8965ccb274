"""The commands of ``python -m flows``."""
