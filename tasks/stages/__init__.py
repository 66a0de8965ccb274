"""The core's stages over stored outputs."""
