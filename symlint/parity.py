"""Elementwise functions by what they do to a sign."""

from __future__ import annotations

ODD = frozenset({"Asin", "Asinh", "Atan", "Dropout", "Erf", "Identity", "Neg", "Reciprocal", "Round", "Sign", "Sin"})
ODD |= {"Sinh", "Softsign", "Tan", "Tanh"}
EVEN = frozenset({"Abs", "Cos", "Cosh"})
LINEAR = frozenset({"Add", "Sub", "Sum", "Mean", "Neg", "Identity", "Dropout"})
