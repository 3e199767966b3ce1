"""Inputs on which a network is tried, and what it makes of them."""
