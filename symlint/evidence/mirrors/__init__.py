"""Mirrors that a user declares, and the reflections that they stand for."""
