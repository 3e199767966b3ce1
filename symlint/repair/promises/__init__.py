"""Promises: what a fix would take away, told before it is done."""
