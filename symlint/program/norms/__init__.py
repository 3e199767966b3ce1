"""Norms: normalisations that an exporter wrote out, recognised by what they compute."""
