"""Control flow and sequences, followed where they stand."""
