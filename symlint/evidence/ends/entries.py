"""Entries of inputs and outputs: which of them a finding speaks of, in numbers and in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from symlint.analysis.need import Mask
from symlint.evidence.ends.pinned import Ends, compares
from symlint.model.graph import Array, Model, Shape
from symlint.model.operators import known as operator
from symlint.model.records import dataclass
from symlint.program.translate import reads


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of a tensor along one axis, or places along several of them."""

    axes: tuple[int, ...]
    sizes: Shape
    places: tuple[int, ...]
    """Ascending, row by row where there are several axes."""

    @property
    def total(self) -> int:
        """How many entries there are."""
        return int(np.prod(self.sizes))

    def of(self, name: str, one: str = "entry", many: str = "entries") -> str:
        """In words, such as ``entries 1 and 4 of 6 of x``; many are counted."""
        if len(self.places) == 1:
            return f"{one} {self.places[0]} of {self.total:,} of {name}"
        if len(self.places) > 4:
            return f"{len(self.places):,} of {self.total:,} {many} of {name}"
        listed = ", ".join(map(str, self.places[:-1]))
        return f"{many} {listed} and {self.places[-1]} of {self.total:,} of {name}"

    @property
    def facts(self) -> dict[str, Any]:
        """Where they lie."""
        return {"axes": list(self.axes), "sizes": list(self.sizes), "entries": len(self.places), "of": self.total}


def entries(mask: Mask) -> Entries | None:
    """The elements of a mask as entries along one axis if that says it all; None where there are none."""
    axes = tuple(k for k, n in enumerate(mask.shape) if n > 1)
    if not mask.any() or not axes:
        return None
    for k in axes:
        line = np.asarray(mask.all(axis=tuple(a for a in range(mask.ndim) if a != k)))
        if np.count_nonzero(line) * (mask.size // len(line)) == np.count_nonzero(mask):
            return Entries((k,), (len(line),), tuple(np.flatnonzero(line).tolist()))
    sizes = tuple(mask.shape[k] for k in axes)
    return Entries(axes, sizes, tuple(np.flatnonzero(mask.reshape(sizes)).tolist()))


@dataclass(frozen=True, slots=True)
class Scores:
    """An output, or the logits behind it, of which some elements are still while others are not."""

    output: str
    """Its name in the file."""
    tensor: str
    compared: bool
    """Whether only differences between the elements count."""
    still: Mask
    """Without those that would be still with any weights."""
    known: Mask
    numbers: Array

    def constants(self, found: Entries) -> list[float | None]:
        """The number of each entry, None where it differs from place to place; less the first of logits."""
        order = [*found.axes, *(k for k in range(self.still.ndim) if k not in found.axes)]
        known, numbers = (
            np.broadcast_to(a, self.still.shape).transpose(order).reshape(found.total, -1)
            for a in (self.known, self.numbers)
        )
        rows = [numbers[p] if known[p].all() and np.ptp(numbers[p]) == 0 else None for p in found.places]
        first = rows[0][0] if self.compared and rows[0] is not None else 0.0
        return [None if row is None else float(f"{row[0] - first:.6g}") for row in rows]


def scores(ends: Ends, moving: Collection[str]) -> Iterator[Scores]:
    """Every output that is partly still, the first of those that share their entries."""
    program = ends.structure.program
    seen: set[tuple[object, ...]] = set()
    for output, name in zip(program.outputs, program.model.graph.outputs, strict=False):
        if output not in moving or output not in program.ends or ends.still(output).all():
            continue
        for tensor, step in ends.tail(output):
            compared = compares(step)
            still = ends.still(tensor) if compared or step is None else np.zeros((), bool)
            if still.any():
                still = still & ~ends.generic.still(tensor)
            if not still.any() or still.all():
                continue
            held = frozenset(x for f in ends.structure.axes.of[tensor] for x in ends.structure.axes.factors.leaves(f))
            key = (held & ends.leaves, still.tobytes())
            if key not in seen:
                seen.add(key)
                yield Scores(name, tensor, compared, still, *ends.constants(tensor))
            break


def reading(model: Model) -> dict[str, str]:
    """Input -> what the graph does with it: ``used``, ``lost`` on the way, ``measured`` (its shape alone), ``left``."""
    useful, known = set(model.graph.outputs), model.constants
    for node in reversed(model.graph.nodes):
        if not useful.isdisjoint(node.outputs):
            useful.update(reads(node))
    read = {n: [k for k in model.graph.nodes if n in set(reads(k))] for n in model.graph.inputs}
    found: dict[str, str] = {}
    for name, nodes in read.items():
        of_values = [k for k in nodes if not operator(k.op).measures and not all(n in known for n in k.outputs)]
        if name in useful and (of_values or name in model.graph.outputs):
            found[name] = "used"
        else:
            found[name] = "left" if not nodes else "lost" if of_values else "measured"
    return found
