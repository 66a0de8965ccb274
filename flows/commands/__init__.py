"""The commands of ``catalog-rectifier``."""
