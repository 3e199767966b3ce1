"""The file: what is read of it and how, what is refused, and how one is written."""
