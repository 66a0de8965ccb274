"""Stage outputs on disk, and atomic files."""
