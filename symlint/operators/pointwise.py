"""Elementwise operators: activations by their degree of homogeneity, arithmetic by its law."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from symlint.operators.choice import compared
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.registry import op, pointwise
from symlint.program.steps import NONE, SUM, Law

FLOATS = frozenset((1, 10, 11, 16))
"""Element types that keep a scale: float, float16, double, bfloat16."""

# Positively homogeneous of degree 1: phi(a x) = a phi(x) for a > 0.
pointwise(1, "Relu", "LeakyRelu", "Abs", "Neg", "Identity")
pointwise(Fraction(1, 2), "Sqrt")
pointwise(-1, "Reciprocal")
pointwise(0, "Sign", "IsInf", "IsNaN")
pointwise(
    None,
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Ceil", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor"),
    *("Gelu", "HardSigmoid", "HardSwish", "Log", "Mish", "Not", "Round", "Selu", "Shrink", "Sigmoid"),
    *("Sin", "Sinh", "Softplus", "Softsign", "Swish", "Tan", "Tanh", "ThresholdedRelu", "BitwiseNot"),
    *("com.microsoft.Gelu", "com.microsoft.QuickGelu"),
)


@op("Cast", "CastLike")
def cast(t: Tracer, x: Ref, like: Ref | None, *, to: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Cast.html"""
    if to in FLOATS or (like is not None and like.value is not None and like.value.dtype.kind == "f"):
        return t.apply(x, 1, "Identity")
    if like is not None and like.value is not None:
        return t.pointwise(NONE, x, t.constant(np.zeros((), like.value.dtype)))
    return t.apply(x, None, t.node.op)


@op("Add", "Sum")
def add(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Add.html"""
    return t.add(*terms)


@op("Sub")
def sub(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Sub.html"""
    return t.pointwise(SUM, a, b)


@op("Max", "Min")
def extremum(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Max.html"""
    return terms[0] if len(terms) == 1 else t.pointwise(SUM, *terms)


@op("Mean")
def mean(t: Tracer, *terms: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Mean.html"""
    return t.pointwise(SUM, *terms)


@op("Mul")
def mul(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Mul.html"""
    return t.multiply(a, b)


@op("Div")
def div(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Div.html"""
    return t.pointwise(Law("product", (Fraction(1), Fraction(-1))), a, b)


@op("Pow")
def power(t: Tracer, x: Ref, exponent: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Pow.html"""
    if exponent.value is not None and exponent.value.size == 1:
        degree = Fraction(float(exponent.value.reshape(()))).limit_denominator(64)
        return t.pointwise(Law("product", (degree, None)), x, exponent)
    return t.pointwise(NONE, x, exponent)


@op("PRelu")
def prelu(t: Tracer, x: Ref, slope: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__PRelu.html"""
    return t.pointwise(Law("product", (Fraction(1), None)), x, slope, function="PRelu")


@op("Clip")
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


@op("Where")
def where(t: Tracer, condition: Ref, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Where.html"""
    return t.pointwise(Law("sum", (None, Fraction(1), Fraction(1))), condition, a, b)


@op("Equal")
def equal(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Equal.html"""
    return compared(t, a, b) or t.pointwise(NONE, a, b)


@op(
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
    "Mod",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
)
def compare(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Greater.html"""
    return t.pointwise(NONE, a, b)


@op("BitCast")
def bit_cast(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__BitCast.html"""
    return t.apply(x, None, "Bits")


@op("Dropout", "com.microsoft.BitmaskDropout")
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
