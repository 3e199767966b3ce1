"""Audit: from paths to one report per model, and the verdict on all of them.

It may import `symlint.repair` and what stands before it.
"""
