"""Elementwise operators: activations by their degree of homogeneity, arithmetic by its law."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import erf, sqrt
from typing import Any

import numpy as np

from symlint.model import operators
from symlint.model.graph import Array
from symlint.model.operators import op
from symlint.operators.layout import compared
from symlint.program.functions import Attributes, Dipping, Function, Parity, Rising, Within, enter
from symlint.program.lower import Ref, Tracer, Unsupported, pointwise
from symlint.program.steps import NONE, SUM, Law

# Curves: activations as numbers, with what bounds need to know of them.

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


ODD, EVEN, NEITHER = Parity.ODD, Parity.EVEN, Parity.NEITHER
FLOATS = frozenset((1, 10, 11, 16))
"""Element types that keep a scale: float, float16, double, bfloat16."""

# Positively homogeneous of degree 1: phi(a x) = a phi(x) for a > 0.
pointwise(1, "Relu", parity=NEITHER, course=None, exact=True)
pointwise(1, "LeakyRelu", parity=NEITHER, course=LEAKY, exact=True)
pointwise(1, "Abs", parity=EVEN, course=ABS, exact=True)
pointwise(1, "Identity", parity=ODD, course=None, exact=True, passes=True)
pointwise(1, "Neg", parity=ODD, course=None, exact=True, passes=True, negates=True)
pointwise(Fraction(1, 2), "Sqrt", parity=NEITHER, course=SQRT, exact=True)
pointwise(-1, "Reciprocal", parity=ODD, course=None)
pointwise(0, "Sign", parity=ODD, course=Within(-1, 1), exact=True)
pointwise(0, "IsInf", parity=NEITHER, course=Within(0, 1), exact=True)
pointwise(0, "IsNaN", parity=EVEN, course=Within(0, 1), exact=True)

pointwise(None, "Asinh", parity=ODD, course=ASINH, exact=True)
pointwise(None, "Atan", parity=ODD, course=ATAN, exact=True)
pointwise(None, "Celu", parity=NEITHER, course=CELU, exact=True)
pointwise(None, "Ceil", parity=NEITHER, course=CEIL, exact=True)
pointwise(None, "Cos", parity=EVEN, course=Within(-1, 1), exact=True)
pointwise(None, "Elu", parity=NEITHER, course=ELU, exact=True)
pointwise(None, "Erf", parity=ODD, course=ERF, exact=True)
pointwise(None, "Exp", parity=NEITHER, course=EXP, exact=True, undone=np.log)
pointwise(None, "Floor", parity=NEITHER, course=FLOOR, exact=True)
pointwise(None, "Gelu", "com.microsoft.Gelu", parity=NEITHER, course=GELU, exact=True)
pointwise(None, "HardSigmoid", "HardSwish", "ThresholdedRelu", parity=NEITHER, course=None, exact=True)
pointwise(None, "Mish", parity=NEITHER, course=MISH, exact=True)
pointwise(None, "Not", parity=NEITHER, course=Within(0, 1), exact=True)
pointwise(None, "Round", parity=ODD, course=ROUND, exact=True)
pointwise(None, "Selu", parity=NEITHER, course=SELU, exact=True)
pointwise(None, "Sigmoid", parity=NEITHER, course=SIGMOID, exact=True)
pointwise(None, "Sin", parity=ODD, course=Within(-1, 1), exact=True)
pointwise(None, "Softplus", parity=NEITHER, course=SOFTPLUS, exact=True, undone=lambda y: y + np.log(-np.expm1(-y)))
pointwise(None, "Softsign", parity=ODD, course=SOFTSIGN, exact=True)
pointwise(None, "Swish", parity=NEITHER, course=SWISH, exact=True)
pointwise(None, "Tanh", parity=ODD, course=TANH, exact=True)
# Of these no bounds are told.
pointwise(None, "Acos", "Acosh", "Log", "BitwiseNot", "com.microsoft.QuickGelu", parity=NEITHER, course=None)
pointwise(None, "Asin", "Atanh", "Shrink", "Sinh", "Tan", parity=ODD, course=None)
pointwise(None, "Cosh", parity=EVEN, course=None)
operators.enter(("Cast", "CastLike"), casts=True)
operators.enter(("Clip", "Pow"), told=True)
enter(("Add", "Sum"), Function(sums=True))
enter(("Sub",), Function(sums=True, negates=True))
enter(("Mean",), Function(sums=True, averages=True))
enter(("Mul",), Function(factor=1))
enter(("Div",), Function(factor=-1))
enter(("Pow",), Function(power=True))
enter(("Where",), Function(chooses=True))
enter(("Max", "Min"), Function(largest=True))


@op("Cast", "CastLike", exact=True)
def cast(t: Tracer, x: Ref, like: Ref | None, *, to: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Cast.html"""
    if to in FLOATS or (like is not None and like.value is not None and like.value.dtype.kind == "f"):
        return t.apply(x, 1, "Identity")
    if like is not None and like.value is not None:
        return t.pointwise(NONE, x, t.constant(np.zeros((), like.value.dtype)))
    return t.apply(x, None, t.node.op)


