"""Kinds of generators besides those of charges and translations, one a file."""
