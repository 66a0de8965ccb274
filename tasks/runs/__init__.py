"""What a run is, its log, and the state of each day."""