@op("Add", exact=True, broadcasts=True)
def add(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Add.html"""
    return _alone((a, b)) or t.add(a, b)


@op("Sum", exact=True, broadcasts=True)
def total(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Sum.html"""
    return _alone(terms) or t.add(*terms)


@op("Sub", exact=True, broadcasts=True)
def sub(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Sub.html"""
    return t.pointwise(SUM, a, b)


@op("Max", "Min", exact=True, broadcasts=True)
def extremum(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Max.html"""
    return _alone(terms) or t.pointwise(SUM, *terms)


@op("Mean", exact=True, broadcasts=True)
def mean(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Mean.html"""
    return _alone(terms) or t.pointwise(SUM, *terms)


def _alone(terms: Sequence[Ref | None]) -> Ref | None:
    """The one operand of an operator that may have several; none may be left out."""
    if None in terms or not terms:
        raise Unsupported("it lacks an operand", opaque=False)
    return terms[0] if len(terms) == 1 else None


@op("Mul", exact=True, broadcasts=True)
def mul(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Mul.html"""
    return t.multiply(a, b)


@op("Div", exact=True, broadcasts=True)
def div(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Div.html"""
    return t.pointwise(Law("product", (Fraction(1), Fraction(-1))), a, b)


@op("Pow", exact=True, broadcasts=True)
def power(t: Tracer, x: Ref, exponent: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Pow.html"""
    if exponent.value is not None and exponent.value.size == 1 and np.isfinite(exponent.value).all():
        exact = Fraction(float(exponent.value.reshape(())))
        degree = exact.limit_denominator(64)
        told = abs(degree - exact) <= abs(exact) * 2.0**-22
        return t.pointwise(Law("product", (degree if told else exact, None)), x, exponent)
    return t.pointwise(NONE, x, exponent)


@op("PRelu", exact=True, broadcasts=True)
def prelu(t: Tracer, x: Ref, slope: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__PRelu.html"""
    return t.pointwise(Law("product", (Fraction(1), None)), x, slope, function="PRelu")


@op("Clip", exact=True)
def clip(
    t: Tracer, x: Ref, low: Ref | None, high: Ref | None, *, min: float | None = None, max: float | None = None
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Clip.html"""
    bounds = [_number(low, min, -np.inf), _number(high, max, np.inf)]
    homogeneous = all(b is not None and (b == 0 or abs(b) > 1e30) for b in bounds)
    if homogeneous and bounds == [0, np.inf]:
        return t.apply(x, 1, "Relu")
    if low is None and high is None:
        return t.apply(x, 1 if homogeneous else None, "Clip")
    law = Law("product", (Fraction(1), *[None] * sum(b is not None for b in (low, high)))) if homogeneous else NONE
    if low is None:
        return t.pointwise(law, x, *(b for b in (high,) if b is not None), function="Min")
    return t.pointwise(law, x, low, *(b for b in (high,) if b is not None), function="Clip")


@op("Where", exact=True, broadcasts=True)
def where(t: Tracer, condition: Ref, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Where.html"""
    return t.pointwise(Law("sum", (None, Fraction(1), Fraction(1))), condition, a, b)


@op("Equal", exact=True, broadcasts=True)
def equal(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Equal.html"""
    return compared(t, a, b) or t.pointwise(NONE, a, b)


@op("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", exact=True, broadcasts=True)
@op("Mod", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", broadcasts=True)
def compare(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Greater.html"""
    return t.pointwise(NONE, a, b)


@op("BitCast")
def bit_cast(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__BitCast.html"""
    return t.apply(x, None, "Bits")


@op("Dropout", exact=True)
@op("com.microsoft.BitmaskDropout")
def dropout(t: Tracer, x: Ref, ratio: Ref | None, training: Ref | None) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__Dropout.html"""
    still = training is None or (training.value is not None and not training.value.any())
    if not still and _number(ratio, None, 0.5) != 0:
        raise Unsupported("random numbers", opaque=False)
    return (x,)


def _number(x: Ref | None, attribute: float | None, default: float) -> float | None:
    """A bound given as an input, as an attribute, or not at all; None where it is unknown."""
    if x is None:
        return default if attribute is None else attribute
    value: Any = x.value
    return None if value is None or value.size != 1 else float(value.reshape(()))
