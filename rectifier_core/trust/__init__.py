"""Trust: how likely a feature is its item's own, and the mismatch rate."""
