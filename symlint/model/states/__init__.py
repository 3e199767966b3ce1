"""States: what leaves a network at one step and comes back at the next, and how such pairs are found."""
