"""Actions: one class per kind of generator, with its elements and how each of them moves the weights."""
