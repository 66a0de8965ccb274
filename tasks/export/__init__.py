"""A published day as files for a consumer."""
