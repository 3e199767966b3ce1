"""Reductions: linear ones are contractions, the others symmetric folds."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np

from symlint.model import operators
from symlint.model.operators import op
from symlint.operators.layout import known
from symlint.program.functions import Function, enter
from symlint.program.lower import Ref, Tracer
from symlint.program.steps import NONE, SUM, Law

operators.enter(("ReduceMean", "GlobalAveragePool", "Mean"), averages=True)
enter(("ReduceL1",), Function(length=True))
enter(("ReduceL2", "ReduceSumSquare"), Function(length=True, turns=True))
enter(("ReduceMax", "GlobalMaxPool", "MaxPool", "com.microsoft.NhwcMaxPool"), Function(extreme=np.max))
enter(("ReduceMin",), Function(extreme=np.min))


def reduced(x: Ref, axes: Ref | None, old: Sequence[int] | None, noop: int) -> list[int]:
    """The axes that a reduction takes away, from its input or its attribute."""
    chosen = list(old or ()) if axes is None else [int(a) for a in known(axes).reshape(-1)]
    if not chosen and not noop:
        chosen = list(range(x.rank))
    return sorted({a % x.rank for a in chosen})


def averaged(t: Tracer, summed: Ref, count: int) -> Ref:
    """A sum of `count` terms as their mean."""
    return t.multiply(summed, t.constant(np.asarray(1 / max(count, 1), np.float32)))


@op("ReduceSum", "ReduceMean", exact=True)
@op("com.microsoft.ReduceSumInteger")
def total(
    t: Tracer,
    x: Ref,
    dims: Ref | None,
    *,
    axes: Sequence[int] | None = None,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ReduceSum.html"""
    along = reduced(x, dims, axes, noop_with_empty_axes)
    labels = [f"a{k}" for k in range(x.rank)]
    made = ["1" if k in along else label for k, label in enumerate(labels) if keepdims or k not in along]
    summed = t.einsum(f"{' '.join(labels)} -> {' '.join(made)}", x)
    return averaged(t, summed, prod(x.shape[k] for k in along)) if t.node.op.endswith("Mean") else summed


@op("ReduceMax", "ReduceMin", exact=True)
@op("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")
def fold(
    t: Tracer,
    x: Ref,
    dims: Ref | None,
    *,
    axes: Sequence[int] | None = None,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ReduceMax.html"""
    along = reduced(x, dims, axes, noop_with_empty_axes)
    count = prod(x.shape[k] for k in along)
    laws = {"ReduceSumSquare": Law("product", (Fraction(2),)), "ReduceProd": Law("product", (Fraction(count),))}
    law = NONE if "Log" in t.node.op else laws.get(t.node.op, SUM)
    return t.fold(x, along, keepdims=bool(keepdims), law=law, function=t.node.op)
