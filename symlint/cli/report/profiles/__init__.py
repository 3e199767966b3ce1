"""Profiles: the measures of every space as a table, CSV, JSON and a page."""
