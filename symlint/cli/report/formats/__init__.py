"""Formats: a run in the words of other programs, and a line or a page of it for people."""
