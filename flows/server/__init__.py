"""Deployments and the local Prefect server."""
