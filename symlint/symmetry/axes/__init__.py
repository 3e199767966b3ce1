"""Axes: every axis of every tensor as an expression over factors.

It may import nothing else of `symlint.symmetry`.
"""
