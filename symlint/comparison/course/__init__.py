"""Course: what became of each space from one file to the other."""
