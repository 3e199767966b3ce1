"""Heads, groups and experts: which of them are one function, and how far their scores spread."""
