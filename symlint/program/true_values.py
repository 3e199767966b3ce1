"""Which steps compute what their operator does, number by number, and not only what its symmetries show."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from symlint.model.graph import Graph, Node
from symlint.model.operators import known
from symlint.program.steps import Affine, Program, Step, Unknown

RECURRENT = frozenset({"RNN", "GRU", "LSTM"})
PLAIN = frozenset({"Add", "Mul", "Where", "Complement", "Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", "Identity"})
"""Functions in them that have no parameters."""
NORMS = frozenset(
    {
        *("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "InstanceNormalization"),
        *("GroupNormalization", "MeanVarianceNormalization", "LpNormalization"),
        *("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization"),
        "com.microsoft.EmbedLayerNormalization",
    }
)
"""Operators that normalise with an epsilon that is not negative; the others are written out."""


def exactly(step: Step) -> bool:
    """Whether a step computes what its operator does there."""
    if step.elementwise and step.node.op.startswith("Scatter"):
        return step.node.attributes.get("reduction", "none") in ("none", b"none")
    return known(step.node.op).exact


class Truth:
    """What of a program holds for every input, whatever lengths a run tells."""

    def __init__(self, program: Program) -> None:
        self.program = program
        symbols = set(program.model.symbols.values())
        self._lengths = {n for n in symbols if n > 1}
        self._lost = 1 in symbols  # a length of one cannot be told from no axis
        self._loops = looping(program.model.graph)
        self._states = {
            s.operands[2]: s
            for s in program.elementwise
            if s.function == "Where" and s.node.op in RECURRENT and len(s.operands) > 2
        }

    def free(self, length: int) -> bool:
        """Whether a length is one that only a run tells."""
        return any(length % n == 0 for n in self._lengths)

    def told(self, step: Step) -> bool:
        """Whether anything can be said of what a step makes: of the rounds of a loop only two are steps.

        The sums of an LSTM read its cell, which grows with time; some activations have parameters of their own.
        """
        unsure = step.elementwise and (
            (step.node.op == "LSTM" and step.function == "Add")
            or (step.node.op in RECURRENT and step.function not in PLAIN)
        )
        return not (self._lost or unsure or id(step.node) in self._loops or isinstance(step, (Unknown, Affine)))

    def varying(self, name: str, step: Step) -> bool:
        """Whether a step reads a state as it is after the first time step, which stands for all later ones."""
        return step.node.op in RECURRENT and self._states.get(name, step) is not step

    def averaged(self, step: Step) -> bool:
        """Whether the state of a gated unit is an average of values of a hyperbolic tangent, and of zero."""
        node, constants = step.node, self.program.model.constants
        start = node.inputs[5] if len(node.inputs) > 5 else ""
        zero = not start or (start in constants and not constants[start].any())
        return zero and not node.attributes.get("activations") and "clip" not in node.attributes

    @cached_property
    def doubtful(self) -> frozenset[str]:
        """The tensors that depend on no input and of which the values are not what the network computes."""
        found: set[str] = set()
        for name, step in self.program.makers.items():
            tabled = any(n in self.program.tables for n in step.operands)
            stale = tabled and not self.program.model.moving.isdisjoint(step.node.inputs)
            if stale or not (exactly(step) or name in self.program.affines) or not found.isdisjoint(step.operands):
                found.add(name)
        return frozenset(found)


def looping(graph: Graph) -> frozenset[int]:
    """The nodes of loops and of their bodies, by identity: only two rounds of them are steps."""
    return frozenset(id(node) for node in _looping(graph))


def _looping(graph: Graph) -> Iterator[Node]:
    waiting = [(graph, False)]
    while waiting:
        now, within = waiting.pop()
        for node in now.nodes:
            mine = within or node.op in ("Loop", "Scan")
            if mine:
                yield node
            waiting += [(body, mine) for body in node.bodies]
