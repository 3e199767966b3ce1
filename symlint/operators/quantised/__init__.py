"""Quantised operators: grids, products of levels, and weights of which several share a byte."""
