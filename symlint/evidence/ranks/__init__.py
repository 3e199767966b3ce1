"""Ranks: what of a linear space can be observed, and how many directions are left."""
