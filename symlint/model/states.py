"""A state: an input and an output of a graph between which the caller closes a loop, without looking into it.

The states of a model: pairs that are declared, named beside it, told by their names or by what the graph does.

A name falls into words; those that only say on which side it stands are left out, and what is left is the same on both:
``past_key_values.0.key`` and ``present.0.key``, ``cache_in_3`` and ``cache_out_3``, ``state`` and ``stateN``.

Source: https://onnxruntime.ai/docs/genai/reference/config.html (``model.decoder.inputs`` and ``outputs``; ``%d`` is the
number of the layer).

A recurrence that is written out is known by its gate: a sigmoid says how much of the state stays, and something is
added that no state is multiplied into. A mask that is laid on an input adds nothing, or the input again.

Sources: https://onnx.ai/onnx/operators/onnx__Concat.html, https://onnx.ai/onnx/operators/onnx__LSTM.html (``initial_h``
is input 5 and ``initial_c`` input 6 of RNN, GRU and LSTM; ``Y_h`` is output 1 and ``Y_c`` output 2).

A pair has one floating type and rank, and one size along every axis but perhaps one, which grows. What only looks like
a pair stays what it is, an input and an output, and is listed with the way to declare it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from symlint.model.errors import UsageProblem, suggestion
from symlint.model.records import dataclass

if TYPE_CHECKING:
    from symlint.model.graph import Graph, Model, Node

Source = Literal["declared", "sidecar", "name", "structure"]
Start = Literal["zero", "given", "file"]
STARTS: tuple[Start, ...] = get_args(Start)


@dataclass(frozen=True, slots=True)
class State:
    """What leaves a network by an output and comes back by an input at its next step."""

    input: str
    output: str
    axes: tuple[int, ...]
    """Axes that have one size on both sides; the one that is left out grows with time."""
    source: Source
    """Where the pair was found."""
    start: Start = "zero"
    """What comes in at the first step: zeros, or nothing where an axis grows from nothing; else it is given."""
    seen: bool = False
    """Whether the caller reads the output as well."""

    @property
    def closed(self) -> bool:
        """Whether the loop starts by itself and nobody outside ever sees what is in it."""
        return self.start == "zero" and not self.seen


def grows(axes: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether what is kept over these axes of a shape grows along another one."""
    return len(axes) < len(shape)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A pair that a user has declared; without an input, an output that the caller reads as well."""

    input: str
    output: str
    start: Start = "zero"


_WORD = re.compile(r"[A-Za-z]+|\d+")
_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])")
_COMING = frozenset({"in", "ins", "input", "past", "prev", "previous", "old", "init", "initial", "cached"})
_LEAVING = frozenset({"out", "outs", "output", "present", "next", "new", "r", "cached", "updated", "final"})
_CARRIED = frozenset(
    {"att", "avg", "buffer", "c", "cache", "caches", "cell", "cnn", "conv", "cx", "ctx", "h", "hidden", "hx", "key"}
    | {"keys", "kv", "mem", "memory", "past", "present", "recurrent", "ssm", "state", "states", "value", "values"}
)
"""Words for what is carried on; without one of them, a pair such as ``image_in`` and ``image_out`` is none."""
_TELLING = frozenset({"new", "next", "past", "present"})
"""Words that nobody would use for what is not carried on."""
_FOREIGN = frozenset({"encoder", "cross"})
"""Words for what another network supplies: it is read at every step, and never changes."""

Key = tuple[str, ...]


def words(name: str) -> Key:
    """The words of a name in lower case; numbers are words of their own."""
    return tuple(word.lower() for word in _WORD.findall(_BOUNDARY.sub(" ", name)))


def coming(name: str) -> Iterator[Key]:
    """What is left of the name of an input without the words of its side, the surest first."""
    parts = words(name)
    yield _without(parts, _COMING)
    if parts[-1:] == ("0",):  # h0, the state before the first step
        yield parts[:-1]


def leaving(name: str) -> Iterator[Key]:
    """The same of an output."""
    parts = words(name)
    yield _without(parts, _LEAVING)
    if parts and len(parts[-1]) > 1 and parts[-1].endswith("n"):  # hn, stateN: after step n
        yield (*parts[:-1], parts[-1][:-1])
    if parts[-1:] == ("n",):
        yield parts[:-1]


def carried(name: str) -> bool:
    """Whether a name has a word for what is carried on."""
    parts = words(name)
    named = not (_CARRIED | _TELLING).isdisjoint(parts)
    return named or any(p[:-1] in _CARRIED and p.endswith("n") for p in parts)


def foreign(name: str) -> bool:
    """Whether a name says that another network supplies the value."""
    return not _FOREIGN.isdisjoint(words(name))


def _without(parts: Key, side: frozenset[str]) -> Key:
    both = parts[1:3] == ("key", "values") and parts[0] in ("past", "present")
    return tuple(part for part in (parts[3:] if both else parts) if part not in side)


SIDECAR = "genai_config.json"
_TEMPLATES = (
    ("past_key_names", "present_key_names"),
    ("past_value_names", "present_value_names"),
    ("past_names", "present_names"),
)
LARGEST = 1 << 20
"""Bytes of such a file; a larger one is something else."""


def templates(model: str) -> tuple[tuple[str, str], ...]:
    """The templates of inputs and of outputs that the file beside a model names; none where there is no such file."""
    file = Path(model).parent / SIDECAR
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            return ()
        ends: Any = json.loads(file.read_text(encoding="utf-8"))["model"]["decoder"]
        found = [(ends["inputs"].get(one), ends["outputs"].get(other)) for one, other in _TEMPLATES]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    return tuple((one, other) for one, other in found if isinstance(one, str) and isinstance(other, str))


def told_beside(model: str, inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Input and output of every layer that the templates name."""
    for one, other in templates(model):
        for layer in count():
            pair = one.replace("%d", str(layer)), other.replace("%d", str(layer))
            if pair[0] not in inputs or pair[1] not in outputs:
                break
            yield pair
            if "%d" not in one:
                break


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


