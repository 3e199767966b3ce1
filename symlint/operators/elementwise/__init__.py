"""Elementwise operators, and their curves for bounds."""
