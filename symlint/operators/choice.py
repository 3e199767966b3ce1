"""Choices: what picks the largest, as one-hot rows, so that a lookup by its index is a contraction.

A router that chooses experts permutes with them: TopK writes its indices as choice times 0, 1, 2 ... Where a Gather,
an Equal or a OneHot reads them, the choice stands in for the numbers, which nothing reads any more then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from symlint.model.operators import op
from symlint.program.lower import Ref, Tracer
from symlint.program.mixing import MixKind
from symlint.program.steps import CONSTANT, NONE, Einsum, Slice, Step, rearranges

CHOOSERS = ("TopK", "ArgMax", "ArgMin")


@op("TopK")
def top_k(t: Tracer, x: Ref, k: Ref, *, axis: int = -1, sorted: int = 1) -> tuple[Ref, Ref]:
    """https://onnx.ai/onnx/operators/onnx__TopK.html"""
    at = axis % x.rank
    if not sorted:  # in an order that may depend on where the largest stand
        keep = [None if a == at else a for a in range(x.rank)]
        values = t.mix(x, keep, MixKind.UNSORTED, linear=False)
        return values, t.mix(x, keep, MixKind.UNSORTED, law=NONE, shape=t.result(1))
    last = t.transpose(x, [*(a for a in range(x.rank) if a != at), at])
    ranked = t.normalise(last, [-1], law=CONSTANT, function="TopK")
    shape = (*last.shape[:-1], t.result(1)[at], x.shape[at])
    chosen = t.mix(ranked, [*range(x.rank - 1), None, x.rank - 1], MixKind.RANKING, law=NONE, shape=shape)
    order = [*range(at), x.rank - 1, *range(at, x.rank - 1)]
    largest = t.einsum("... k e, ... e -> ... k", chosen, last)
    return t.transpose(largest, order), t.transpose(_numbered(t, chosen), order)


@op("ArgMax", "ArgMin")
def arg_max(t: Tracer, x: Ref, *, axis: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ArgMax.html"""
    at = axis % x.rank
    last = t.transpose(x, [*(a for a in range(x.rank) if a != at), at])
    function = "Hardmax" if t.node.op == "ArgMax" else "Hardmin"
    return t.reshape(_numbered(t, t.normalise(last, [-1], law=CONSTANT, function=function)), t.result())


def _numbered(t: Tracer, chosen: Ref) -> Ref:
    """The indices that are chosen."""
    return t.einsum("... e, e -> ...", chosen, t.constant(np.arange(chosen.shape[-1])))


def choice(t: Tracer, indices: Ref) -> Ref | None:
    """The one-hot rows behind indices that a ranking made and only layout has changed since, units last."""
    step, path = t.makers.get(indices.name), list[Einsum | Slice]()
    while isinstance(step, Slice) or _layout(step):
        path.append(step)
        step = t.makers.get(step.operands[0])
    if not isinstance(step, Einsum) or step.node.op not in CHOOSERS or len(step.operands) < 2:
        return None
    size = step.sizes[step.specs[1][0][0]]
    places = tuple(step.sizes[x] for axis in step.result for x in axis)
    made = Ref(step.operands[0], (*places, size))
    for moved in reversed(path):
        if isinstance(moved, Slice):
            made = t.slice(made, moved.axis, moved.start, moved.stop)
        else:
            spec, result = (*moved.specs[0], ("chosen",)), (*moved.result, ("chosen",))
            made = t.contract([made], [spec], result, {**moved.sizes, "chosen": size})
    return made


def _layout(step: Step | None) -> TypeGuard[Einsum]:
    """Whether a step only rearranges one operand, and sums over nothing."""
    if not rearranges(step):
        return False
    read = sorted(label for axis in step.specs[0] for label in axis)
    return read == sorted(label for axis in step.result for label in axis)


def compared(t: Tracer, a: Ref, b: Ref) -> Ref | None:
    """``a == b`` as a part of the choice behind one of them, where the other is a number or all numbers in order."""
    for indices, number in ((a, b), (b, a)):
        chosen = choice(t, indices) if number.value is not None else None
        if chosen is None or number.value is None:
            continue
        size, values = chosen.shape[-1], number.value.reshape(-1)
        if values.size == 1 and 0 <= values[0] < size:
            chosen = t.slice(chosen, chosen.rank - 1, int(values[0]), int(values[0]) + 1)
        elif not (np.array_equal(values, np.arange(size)) and indices.shape[-1:] == (1,) != number.shape[-1:]):
            continue
        return t.reshape(chosen, np.broadcast_shapes(a.shape, b.shape))
    return None


def looked_up(t: Tracer, x: Ref, along: int, chosen: Ref) -> Ref:
    """Rows of axis `along` of x, as many as are chosen, in its place."""
    labels: Sequence[tuple[str, ...]] = [(f"x{k}",) for k in range(x.rank)]
    rows = [(f"r{k}",) for k in range(chosen.rank - 1)]
    sizes = {f"x{k}": n for k, n in enumerate(x.shape)} | {f"r{k}": n for k, n in enumerate(chosen.shape[:-1])}
    result = (*labels[:along], *rows, *labels[along + 1 :])
    return t.contract([chosen, x], [(*rows, labels[along]), tuple(labels)], result, sizes)
