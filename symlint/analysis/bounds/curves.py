"""Elementwise functions as numbers, by their shape: those that only rise, and those that fall to one point and rise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import erf, inf, sqrt
from typing import Any

import numpy as np

from symlint.model.graph import Array

Attributes = Mapping[str, Any]
TOP = 1 + 2.0**-21
"""What approximations of functions up to one reach."""
_erf = np.vectorize(erf, otypes=[np.float64])


def _softplus(x: Array, _: Attributes) -> Array:
    return np.asarray(np.logaddexp(0, x))


def _elu(x: Array, own: Attributes) -> Array:
    return np.where(x > 0, x, abs(own.get("alpha", 1.0)) * np.expm1(np.minimum(x, 0)))


def _celu(x: Array, own: Attributes) -> Array:
    alpha = own.get("alpha", 1.0)
    return np.asarray(np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x / alpha, 0))))


def _selu(x: Array, own: Attributes) -> Array:
    alpha, gamma = own.get("alpha", 1.6732632423543772), own.get("gamma", 1.0507009873554805)
    return np.asarray(gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))


def _leaky(x: Array, own: Attributes) -> Array:
    return np.where(x > 0, x, own.get("alpha", 0.01) * x)


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def _times(x: Array, share: Array) -> Array:
    return np.where(np.isneginf(x), 0.0, x * share)


RISING: Mapping[str, tuple[Callable[[Array, Attributes], Array], float, float]] = {
    "Sigmoid": (lambda x, _: _sigmoid(x), 0, TOP),
    "Tanh": (lambda x, _: np.tanh(x), -TOP, TOP),
    "Exp": (lambda x, _: np.exp(x), 0, inf),
    "Erf": (lambda x, _: _erf(x), -TOP, TOP),
    "Atan": (lambda x, _: np.arctan(x), -2, 2),
    "Asinh": (lambda x, _: np.arcsinh(x), -inf, inf),
    "Softsign": (lambda x, _: np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x))), -1, 1),
    "Softplus": (_softplus, 0, inf),
    "Elu": (_elu, -inf, inf),
    "Celu": (_celu, -inf, inf),
    "Selu": (_selu, -inf, inf),
    "LeakyRelu": (_leaky, -inf, inf),
    "Sqrt": (lambda x, _: np.sqrt(np.maximum(x, 0)), 0, inf),
    "Floor": (lambda x, _: np.floor(x), -inf, inf),
    "Ceil": (lambda x, _: np.ceil(x), -inf, inf),
    "Round": (lambda x, _: np.rint(x), -inf, inf),
}
"""Functions that never fall, with the least and the largest value."""
DIPPING: Mapping[str, tuple[Callable[[Array], Array], float, float]] = {
    "Abs": (np.abs, 0.0, 0.0),
    "Gelu": (lambda x: _times(x, (1 + _erf(x / sqrt(2))) / 2), -0.7518, -0.1701),
    "Swish": (lambda x: _times(x, _sigmoid(x)), -1.2785, -0.2785),
    "Mish": (lambda x: _times(x, np.tanh(np.logaddexp(0, x))), -1.1925, -0.3089),
}
"""Functions that fall to one lowest point and then rise: function, place and value of that point."""
BOUNDED = {"Sin": (-1.0, 1.0), "Cos": (-1.0, 1.0), "Not": (0.0, 1.0), "IsNaN": (0.0, 1.0), "Sign": (-1.0, 1.0)}
