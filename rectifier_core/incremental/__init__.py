"""Stages brought up to date from what an earlier run left, at a cost near what has changed since."""
