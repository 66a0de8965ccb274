"""Sinkhorn: balance the affinity graph to a plan."""
