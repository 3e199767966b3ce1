"""Rewriting: what an exporter wrote out, put in the words that the analyses know: norms, and caches that grow."""
