"""Command line: commands and reports; only these print.

It may import everything.
"""