def closed(model: Model, declared: Sequence[Declaration] = (), *, found: bool = True, strict: bool = False) -> Model:
    """The model with its states: those that are declared, and where wished those that are found.

    Args:
        model: as it was read.
        declared: pairs, and outputs that the caller reads as well.
        found: whether pairs that nobody has declared are looked for.
        strict: whether a name that the model does not have is a mistake, and not meant for another model.

    Raises `UsageProblem` where a declared pair is none.
    """
    names = {*model.graph.inputs, *model.graph.outputs}
    mine = [d for d in declared if strict or names.issuperset(filter(None, (d.input, d.output)))]
    states = [_declared(model, each) for each in mine if each.input]
    free = [*states, *_free(model, states)] if found else states
    # Somebody gives a network something and reads something of it: else it only looks as if it went on by itself.
    if len(free) < min(len(model.graph.inputs), len(model.graph.outputs)):
        states = free
    seen = {d.output for d in mine if not d.input}
    if unknown := seen - {state.output for state in states}:
        raise UsageProblem(f"{model.path}: {min(unknown)!r} is the output of no state")
    return replace(model, states=tuple(replace(s, seen=s.output in seen) for s in states))


def doubtful(model: Model) -> tuple[tuple[str, str], ...]:
    """Inputs and outputs of one shape whose names go together, though nothing says that they are a state."""
    taken = {name for state in model.states for name in (state.input, state.output)}
    return tuple(
        pair for pair in _named(model, surely=False) if taken.isdisjoint(pair) and _axes(model, *pair) is not None
    )


def _declared(model: Model, pair: Declaration) -> State:
    for name, known, side in (
        (pair.input, model.graph.inputs, "input"),
        (pair.output, model.graph.outputs, "output"),
    ):
        if name not in known:
            raise UsageProblem(f"{model.path}: no {side} {name!r} for a state{suggestion(name, known)}")
    axes = _axes(model, pair.input, pair.output)
    if axes is None:
        shapes = " and ".join(str(list(model.shapes.get(n, ()))) for n in (pair.input, pair.output))
        raise UsageProblem(
            f"{model.path}: {pair.input!r} and {pair.output!r} are no state: their shapes are {shapes}, and at most one"
            " axis may grow"
        )
    return State(pair.input, pair.output, axes, "declared", pair.start)


def _free(model: Model, known: Sequence[State]) -> Iterator[State]:
    """The pairs that are found, of what is not declared."""
    taken = {name for state in known for name in (state.input, state.output)}
    graph = model.graph
    sources: tuple[tuple[Source, Iterator[tuple[str, str]]], ...] = (
        ("sidecar", told_beside(model.path, graph.inputs, graph.outputs)),
        ("name", _named(model, surely=True)),
        ("structure", Structure(graph).pairs()),
    )
    for source, pairs in sources:
        for one, other in pairs:
            axes = _axes(model, one, other) if taken.isdisjoint((one, other)) else None
            if axes is not None:
                taken |= {one, other}
                yield State(one, other, axes, source, "given" if foreign(one) or foreign(other) else "zero")


def _named(model: Model, *, surely: bool) -> Iterator[tuple[str, str]]:
    """Inputs and outputs whose names are the same but for the words of their sides, as no others are."""
    graph = model.graph
    left: defaultdict[Key, list[str]] = defaultdict(list)
    for output in graph.outputs:
        for key in dict.fromkeys(leaving(output)):
            left[key].append(output)
    come: defaultdict[Key, list[str]] = defaultdict(list)
    for name in graph.inputs:
        for key in dict.fromkeys(coming(name)):
            come[key].append(name)
    for key, names in come.items():
        outputs = left.get(key, [])
        if key and len(names) == len(outputs) == 1 and (carried(names[0]) or carried(outputs[0])) == surely:
            yield names[0], outputs[0]


def _axes(model: Model, one: str, other: str) -> tuple[int, ...] | None:
    """The axes of one size on both sides; None for what is no pair."""
    shapes, kinds = [model.shapes.get(n) for n in (one, other)], [model.dtypes.get(n) for n in (one, other)]
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]) or not shapes[0]:
        return None
    if kinds[0] != kinds[1] or "float" not in (kinds[0] or ""):
        return None
    sizes = list(zip(shapes[0], shapes[1], strict=True))
    same = tuple(k for k, (before, after) in enumerate(sizes) if before == after)
    # What has grown comes back: its input takes any length.
    free = set(model.symbols.values())
    grows = all(before == after or (before < after and before in free) for before, after in sizes)
    return same if grows and len(same) >= len(sizes) - 1 else None
