"""Values: which elements of a tensor are equal, constant or zero, whatever the input."""
