"""Sequences of tensors, followed by element."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from symlint.model.graph import Graph
from symlint.model.operators import op
from symlint.operators.controlflow.control import body as lowered
from symlint.operators.layout import known
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind


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
