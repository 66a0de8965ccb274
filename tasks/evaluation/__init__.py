"""The evaluation grid and its report."""
