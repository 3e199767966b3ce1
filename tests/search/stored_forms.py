"""Blocks whose weights are integers, or that onnxruntime fuses."""

from __future__ import annotations

import numpy as np
from builder import Builder, Unfit, Value
from grammar import LAST, Inside, activate, block, width


def _levels(b: Builder, values: np.ndarray, axis: int | None) -> tuple[str, str, str]:
    """Signed levels of eight bits, with their scales and zero points."""
    rest = tuple(k for k in range(values.ndim) if k != axis)
    scale = np.abs(values).max(axis=rest if axis is not None else None) / 127
    wide = scale if axis is None else np.expand_dims(scale, rest)
    levels = np.clip(np.rint(values / wide), -127, 127).astype(np.int8)
    zero = np.zeros(np.shape(scale), np.int8)
    return b.stored(levels, "q"), b.numbers(scale, "s"), b.stored(zero, "z")


def _float32(b: Builder) -> None:
    if b.dtype != "float32":
        raise Unfit


@block(*LAST, since=13)
def stored_levels(b: Builder, x: Value, inside: Inside) -> Value:
    """A matrix of levels, dequantised by row or as a whole."""
    _float32(b)
    n = width(b)
    axis = int(b.pick(0, 1))
    values = b.values.normal(size=(x.width, n)) / np.sqrt(x.width)
    parts = _levels(b, values, axis if b.chance(0.7) else None)
    weight = b.node("DequantizeLinear", *parts, axis=axis)
    return activate(b, x.of(b.add(b.node("MatMul", x.name, weight), b.bias(n)), n))


@block(*LAST, since=13)
def dynamic_levels(b: Builder, x: Value, inside: Inside) -> Value:
    """What quantize_dynamic writes."""
    _float32(b)
    n = width(b)
    weight, scale, zero = _levels(b, b.values.normal(size=(x.width, n)) / np.sqrt(x.width), None)
    level, step, nought = b.many("DynamicQuantizeLinear", x.name, outputs=3)
    whole = b.node("Cast", b.node("MatMulInteger", level, weight, nought, zero), to=1)
    made = b.node("Mul", whole, b.node("Mul", step, scale))
    return activate(b, x.of(b.add(made, b.bias(n)), n))


@block("image", "signal", since=13)
def levels_between(b: Builder, x: Value, inside: Inside) -> Value:
    """A convolution between pairs of quantisers."""
    _float32(b)
    n, rank = width(b), len(x.shape) - 2
    values = b.values.normal(size=(n, x.width, *[1] * rank)) / np.sqrt(x.width)
    weight = b.node("DequantizeLinear", *_levels(b, values, 0), axis=0)
    scale, zero = b.numbers(0.05), b.stored(np.int8(3))
    before = b.node("DequantizeLinear", b.node("QuantizeLinear", x.name, scale, zero), scale, zero)
    return activate(b, x.of(b.node("Conv", before, weight, b.bias(n)), n))


@block("flat", "tokens")
def four_bits(b: Builder, x: Value, inside: Inside) -> Value:
    """Blocks of weights of four bits."""
    _float32(b)
    wide, n = b.linear(x, 16), width(b)
    levels = b.values.integers(0, 256, (n, 1, 8)).astype(np.uint8)
    scale = b.numbers(b.values.uniform(0.02, 0.06, n))
    made = b.node("com.microsoft.MatMulNBits", wide.name, b.stored(levels), scale, K=16, N=n, bits=4, block_size=16)
    return activate(b, x.of(made, n))


@block("flat", "tokens")
def fused(b: Builder, x: Value, inside: Inside) -> Value:
    """What onnxruntime's optimiser writes."""
    _float32(b)
    n = width(b)
    way = b.pick("BiasGelu", "FastGelu", "SkipLayerNormalization", "FusedMatMul", "QuickGelu")
    if way in ("BiasGelu", "FastGelu"):
        made = b.node(f"com.microsoft.{way}", b.linear(x, n, bias=False).name, b.bias(n))
        return b.linear(x.of(made, n), width(b))
    if way == "QuickGelu":
        return x.of(b.node("com.microsoft.QuickGelu", b.linear(x, n).name), n)
    if way == "FusedMatMul":
        made = b.node("com.microsoft.FusedMatMul", x.name, b.weight(n, x.width, fan=x.width), transB=1, alpha=0.5)
        return x.of(made, n)
    if len(x.shape) != 3:
        raise Unfit
    made = b.linear(x, x.width)
    norm = b.node("com.microsoft.SkipLayerNormalization", x.name, made.name, b.gain(x.width), b.bias(x.width))
    return x.of(norm)


@block("image")
def fused_convolution(b: Builder, x: Value, inside: Inside) -> Value:
    """A convolution with its activation."""
    _float32(b)
    n = width(b)
    way = str(b.pick("Relu", "Sigmoid", "Tanh", "LeakyRelu"))
    more = {"activation_params": [0.1]} if way == "LeakyRelu" else {}
    weight = b.weight(n, x.width, 1, 1, fan=x.width)
    return x.of(b.node("com.microsoft.FusedConv", x.name, weight, b.bias(n), activation=way, **more), n)
