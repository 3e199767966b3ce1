"""Lineage: whether a network is derived from another, whatever was done to it."""
