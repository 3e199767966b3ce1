"""Model: an untrusted file becomes nodes in order, stored tensors, shapes and known values.

It may import nothing of symlint.
"""
