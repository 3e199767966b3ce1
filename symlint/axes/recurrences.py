"""Recurrences in both directions: which of the two a space belongs to, where one tensor holds both."""

from __future__ import annotations

from collections.abc import Mapping

from symlint.axes.terms import Expansion
from symlint.axes.walk import Axes
from symlint.model.operators import known
from symlint.program.steps import Program

DIRECTIONS = {(0, 1): "forward", (1, 2): "reverse"}
"""The interval of the first axis of a weight -> the direction whose weights are there, in ONNX's words."""


def directions(program: Program, axes: Axes, expansion: Expansion) -> Mapping[int, str]:
    """Leaf -> its direction, for the hidden units of recurrences whose weights hold two."""
    both = {
        name
        for node in program.model.graph.walk()
        if known(node.op).recurrent and node.attributes.get("direction") in ("bidirectional", b"bidirectional")
        for name in node.inputs[1:3]
    }
    found: dict[int, set[str]] = {}
    for name, stored in program.weights.items() if both else ():
        if stored not in both and name not in both:
            continue
        first, *others = axes.of[name]
        keys = {key for term in expansion.terms(first) for key in term.condition}
        for f in others:
            for term in expansion.terms(f):
                words = {DIRECTIONS.get(term.condition.get(key, (0, 2)), "") for key in keys}
                for leaf in term.leaves:
                    found.setdefault(leaf, set()).update(words)
    return {leaf: words.pop() for leaf, words in found.items() if len(words) == 1}
