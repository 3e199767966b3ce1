"""Units: what removes, merges, folds and factors them, and what drops a bias."""
