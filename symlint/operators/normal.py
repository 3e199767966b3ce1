"""Normalisations and softmax: maps along axes that commute with permutations."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from symlint.model import operators
from symlint.model.operators import op
from symlint.program.functions import Function, enter
from symlint.program.lower import Ref, Tracer
from symlint.program.mixing import MixKind
from symlint.program.steps import CONSTANT, NONE

operators.enter(("BatchNormalization",), statistics=(3, 4))
enter(("Softmax",), Function(shares=True, relative=True))
enter(("LogSoftmax",), Function(shares=True, relative=True, logarithmic=True))
enter(("Hardmax", "Hardmin"), Function(picks=True, relative=True))
enter(("TopK",), Function(relative=True))


@op("Softmax", "LogSoftmax", "Hardmax", exact=True)
def softmax(t: Tracer, x: Ref, *, axis: int | None = None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Softmax.html"""
    law = CONSTANT if t.node.op == "Hardmax" else NONE
    if t.node.opset < 13:
        first = (1 if axis is None else axis) % max(x.rank, 1)
        return t.normalise(x, range(first, x.rank), law=law)
    return t.normalise(x, [-1 if axis is None else axis], law=law)


@op("BatchNormalization", exact=True)
def batch_norm(
    t: Tracer, x: Ref, gain: Ref, bias: Ref, mean: Ref, var: Ref, *, epsilon: float = 1e-5, training_mode: int = 0
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__BatchNormalization.html"""
    wide = (1, x.shape[1], *[1] * (x.rank - 2)) if x.rank > 1 else x.shape
    more = t.node.outputs[1:]
    if training_mode or (t.node.opset < 14 and any(more)):  # by moments of what it reads
        normed = t.normalise(x, [k for k in range(x.rank) if k != 1], function="standardise")
        t.unknown([v for v in (mean, var) if v.name not in t.makers], [], "what a batch replaces", opaque=False)
        gone = t.unknown([x], [gain.shape] * len(more), "the moments of a batch", opaque=False) if more else ()
        return (t.add(t.multiply(normed, t.reshape(gain, wide)), t.reshape(bias, wide)), *gone)
    scale, shift = t.affine(gain, bias, mean, var, epsilon)
    return (t.add(t.multiply(x, t.reshape(scale, wide)), t.reshape(shift, wide)),)


@op("LayerNormalization", exact=True)
def layer_norm(t: Tracer, x: Ref, gain: Ref, bias: Ref | None, *, axis: int = -1) -> tuple[Ref | None, ...]:
    """https://onnx.ai/onnx/operators/onnx__LayerNormalization.html"""
    axes = range(axis % x.rank, x.rank)
    return t.add(t.multiply(t.normalise(x, axes, function="standardise"), gain), bias), *moments(t, x, axes, 1, 2)


@op("RMSNormalization", "SimplifiedLayerNormalization", exact=True)
def rms_norm(t: Tracer, x: Ref, gain: Ref, *, axis: int = -1) -> tuple[Ref | None, ...]:
    """https://onnx.ai/onnx/operators/onnx__RMSNormalization.html"""
    axes = range(axis % x.rank, x.rank)
    return t.multiply(t.normalise(x, axes, function="rms"), gain), *moments(t, x, axes, 1)


def moments(t: Tracer, x: Ref, axes: Sequence[int], *outputs: int) -> tuple[Ref | None, ...]:
    """The mean and deviation that a normalisation also hands out, where something reads them."""
    return tuple(
        t.fold(x, axes, keepdims=True, law=NONE, function="moment")
        if k < len(t.node.outputs) and t.node.outputs[k]
        else None
        for k in outputs
    )


@op("InstanceNormalization", exact=True)
def instance_norm(t: Tracer, x: Ref, gain: Ref, bias: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html"""
    normed = t.normalise(x, range(2, x.rank), function="standardise")
    wide = (1, x.shape[1], *[1] * (x.rank - 2))
    return t.add(t.multiply(normed, t.reshape(gain, wide)), t.reshape(bias, wide))


@op("GroupNormalization", exact=True)
def group_norm(t: Tracer, x: Ref, gain: Ref, bias: Ref, *, num_groups: int) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__GroupNormalization.html"""
    apart = t.reshape(x, (x.shape[0], num_groups, x.shape[1] // num_groups, prod(x.shape[2:])))
    normed = t.reshape(t.normalise(apart, (2, 3), function="standardise"), x.shape)
    if gain.shape[0] != x.shape[1]:
        repeat = (num_groups, x.shape[1] // num_groups)
        gain, bias = (t.reshape(t.expand(t.reshape(v, (num_groups, 1)), repeat), (x.shape[1],)) for v in (gain, bias))
    wide = (1, x.shape[1], *[1] * (x.rank - 2))
    return t.add(t.multiply(normed, t.reshape(gain, wide)), t.reshape(bias, wide))


@op("LpNormalization", "MeanVarianceNormalization", exact=True)
def lp_norm(t: Tracer, x: Ref, *, axis: int = -1, p: int = 2, axes: tuple[int, ...] = (0, 2, 3)) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__LpNormalization.html"""
    if t.node.op == "MeanVarianceNormalization":
        return t.normalise(x, axes, function="standardise")
    return t.normalise(x, [axis], law=CONSTANT, function="l2" if p == 2 else None)


@op("LRN")
def lrn(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__LRN.html"""
    keep = [0, None, *range(2, x.rank)]
    return t.mix(x, keep, MixKind.NEIGHBOURS, law=NONE, shape=x.shape)
