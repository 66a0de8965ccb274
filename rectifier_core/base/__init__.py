"""Arrays, records and helpers that every stage may use."""
