"""Transformations of inputs, and what becomes of the outputs under them."""
