"""Comparison of two files of one network, whose tensors are matched by the spaces that they hold."""
