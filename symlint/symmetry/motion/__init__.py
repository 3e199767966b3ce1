"""Motion: elements of generators, and what they do to the weights."""
