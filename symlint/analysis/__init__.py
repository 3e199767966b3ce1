"""Analysis: abstract interpretations of a program with its weights.

It may import `symlint.symmetry.spaces` and what stands before it.
"""
