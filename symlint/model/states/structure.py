"""Pairs by what the graph does with them: a cache is put before what is new, a recurrence goes on from its last state.

A recurrence that is written out is known by its gate: a sigmoid says how much of the state stays, and something is
added that no state is multiplied into. A mask that is laid on an input adds nothing, or the input again.

Sources: https://onnx.ai/onnx/operators/onnx__Concat.html, https://onnx.ai/onnx/operators/onnx__LSTM.html (``initial_h``
is input 5 and ``initial_c`` input 6 of RNN, GRU and LSTM; ``Y_h`` is output 1 and ``Y_c`` output 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from symlint.model.graph import Graph, Node

_LAYOUT = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_PARTS = frozenset({"Gather", "Slice", "Split"})
_GATES = frozenset({"HardSigmoid", "Sigmoid"})
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
Seat = tuple[str, int]
"""First output of a recurrence, and whether it is about the hidden state (0) or the cell (1)."""


class Structure:
    """Which inputs of a graph go on in which of its outputs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        made = [node for node in graph.nodes if node.inputs]
        self.makers: Mapping[str, Node] = {name: node for node in made for name in node.outputs if name}

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Input and output of what is surely carried on."""
        for output in self.graph.outputs:
            seats = frozenset(self._left(output))
            alike = [name for name, mine in self.entered.items() if mine and mine == seats]
            found = alike if seats else self._cached(output) or self._gated(output)
            if len(found) == 1:
                yield found[0], output

    @cached_property
    def entered(self) -> dict[str, frozenset[Seat]]:
        """Input -> the recurrences that start from it."""
        found: dict[str, set[Seat]] = {name: set() for name in self.graph.inputs}
        for node in self.graph.nodes:
            for k in (5, 6) if node.op in _RECURRENT else ():
                name = self._origin(node.inputs[k]) if k < len(node.inputs) else ""
                if name in found:
                    found[name].add((node.first, k - 5))
        return {name: frozenset(seats) for name, seats in found.items()}

    def _origin(self, name: str) -> str:
        """The value of which another is a part, in another layout."""
        while (node := self.makers.get(name)) is not None and (_moves(node) or node.op in _PARTS):
            name = node.inputs[0]
        return name

    def _gated(self, output: str) -> list[str]:
        """The inputs of which a gate says how much of them stays in a part of an output."""
        todo, found, seen = [output], dict[str, None](), set[str]()
        while todo:
            name = self._plain(todo.pop())
            node = self.makers.get(name) if name not in seen else None
            seen.add(name)  # what is put beside itself again and again has as many parts as there are ways
            if node is not None and node.op == "Concat":
                todo += node.inputs
            elif node is not None and node.op in ("Add", "Sum"):
                kept = [self._kept(part) for part in node.inputs]
                found.update((part, None) for part in kept if part and kept.count("") == len(kept) - 1)
        return list(found)

    def _kept(self, name: str) -> str:
        """The input of which a value is a gated part; empty where it is none."""
        node = self.makers.get(self._plain(name))
        if node is None or node.op != "Mul":
            return ""
        origins = [self._origin(operand) for operand in node.inputs]
        gates = [m for o in origins if (m := self.makers.get(o)) is not None]
        gates = [self.makers.get(self._origin(g.inputs[-1])) or g if g.op == "Sub" else g for g in gates]
        state = next((o for o in origins if o in self.graph.inputs), "")
        return state if any(g.op in _GATES for g in gates) else ""

    def _left(self, output: str) -> Iterator[Seat]:
        """The recurrences of whose last states an output is made, and of nothing else."""
        todo, found, seen = [output], list[Seat](), set[str]()
        while todo:
            name = self._plain(todo.pop())
            if name in seen:
                continue
            seen.add(name)
            node = self.makers.get(name)
            if node is not None and node.op == "Concat":
                todo += node.inputs
            elif node is not None and node.op in _RECURRENT and name in node.outputs[1:]:
                found.append((node.first, node.outputs.index(name) - 1))
            else:
                return
        yield from found

    def _cached(self, output: str) -> list[str]:
        """The inputs that an output, or of what it is a part, begins with."""
        node = self.makers.get(self._origin(output))
        if node is None or node.op != "Concat":
            return []
        first = self._plain(node.inputs[0])
        return [first] if first in self.graph.inputs else []

    def _plain(self, name: str) -> str:
        while (node := self.makers.get(name)) is not None and _moves(node):
            name = node.inputs[0]
        return name


def _moves(node: Node) -> bool:
    """Whether a node is its first operand in another layout."""
    return node.op in _LAYOUT or (node.op == "Concat" and len(node.inputs) == 1)
