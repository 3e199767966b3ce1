"""Matching: which tensor of one file is which of the other, and unit by unit."""
