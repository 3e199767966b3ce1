"""Gauges: moves of the weights along symmetries that a deployment gains by; the function stays."""
