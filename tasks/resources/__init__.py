"""What a run may take of its machine."""
