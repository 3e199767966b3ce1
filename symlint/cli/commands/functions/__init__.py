"""Commands that speak of the function of a network, and not of its weights."""
