"""Streams: normalised spaces, who writes and who reads them."""
