"""Surgery: a model file with fewer units, every tensor and operator adapted."""
