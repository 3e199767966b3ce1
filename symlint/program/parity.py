"""Elementwise functions by what they do to a sign."""

from __future__ import annotations

ODD = frozenset(
    {"Asin", "Asinh", "Atan", "Atanh", "Dropout", "Erf", "Identity", "Neg", "Reciprocal", "Round", "Shrink"}
)
ODD |= {"Sign", "Sin", "Sinh", "Softsign", "Tan", "Tanh"}
EVEN = frozenset({"Abs", "Cos", "Cosh", "IsNaN"})
LINEAR = frozenset({"Add", "Sub", "Sum", "Mean", "Neg", "Identity", "Dropout"})
