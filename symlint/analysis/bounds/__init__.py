"""Bounds: what every tensor lies between for all inputs, and what that proves."""
