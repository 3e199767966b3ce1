"""Recurrent layers, and the cell that is unrolled for them."""
