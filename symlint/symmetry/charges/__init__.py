"""Charges: how each tensor answers to a generator, as a sparse linear system."""
