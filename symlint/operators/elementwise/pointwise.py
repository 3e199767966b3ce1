"""Elementwise operators: activations by their degree of homogeneity, arithmetic by its law."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from symlint.model import operators
from symlint.model.operators import op
from symlint.operators.choice import compared
from symlint.operators.elementwise import curves
from symlint.program.functions import Function, Parity, Within, enter
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.registry import pointwise
from symlint.program.steps import NONE, SUM, Law

ODD, EVEN, NEITHER = Parity.ODD, Parity.EVEN, Parity.NEITHER
FLOATS = frozenset((1, 10, 11, 16))
"""Element types that keep a scale: float, float16, double, bfloat16."""

# Positively homogeneous of degree 1: phi(a x) = a phi(x) for a > 0.
pointwise(1, "Relu", parity=NEITHER, course=None, exact=True)
pointwise(1, "LeakyRelu", parity=NEITHER, course=curves.LEAKY, exact=True)
pointwise(1, "Abs", parity=EVEN, course=curves.ABS, exact=True)
pointwise(1, "Identity", parity=ODD, course=None, exact=True, passes=True)
pointwise(1, "Neg", parity=ODD, course=None, exact=True, passes=True, negates=True)
pointwise(Fraction(1, 2), "Sqrt", parity=NEITHER, course=curves.SQRT, exact=True)
pointwise(-1, "Reciprocal", parity=ODD, course=None)
pointwise(0, "Sign", parity=ODD, course=Within(-1, 1), exact=True)
pointwise(0, "IsInf", parity=NEITHER, course=Within(0, 1), exact=True)
pointwise(0, "IsNaN", parity=EVEN, course=Within(0, 1), exact=True)

pointwise(None, "Asinh", parity=ODD, course=curves.ASINH, exact=True)
pointwise(None, "Atan", parity=ODD, course=curves.ATAN, exact=True)
pointwise(None, "Celu", parity=NEITHER, course=curves.CELU, exact=True)
pointwise(None, "Ceil", parity=NEITHER, course=curves.CEIL, exact=True)
pointwise(None, "Cos", parity=EVEN, course=Within(-1, 1), exact=True)
pointwise(None, "Elu", parity=NEITHER, course=curves.ELU, exact=True)
pointwise(None, "Erf", parity=ODD, course=curves.ERF, exact=True)
pointwise(None, "Exp", parity=NEITHER, course=curves.EXP, exact=True)
pointwise(None, "Floor", parity=NEITHER, course=curves.FLOOR, exact=True)
pointwise(None, "Gelu", "com.microsoft.Gelu", parity=NEITHER, course=curves.GELU, exact=True)
pointwise(None, "HardSigmoid", "HardSwish", "ThresholdedRelu", parity=NEITHER, course=None, exact=True)
pointwise(None, "Mish", parity=NEITHER, course=curves.MISH, exact=True)
pointwise(None, "Not", parity=NEITHER, course=Within(0, 1), exact=True)
pointwise(None, "Round", parity=ODD, course=curves.ROUND, exact=True)
pointwise(None, "Selu", parity=NEITHER, course=curves.SELU, exact=True)
pointwise(None, "Sigmoid", parity=NEITHER, course=curves.SIGMOID, exact=True)
pointwise(None, "Sin", parity=ODD, course=Within(-1, 1), exact=True)
pointwise(None, "Softplus", parity=NEITHER, course=curves.SOFTPLUS, exact=True)
pointwise(None, "Softsign", parity=ODD, course=curves.SOFTSIGN, exact=True)
pointwise(None, "Swish", parity=NEITHER, course=curves.SWISH, exact=True)
pointwise(None, "Tanh", parity=ODD, course=curves.TANH, exact=True)
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


@op("Cast", "CastLike", exact=True)
def cast(t: Tracer, x: Ref, like: Ref | None, *, to: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Cast.html"""
    if to in FLOATS or (like is not None and like.value is not None and like.value.dtype.kind == "f"):
        return t.apply(x, 1, "Identity")
    if like is not None and like.value is not None:
        return t.pointwise(NONE, x, t.constant(np.zeros((), like.value.dtype)))
    return t.apply(x, None, t.node.op)


@op("Add", "Sum", exact=True, broadcasts=True)
def add(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Add.html"""
    return t.add(*terms)


@op("Sub", exact=True, broadcasts=True)
def sub(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Sub.html"""
    return t.pointwise(SUM, a, b)


@op("Max", "Min", exact=True, broadcasts=True)
def extremum(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Max.html"""
    return terms[0] if len(terms) == 1 else t.pointwise(SUM, *terms)


@op("Mean", exact=True, broadcasts=True)
def mean(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Mean.html"""
    return t.pointwise(SUM, *terms)


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
    if exponent.value is not None and exponent.value.size == 1:
        degree = Fraction(float(exponent.value.reshape(()))).limit_denominator(64)
        return t.pointwise(Law("product", (degree, None)), x, exponent)
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
