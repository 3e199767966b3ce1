"""What a network computes before the last operators of an output, which may be saturated or round.

Equal there is equal behind them; the reverse does not hold, since what they take away may differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_ir as ir

SQUASHING = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Relu", "Clip", "Round", "Floor", "Ceil", "Sign", "NonZero"})
"""Operators that hide what they read where it is large, small or between two integers."""
CHOOSING = frozenset({"Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin", "TopK"})
"""Operators that do not see a shift along their axis, and hide all but the largest."""
COMPARING = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "NonMaxSuppression"})
"""Operators whose first two inputs are numbers, and their output none."""
CARRYING = frozenset(
    {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather"}
)
"""Operators that hand on what they read first."""


def expose(model: ir.Model, inner: Collection[str] = ()) -> bool:
    """Let a model end before the last operators of its outputs, in place; False where it has no such operators.

    ``inner`` are outputs that come back as states, which stay as they are.
    """
    graph, kept, made = model.graph, [], []
    for output in list(graph.outputs):
        if output.name in inner:
            kept.append(output)
            continue
        ends = list(dict.fromkeys(_ends(output)))
        if ends and all(end != (output, None) for end in ends):
            made += ends
        else:
            kept.append(output)
    if not made:
        return False
    old = model.opset_imports.get("", 13) < 13
    added = [_watched(graph, k, value, choice, old=old) for k, (value, choice) in enumerate(dict.fromkeys(made))]
    graph.outputs.clear()
    graph.outputs.extend([*kept, *added])
    return True


def _ends(output: ir.Value) -> Iterator[tuple[ir.Value, ir.Node | None]]:
    """What an output shows, and the operator that chooses among it; the output itself where nothing hides it."""
    todo: list[tuple[ir.Value, ir.Value]] = [(output, output)]
    seen: set[ir.Value] = set()
    while todo:
        value, end = todo.pop()
        node = value.producer()
        if value in seen:
            continue
        seen.add(value)
        op = node.op_type if node is not None and node.domain in ("", "ai.onnx") else ""
        inputs = [x for x in node.inputs if x is not None] if node is not None else []
        if op in CHOOSING:
            yield inputs[0], node
        elif op in SQUASHING:
            todo.append((inputs[0], inputs[0]))
        elif op in COMPARING:
            todo.extend((x, x) for x in inputs[:2] if x.producer() is not None)
        elif op in CARRYING:
            todo.append((inputs[0], end))
        elif op == "Concat":
            todo.extend((x, x) for x in inputs if x.producer() is not None)
        else:
            yield end, None


def _watched(graph: ir.Graph, k: int, value: ir.Value, choice: ir.Node | None, *, old: bool) -> ir.Value:
    """A new output with these numbers, less a shift that the choice among them does not see."""
    axis = choice.attributes.get("axis") if choice is not None else None
    shifted = choice is not None and not (old and choice.op_type in ("ArgMax", "ArgMin", "TopK"))
    default = 0 if choice is not None and choice.op_type in ("ArgMax", "ArgMin") else 1 if old else -1
    attributes = [ir.AttrInt64("axis", axis.as_int() if axis is not None else default)] if shifted else []
    node = ir.Node("", "LogSoftmax" if shifted else "Identity", [value], attributes, num_outputs=1)
    node.outputs[0].name = f"symlint.before.{k}"
    graph.append(node)
    return node.outputs[0]
