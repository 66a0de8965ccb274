"""Anchors: where behaviour places each item (LightGCN)."""
