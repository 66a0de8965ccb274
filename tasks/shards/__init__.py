"""Stages cut into shards, here or on Dask."""
