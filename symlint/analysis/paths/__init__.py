"""Paths: how much of what reaches the outputs passes through each unit."""
