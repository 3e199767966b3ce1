"""Control flow and sequences, followed where they stand.

Operators whose results only data or chance tell, and those that depend on no value at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from symlint.model.graph import Graph
from symlint.model.operators import enter, op
from symlint.operators.layout import known
from symlint.program.functions import MixKind
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import Law


def lowered(t: Tracer, graph: Graph, inputs: Mapping[str, Ref]) -> tuple[Ref, ...]:
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
        return lowered(t, then_branch if condition.value.all() else else_branch, {})
    t.unknown([condition], [], "a condition", opaque=False)
    return tuple(either(t, a, b) for a, b in zip(lowered(t, then_branch, {}), lowered(t, else_branch, {}), strict=True))


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
    return lowered(t, graph, dict(zip(graph.inputs, values, strict=True)))


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


def sequence(*items: Ref) -> Ref:
    """A sequence as a value."""
    return Ref("", (), items=items)


def elements(x: Ref) -> tuple[Ref, ...]:
    """The elements of a sequence."""
    if x.items is None:
        raise Unsupported("the elements of its sequence are unknown")
    return x.items


@op("Optional", "OptionalGetElement")
def optional(t: Tracer, x: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Optional.html"""
    if x is None:
        raise Unsupported("it is empty", opaque=False)
    return x


@op("OptionalHasElement")
def has_element(t: Tracer, x: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__OptionalHasElement.html"""
    return t.constant(np.asarray(x is not None))


@op("SequenceMap")
def sequence_map(t: Tracer, *inputs: Ref, body: Graph) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__SequenceMap.html"""
    rounds = []
    for k in range(len(elements(inputs[0]))):
        values = [x if x.items is None else x.items[k] for x in inputs]
        rounds.append(lowered(t, body, dict(zip(body.inputs, values, strict=True))))
    return tuple(sequence(*items) for items in zip(*rounds, strict=True))


@op("SequenceConstruct")
def construct(t: Tracer, *items: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SequenceConstruct.html"""
    return sequence(*items)


@op("SequenceEmpty")
def empty(t: Tracer) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SequenceEmpty.html"""
    return sequence()


@op("SequenceInsert")
def insert(t: Tracer, x: Ref, item: Ref, place: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SequenceInsert.html"""
    items = list(elements(x))
    items.insert(len(items) if place is None else int(known(place).reshape(())), item)
    return sequence(*items)


@op("SequenceErase")
def erase(t: Tracer, x: Ref, place: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SequenceErase.html"""
    items = list(elements(x))
    del items[-1 if place is None else int(known(place).reshape(()))]
    return sequence(*items)


@op("SequenceAt")
def at(t: Tracer, x: Ref, place: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SequenceAt.html"""
    if not place.fixed:
        raise Unsupported("its place is known at run time", opaque=False)
    return elements(x)[int(known(place).reshape(()))]


@op("SplitToSequence")
def split_to_sequence(t: Tracer, x: Ref, split: Ref | None, *, axis: int = 0, keepdims: int = 1) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SplitToSequence.html"""
    along = axis % x.rank
    if split is not None and (split.value is None or not split.fixed) and split.rank:
        keep = [None if k == along else k for k in range(x.rank)]
        t.unknown([split], [], "it is an index", opaque=False)
        each, more = divmod(x.shape[along], split.shape[0])
        even = [each + (k < more) for k in range(split.shape[0])]
        lengths = even if split.value is None else split.value.tolist()
        shapes = [(*x.shape[:along], int(n), *x.shape[along + 1 :]) for n in lengths]
        return sequence(*(t.mix(x, keep, MixKind.SPLIT, shape=shape) for shape in shapes))
    length, sizes = x.shape[along], np.asarray(1) if split is None else known(split)
    ends = [0, *sizes.cumsum().tolist()] if sizes.ndim else [*range(0, length, int(sizes)), length]
    parts = [_cut(t, x, along, a, b) for a, b in pairwise(ends)]
    if split is None and not keepdims:
        shape = (*x.shape[:along], *x.shape[along + 1 :])
        parts = [
            t.reshape(p, shape) if p.value is None else t.constant(p.value.reshape(shape), fixed=p.fixed) for p in parts
        ]
    return sequence(*parts)


def _cut(t: Tracer, x: Ref, axis: int, start: int, stop: int) -> Ref:
    if x.value is None:
        return t.slice(x, axis, start, stop)
    return t.constant(x.value.take(range(start, stop), axis), fixed=x.fixed)


@op("ConcatFromSequence")
def concat_from_sequence(t: Tracer, x: Ref, *, axis: int, new_axis: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ConcatFromSequence.html"""
    items = list(elements(x))
    along = axis % (items[0].rank + bool(new_axis))
    if new_axis:
        items = [t.reshape(y, (*y.shape[:along], 1, *y.shape[along:])) for y in items]
    return t.concat(items, along)


@op(
    *("NonZero", "Unique", "NonMaxSuppression", "MaxUnpool", "Range", "TfIdfVectorizer", "com.microsoft.Unique"),
    *("com.microsoft.Range", "com.microsoft.NGramRepeatBlock", "com.microsoft.DynamicTimeWarping"),
    *("com.microsoft.BifurcationDetector", "com.microsoft.IsAllFinite"),
)
def by_data(t: Tracer, *inputs: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__NonZero.html"""
    raise Unsupported("positions that only data tell", opaque=False)


@op("com.microsoft.MurmurHash3", "StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "ImageDecoder")
def no_number(t: Tracer, *inputs: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__StringNormalizer.html"""
    raise Unsupported("it reads no numbers", opaque=False)


@op("Multinomial", "Bernoulli")
def random(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Bernoulli.html"""
    raise Unsupported("random numbers", opaque=False)


@op("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(t: Tracer, x: Ref, target: Ref, weights: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html"""
    raise Unsupported("targets given at run time", opaque=False)


enter(("Shape", "Size"), measures=True)


@op("RandomNormalLike", "RandomUniformLike", "EyeLike", "Shape", "Size", "SequenceLength")
def unrelated(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__RandomNormalLike.html"""
    return t.unknown([], [t.result()], "it depends on a shape alone", opaque=False)[0]


@op("RandomNormal", "RandomUniform")
def drawn(t: Tracer) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__RandomNormal.html"""
    return t.unknown([], [t.result()], "random numbers", opaque=False)[0]


@op("ConstantOfShape", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix")
def made(t: Tracer, *sizes: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html"""
    return t.unknown(sizes, [t.result()], "its length is known at run time", opaque=False)[0]
