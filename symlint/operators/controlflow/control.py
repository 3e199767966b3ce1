"""Control flow: bodies are lowered where they stand; a loop runs twice, which is all that a third time can join."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from symlint.model.graph import Graph
from symlint.model.operators import op
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind
from symlint.program.steps import Law


def body(t: Tracer, graph: Graph, inputs: Mapping[str, Ref]) -> tuple[Ref, ...]:
    """The outputs of a body."""
    if t.body is None:
        raise Unsupported("its bodies are out of reach")
    return t.body(graph, inputs)


def either(t: Tracer, *values: Ref) -> Ref:
    """One of several values; data tell which."""
    if len({x.shape for x in values}) > 1 or any(x.items is not None for x in values):
        raise Unsupported("its outputs differ in shape", opaque=False)
    moving = [x for x in values if x.value is None or np.any(x.value)] or list(values[:1])
    (choice,) = t.unknown([], [()], "a condition", opaque=False)
    law = Law("sum", (None, *(Fraction(1) for _ in moving)))
    return t.expand(t.pointwise(law, choice, *moving, function="Where"), values[0].shape)


@op("If", exact=True)
def branch(t: Tracer, condition: Ref, *, then_branch: Graph, else_branch: Graph) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__If.html"""
    if condition.value is not None and condition.fixed:
        return body(t, then_branch if condition.value.all() else else_branch, {})
    t.unknown([condition], [], "a condition", opaque=False)
    return tuple(either(t, a, b) for a, b in zip(body(t, then_branch, {}), body(t, else_branch, {}), strict=True))


def _stripped(x: Ref) -> Ref:
    """A value that is known before the first round alone."""
    return replace(x, value=None)


@op("Loop")
def loop(t: Tracer, *inputs: Ref | None, body: Graph) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__Loop.html"""
    start = [x for x in inputs[2:] if x is not None]
    rounds: list[Sequence[Ref]] = []
    now: Sequence[Ref] = start
    for _ in range(2):
        counts = t.unknown([], [(), ()], "a round of a loop", opaque=False)
        made = _run(t, body, [*counts, *map(_stripped, now)])[1:]
        rounds.append(made)
        now = made[: len(start)]
    carried = [either(t, *values) for values in zip(start, *(r[: len(start)] for r in rounds), strict=True)]
    gathered = [either(t, *values) for values in zip(*(r[len(start) :] for r in rounds), strict=True)]
    return (
        *carried,
        *(
            t.mix(y, [None, *range(y.rank)], MixKind.ROUNDS, shape=(t.result(k)[0], *y.shape))
            for k, y in enumerate(gathered, start=len(start))
        ),
    )


def _run(t: Tracer, graph: Graph, values: Sequence[Ref]) -> tuple[Ref, ...]:
    return body(t, graph, dict(zip(graph.inputs, values, strict=True)))


@op("Scan")
def scan(
    t: Tracer,
    *inputs: Ref,
    body: Graph,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] = (),
    scan_output_axes: Sequence[int] = (),
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__Scan.html"""
    if t.node.opset < 9:
        raise Unsupported("the batched Scan of opset 8")
    count = len(inputs) - num_scan_inputs
    axes = [a % x.rank for a, x in zip(scan_input_axes or (0,) * num_scan_inputs, inputs[count:], strict=True)]
    slices = [_slice(t, x, axis) for x, axis in zip(inputs[count:], axes, strict=True)]
    now: Sequence[Ref] = inputs[:count]
    rounds: list[Sequence[Ref]] = []
    for _ in range(2):
        made = _run(t, body, [*map(_stripped, now), *slices])
        rounds.append(made)
        now = made[:count]
    carried = [either(t, *values) for values in zip(inputs[:count], *(r[:count] for r in rounds), strict=True)]
    gathered = [either(t, *values) for values in zip(*(r[count:] for r in rounds), strict=True)]
    places = scan_output_axes or (0,) * len(gathered)
    return (*carried, *(_stack(t, y, a, count + k) for k, (y, a) in enumerate(zip(gathered, places, strict=True))))


def _slice(t: Tracer, x: Ref, axis: int) -> Ref:
    keep = [k for k in range(x.rank) if k != axis]
    return t.mix(x, keep, MixKind.RECURRENCE, shape=[x.shape[k] for k in keep])


def _stack(t: Tracer, y: Ref, axis: int, output: int) -> Ref:
    keep: list[int | None] = list(range(y.rank))
    keep.insert(axis % (y.rank + 1), None)
    return t.mix(y, keep, MixKind.RECURRENCE, shape=t.result(output))
