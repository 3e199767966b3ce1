"""Axes: every axis of every tensor as an expression over factors.

It may import `symlint.operators` and what stands before it.
"""
