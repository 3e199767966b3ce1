"""Shapes: concrete sizes for every tensor, and the values that depend on no input."""
