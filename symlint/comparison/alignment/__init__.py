"""Alignment: a network moved along its own symmetries, as close to another as they allow."""
