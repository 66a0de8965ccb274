"""The demo catalog and its known truth."""
