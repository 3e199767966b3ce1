"""Repairs: from what the rules found to a smaller network that computes the same function."""
