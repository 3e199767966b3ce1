"""Comparison: two files of one network, and what became of it.

Tensors are matched by the spaces that they hold. It may import `symlint.audit` and what stands before it.
"""
