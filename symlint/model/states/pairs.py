"""The states of a model: pairs that are declared, named beside it, told by their names or by what the graph does.

A pair has one floating type and rank, and one size along every axis but perhaps one, which grows. What only looks like
a pair stays what it is, an input and an output, and is listed with the way to declare it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from symlint.model.errors import UsageProblem, suggestion
from symlint.model.graph import Model
from symlint.model.states.names import Key, carried, coming, foreign, leaving
from symlint.model.states.sidecar import pairs as told_beside
from symlint.model.states.state import Declaration, Source, State
from symlint.model.states.structure import Structure


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
