"""Operators along places in a fixed order: windows, signals, and their forms with channels last."""
