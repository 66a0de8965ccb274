"""How far apart two runs are."""
