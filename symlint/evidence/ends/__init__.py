"""Ends: which entries of inputs and outputs count, and weights less what no output sees."""
