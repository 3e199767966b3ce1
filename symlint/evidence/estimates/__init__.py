"""Estimates: what only heuristic rules ask for, against what chance would do."""
