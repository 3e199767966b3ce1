"""Repair: from what the rules found to a smaller network that computes the same function.

It may import `symlint.runtime` and what stands before it.
"""
