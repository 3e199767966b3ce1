"""Operators whose values are not plain tensors: bodies of control flow, and sequences, followed by element."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from symlint.model.graph import Graph, Node
from symlint.model.shapes.call import Kind

if TYPE_CHECKING:
    from symlint.model.shapes.forward import Pass

Handler = Callable[["Pass", Node], bool]


def _branch(state: Pass, node: Node) -> bool:
    """If: the branch that a known condition takes, else what both branches agree on."""
    condition = state.value(node.inputs[0])
    taken = None if condition is None else "then_branch" if condition.all() else "else_branch"
    bodies = {name: node.attributes[name] for name in ("then_branch", "else_branch")}
    # A branch that is not taken may well be impossible: exporters guard ranks and sizes this way.
    refusals = {}
    for name, body in bodies.items():
        noted = len(state.notes)
        if refusal := state.try_body(body):
            refusals[name] = refusal
        if taken not in (None, name):
            del state.notes[noted:]
    if state.strict and (taken in refusals if taken else len(refusals) == 2):
        raise refusals[taken or "else_branch"]
    state.doubts += 0 if taken else len(refusals)
    for index, name in enumerate(node.outputs):
        found = {key: body.outputs[index] for key, body in bodies.items()}
        if taken:
            state.copy(name, found[taken])
            continue
        kinds = [kind for value in found.values() if (kind := state.kind(value))]
        if kinds and all(kind == kinds[0] for kind in kinds):
            state.put(name, kinds[0])
        else:
            state.recall_one(node, name)
    return True


def _loop(state: Pass, node: Node) -> bool:
    """Loop: one walk of the body; what it carries keeps its shape, what it collects gets an axis of the trip count."""
    body: Graph = node.attributes["body"]
    trips = state.value(node.inputs[0]) if node.inputs[0] else None
    state.put(body.inputs[0], Kind("int64", ()))
    state.put(body.inputs[1], Kind("bool", ()))
    for inner, outer in zip(body.inputs[2:], node.inputs[2:], strict=False):
        state.put(inner, state.kind(outer))
        if outer in state.lists:
            state.lists[inner] = state.lists[outer]
    state.walk(body)
    carried = len(node.inputs) - 2
    for index, name in enumerate(node.outputs):
        inner = body.outputs[index + 1]
        kind = state.kind(inner)
        if inner in state.lists:
            state.lists[name] = state.lists[inner]
        elif kind is None:
            state.recall_one(node, name)
        elif index < carried:
            state.put(name, kind)
        elif name:
            count = int(trips.reshape(-1)[0]) if trips is not None else None
            if count is None or not 0 <= count < 2**31:
                count = state.invent(f"{name}[0]", node)
            state.put(name, Kind(kind.dtype, (count, *kind.shape)))
    return True


def _scan(state: Pass, node: Node) -> bool:
    """Scan (opset 9 and later): the body sees slices of what is scanned, outputs are stacked again."""
    if node.opset < 9:  # there it has lengths and a batch
        return False
    body: Graph = node.attributes["body"]
    scanned = int(node.attributes["num_scan_inputs"])
    states = len(node.inputs) - scanned
    axes = node.attributes.get("scan_input_axes") or (0,) * scanned
    stack = node.attributes.get("scan_output_axes") or (0,) * (len(node.outputs) - states)
    length = None
    for index, (inner, outer) in enumerate(zip(body.inputs, node.inputs, strict=False)):
        kind = state.kind(outer)
        if kind is not None and index >= states:
            axis = axes[index - states] % len(kind.shape)
            length = kind.shape[axis]
            kind = Kind(kind.dtype, kind.shape[:axis] + kind.shape[axis + 1 :])
        state.put(inner, kind)
    state.walk(body)
    for index, name in enumerate(node.outputs):
        kind = state.kind(body.outputs[index])
        if kind is None or (index >= states and length is None):
            state.recall_one(node, name)
        elif index < states:
            state.put(name, kind)
        else:
            shape = list(kind.shape)
            shape.insert(stack[index - states] % (len(shape) + 1), length or 0)
            state.put(name, Kind(kind.dtype, tuple(shape)))
    return True


def _sequence(state: Pass, node: Node) -> bool:
    """Operators on sequences; False where this one, or its input, is not known."""
    kinds = tuple(state.kind(name) for name in node.inputs)
    items = state.lists.get(node.inputs[0]) if node.inputs else None
    out = node.outputs[0]
    if node.op == "SequenceConstruct" and all(kinds):
        state.lists[out] = tuple(kind for kind in kinds if kind)
    elif node.op == "SplitToSequence" and kinds[0]:
        state.lists[out] = _split(state, node, kinds[0])
    elif node.op == "SequenceEmpty":
        state.lists[out] = ()
    elif node.op == "SequenceInsert" and items is not None and kinds[1]:
        state.lists[out] = (*items, kinds[1])
    elif node.op == "SequenceErase" and items:
        place = state.value(node.inputs[1]) if len(node.inputs) > 1 else np.asarray(-1)
        if place is None and len(set(items)) > 1:
            return False
        erased = (-1 if place is None else int(place.reshape(-1)[0])) % len(items)
        state.lists[out] = (*items[:erased], *items[erased + 1 :])
    elif node.op == "SequenceLength" and items is not None:
        state.keep(out, np.asarray(len(items), np.int64))
    elif node.op == "SequenceAt" and items:
        place = state.value(node.inputs[1])
        if place is None and len(set(items)) > 1:
            return False
        state.put(out, items[0 if place is None else int(place.reshape(-1)[0])])
    elif node.op == "ConcatFromSequence" and items:
        axis, shape = node.attributes["axis"], list(items[0].shape)
        if node.attributes.get("new_axis", 0):
            shape.insert(axis % (len(shape) + 1), len(items))
        else:
            shape[axis] = sum(item.shape[axis] for item in items)
        state.put(out, Kind(items[0].dtype, tuple(shape)))
    else:
        return False
    return True


def _split(state: Pass, node: Node, kind: Kind) -> tuple[Kind, ...]:
    shape = kind.shape
    axis = int(node.attributes.get("axis", 0)) % len(shape)
    sizes, told = [1] * shape[axis], node.inputs[1] if len(node.inputs) > 1 else ""
    given, count = state.value(told) if told else None, state.shapes.get(told)
    if given is None and count:
        sizes = state.parts(node, [f"{node.outputs[0]}[{k}]" for k in range(count[0])], shape[axis], axis)
    elif given is not None and given.ndim:
        sizes = [int(size) for size in given]
    elif given is not None:
        each = int(given.item())
        sizes = [min(each, shape[axis] - start) for start in range(0, shape[axis], each)]
    elif not node.attributes.get("keepdims", 1):
        return (Kind(kind.dtype, shape[:axis] + shape[axis + 1 :]),) * shape[axis]
    return tuple(Kind(kind.dtype, (*shape[:axis], size, *shape[axis + 1 :])) for size in sizes)


def _map(state: Pass, node: Node) -> bool:
    """SequenceMap: one walk of the body per element; in it stays known what all elements have in common."""
    body: Graph = node.attributes["body"]
    items = state.lists.get(node.inputs[0])
    if items is None:
        return False
    inside = sorted({*body.inputs, *made(body.nodes)})
    rounds = []
    for k in range(len(items)):
        for inner, outer in zip(body.inputs, node.inputs, strict=False):
            elements = state.lists.get(outer)
            state.put(inner, elements[k] if elements is not None else state.kind(outer))
        state.walk(body)
        rounds.append({name: (state.kind(name), _told(state.constants.get(name))) for name in inside})
        if k + 1 < len(items):
            state.forget(inside)
    state.forget([name for name in inside if any(each[name] != rounds[0][name] for each in rounds)])
    for name, inner in zip(node.outputs, body.outputs, strict=False):
        mapped = [state.kind(inner) if inner not in inside else each[inner][0] for each in rounds]
        if name and all(mapped):
            state.lists[name] = tuple(kind for kind in mapped if kind)
    return all(name in state.lists for name in node.outputs if name)


def _told(value: np.ndarray | None) -> tuple[str, bytes] | None:
    return None if value is None else (value.dtype.name, value.tobytes())


def _optional(state: Pass, node: Node) -> bool:
    """A value that may be absent: what is known of it is known of the value."""
    if node.op == "OptionalHasElement":
        state.put(node.outputs[0], Kind("bool", ()))
    elif node.inputs:
        state.copy(node.outputs[0], node.inputs[0])
    return node.outputs[0] in state.shapes or node.outputs[0] in state.lists


def made(nodes: Sequence[Node]) -> Iterator[str]:
    """What nodes make, and what enters and is made in their bodies."""
    for node in nodes:
        yield from node.outputs
        for body in node.bodies:
            yield from body.inputs
            yield from made(body.nodes)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), _optional),
    "If": _branch,
    "Loop": _loop,
    "Scan": _scan,
    "SequenceMap": _map,
    **dict.fromkeys(
        (
            "SequenceConstruct",
            "SplitToSequence",
            "SequenceEmpty",
            "SequenceInsert",
            "SequenceErase",
            "SequenceLength",
            "SequenceAt",
            "ConcatFromSequence",
        ),
        _sequence,
    ),
}
"""Each returns False where it could say nothing."""
