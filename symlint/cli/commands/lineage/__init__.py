"""Commands that ask where a network comes from."""
