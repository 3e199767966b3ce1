"""States that became narrower: what their callers are to know, and what the file beside a model says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from symlint.model.graph import Model, Shape
from symlint.model.records import dataclass
from symlint.model.states.sidecar import NAME, pairs
from symlint.model.states.state import grows

ONE_SIZE = f"{NAME} has one number of heads and one size of a head for all caches, which now differ"


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A state of which callers keep fewer numbers than before."""

    input: str
    output: str
    before: tuple[int, ...]
    """Its sizes, but for those that callers choose."""
    after: tuple[int, ...]
    per: str
    """What it keeps so many numbers of: ``token`` where it grows, else ``sequence``."""
    shape: Shape
    """The new shape of the input, with numbers for the sizes that callers choose."""

    def __str__(self) -> str:
        one, other = (" x ".join(f"{n:,}" for n in sizes) for sizes in (self.before, self.after))
        return f"{self.input}: {one} -> {other} numbers per {self.per}"


def shrunk(before: Model, after: Model) -> tuple[Shrunk, ...]:
    """The states of a model that are narrower in what was made of it."""
    return tuple(_compared(before, after))


def _compared(before: Model, after: Model) -> Iterator[Shrunk]:
    chosen = set(before.symbols.values())
    for state in before.states:
        old, new = before.shapes[state.input], after.shapes[state.input]
        fixed = [k for k in state.axes if old[k] not in chosen]
        one, other = (tuple(shape[k] for k in fixed) for shape in (old, new))
        if one != other:
            per = "token" if grows(state.axes, old) else "sequence"
            yield Shrunk(state.input, state.output, one, other, per, new)


def config(model: Model, narrower: Sequence[Shrunk], file: str) -> str | None:
    """The file of onnxruntime-genai beside a model, for what was made of it; None where there is none.

    Args:
        model: before its states became narrower.
        narrower: those that did.
        file: the name of what was made of it.

    Raises ValueError where that file cannot tell the sizes.
    """
    source = Path(model.path).parent / NAME
    caches = [one for one, _ in pairs(model.path, model.graph.inputs, model.graph.outputs)]
    fresh = {one.input: one.shape for one in narrower}
    if fresh.keys().isdisjoint(caches):
        return None
    shapes = {fresh.get(name, model.shapes[name]) for name in caches}
    kinds = {(shape[1], shape[-1]) for shape in shapes if len(shape) == 4}
    if len(kinds) != 1 or any(len(shape) != 4 for shape in shapes):
        raise ValueError(ONE_SIZE)
    heads, size = kinds.pop()
    told: Any = json.loads(source.read_text(encoding="utf-8"))
    told["model"]["decoder"] |= {"filename": file, "head_size": size, "num_key_value_heads": heads}
    return json.dumps(told, indent=4) + "\n"
