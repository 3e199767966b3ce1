"""Gauge: where the weights stand among all places that rescalings move them to, and what that costs."""
