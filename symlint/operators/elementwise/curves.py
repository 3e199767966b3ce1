"""Curves: activations as numbers, with what bounds need to know of them."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np

from symlint.model.graph import Array
from symlint.program.functions import Attributes, Dipping, Rising

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


def _softsign(x: Array, _: Attributes) -> Array:
    return np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x)))


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))


def _times(x: Array, share: Array) -> Array:
    return np.where(np.isneginf(x), 0.0, x * share)


SIGMOID = Rising(lambda x, _: _sigmoid(x), 0, TOP)
TANH = Rising(lambda x, _: np.tanh(x), -TOP, TOP)
EXP = Rising(lambda x, _: np.exp(x), 0)
ERF = Rising(lambda x, _: _erf(x), -TOP, TOP)
ATAN = Rising(lambda x, _: np.arctan(x), -2, 2)
ASINH = Rising(lambda x, _: np.arcsinh(x))
SOFTSIGN = Rising(_softsign, -1, 1)
SOFTPLUS = Rising(_softplus, 0)
ELU, CELU, SELU, LEAKY = Rising(_elu), Rising(_celu), Rising(_selu), Rising(_leaky)
SQRT = Rising(lambda x, _: np.sqrt(np.maximum(x, 0)), 0)
FLOOR, CEIL = Rising(lambda x, _: np.floor(x)), Rising(lambda x, _: np.ceil(x))
ROUND = Rising(lambda x, _: np.rint(x))
ABS = Dipping(np.abs, 0.0, 0.0)
GELU = Dipping(lambda x: _times(x, (1 + _erf(x / sqrt(2))) / 2), -0.7518, -0.1701, slack=1e-3)
SWISH = Dipping(lambda x: _times(x, _sigmoid(x)), -1.2785, -0.2785)
MISH = Dipping(lambda x: _times(x, np.tanh(np.logaddexp(0, x))), -1.1925, -0.3089)
