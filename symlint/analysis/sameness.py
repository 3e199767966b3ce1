"""Spaces whose units are all one function, because every weight that makes them is constant along them.

Duplicates are rows that chance would not repeat; a layer that was started at one number has no chance in it, and is
told by asking for equality alone, but of all units. Tensors that sum over the units do not have them, and weights that
are only summed over may differ.

Which weights write the units of a space and which read them, where nothing but tame functions lies between.

A tame function maps zero to zero and is never steeper than a few: what it makes of a small unit is as small. Then the
product of what writes a unit and what reads it bounds what it adds to an output, though no rescaling acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.values.weights import Blockwise
from symlint.model.clusters import ROUNDING, precision
from symlint.model.graph import Array, Tensor
from symlint.program.functions import dispatched
from symlint.program.numbers import compute
from symlint.program.steps import Affine, Concat, Einsum, Fold, Mix, Normalise, Pointwise, Slice, Step, Unknown
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.motion.action import Stand, stands
from symlint.symmetry.structure import Action, Structure


def all_alike(structure: Structure, action: Action, moving: Collection[str]) -> bool:
    """Whether the units of an action are the same in every tensor that depends on the input, copy by copy.

    Args:
        structure: of the network.
        action: a permutation.
        moving: the tensors that depend on the input.
    """
    return _Alike(structure, action).all(moving)


class _Alike:
    def __init__(self, structure: Structure, action: Action) -> None:
        self.structure, self.program, self.action = structure, structure.program, action
        factors = structure.axes.factors
        self.count = factors.size(action.leaf) * prod(factors.size(c) for c in action.copies)
        self.differ: set[tuple[str, int]] = set()
        """Tensor and axis along which the units differ."""

    def all(self, moving: Collection[str]) -> bool:
        """The answer; most spaces have no weight beyond a bias that is constant along them, and end it at once."""
        rows = False
        holders = self.structure.axes.factors.holders.get(self.action.leaf, set())
        for name, stored in [(n, self.program.weights[n]) for n in sorted(holders) if n in self.program.weights]:
            for stand in self._stands(name):
                if not self._constant(name, stand):
                    self.differ.add((name, stand.axis))
                elif self.program.model.tensors[stored].size > self.count:
                    rows = True
        if not rows:
            return False
        for step in self.program.steps:
            self.step(step)
        held = {n for n in holders if n in moving and any(True for _ in self._stands(n))}
        return bool(held) and not any(name in held for name, _ in self.differ)

    def _stands(self, name: str) -> Iterator[Stand]:
        axes = self.structure.axes.of[name]
        return stands(self.structure.expansion, axes, self.action.leaf, self.action.copies)

    def _constant(self, name: str, stand: Stand) -> bool:
        """Whether a weight is the same for all units, to a few roundings."""
        tensor = self.program.model.tensors[self.program.weights[name]]
        grid = np.moveaxis(stand.grid, stand.place, -1)
        slack = ROUNDING * precision(tensor.dtype)
        lines = _lines(tensor, stand.axis)
        for chosen in (grid[..., :2], grid):  # two units first: random ones differ
            block = lines(chosen).astype(np.float64)
            with np.errstate(invalid="ignore"):  # what is not finite is like nothing
                alike = np.abs(block - block[..., :1]) <= slack * np.abs(block[..., :1])
            if not np.all(alike):
                return False
        return True

    def _spread(self, out: str, pairs: Sequence[tuple[int, str, int]]) -> None:
        """An axis of a result has what an axis of an operand has: (axis, operand, its axis)."""
        self.differ.update((out, k) for k, name, j in pairs if (name, j) in self.differ)

    @dispatched
    def step(self, step: Step) -> None:
        """Where the units differ in the result of a step."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        pairs = [
            (k, name, j)
            for o, (name, spec) in enumerate(zip(step.operands, step.specs, strict=True))
            for j, labels in enumerate(spec)
            for k, made in enumerate(step.result)
            if set(labels) & set(made) and not ((name, j) in self.differ and self._evened(step, o, j))
        ]
        self._spread(step.out, pairs)

    def _evened(self, step: Einsum, place: int, axis: int) -> bool:
        """Whether units differ along an axis of a weight in elements alone that multiply the same units in sum."""
        name, spec = step.operands[place], step.specs[place]
        if name not in self.program.weights or len(step.operands) != 2 or self.action.copies:
            return False
        other, read = step.operands[1 - place], step.specs[1 - place]
        alone = ((self.action.leaf,),)

        def units(tensor: str, k: int) -> bool:
            terms = self.structure.expansion.terms(self.structure.axes.of[tensor][k])
            return tuple(term.leaves for term in terms) == alone

        over = tuple(
            k
            for k, labels in enumerate(spec)
            if k != axis and labels in read and step.kept.isdisjoint(labels) and units(name, k)
            if units(other, read.index(labels)) and (other, read.index(labels)) not in self.differ
        )
        if not over or not units(name, axis):
            return False
        tensor = self.program.model.tensors[self.program.weights[name]]
        values = tensor.read().astype(np.float64)
        made, size = (np.moveaxis(np.sum(v, over, keepdims=True), axis, 0) for v in (values, np.abs(values)))
        return bool(np.all(np.abs(made - made[0]) <= ROUNDING * precision(tensor.dtype) * size.max(axis=0)))

    @step.register
    def _(self, step: Pointwise) -> None:
        rank = len(self.program.shapes[step.out])
        ranks = {name: len(self.program.shapes[name]) for name in step.operands}
        self._spread(step.out, [(k + rank - n, name, k) for name, n in ranks.items() for k in range(n)])

    @step.register
    def _(self, step: Concat) -> None:
        axes = range(len(self.program.shapes[step.out]))
        self._spread(step.out, [(k, name, k) for name in step.operands for k in axes])

    @step.register(Slice)
    @step.register(Normalise)
    def _(self, step: Slice | Normalise) -> None:
        self._spread(step.out, [(k, step.x, k) for k in range(len(self.program.shapes[step.x]))])

    @step.register
    def _(self, step: Mix) -> None:
        self._spread(step.out, [(k, step.x, j) for k, j in enumerate(step.sources) if j is not None])

    @step.register
    def _(self, step: Fold) -> None:
        kept = [k for k in range(len(self.program.shapes[step.x])) if k not in step.axes]
        self._spread(step.out, [(k, step.x, j) for k, j in enumerate(kept)])

    @step.register
    def _(self, step: Affine) -> None:
        for out in (step.scale, step.shift):
            self._spread(out, [(0, name, 0) for name in (step.gain, step.bias, step.mean, step.var)])

    @step.register
    def _(self, step: Unknown) -> None:
        """Its results have units of their own."""


def _lines(tensor: Tensor, axis: int) -> Callable[[NDArray[np.int64]], Array]:
    """Gives some places of an axis of a tensor, which come last; of what is worked out in blocks no more is."""
    source: object = tensor.read
    if not isinstance(source, Blockwise):
        values = np.moveaxis(tensor.read(), axis, -1)
        return lambda chosen: values[..., chosen]

    def lines(chosen: NDArray[np.int64]) -> Array:
        place: Any = tuple(chosen.reshape(-1) if k == axis else slice(None) for k in range(len(tensor.shape)))
        found = np.moveaxis(source.at(place), axis, -1)
        return found.reshape(*found.shape[:-1], *chosen.shape)

    return lines


NEAR = np.array([-1e-3, -1e-6, 0.0, 1e-6, 1e-3])
STEEPEST = 4.0


def sides(
    structure: Structure, action: Action, places: Collection[Occurrence]
) -> tuple[set[Occurrence], set[Occurrence]] | None:
    """Writers and readers of the units of an action; None where some weight or step is neither.

    Args:
        structure, action: whose units are meant.
        places: where weights of the program hold them.
    """
    held = set(structure.axes.holding.get(action.leaf, ()))
    axes = {name: {o.axis for o in places if o.tensor == name} for name in {o.tensor for o in places}}
    found: dict[str, int] = {}
    for step in structure.program.touching(held):
        mine = [name for name in step.operands if name in held]
        moving = [name for name in mine if name not in axes]
        stored = [name for name in mine if name in axes]
        if isinstance(step, Pointwise):
            if step.known.sums:
                found.update(dict.fromkeys(stored, 1))
            elif stored or len(step.operands) > 1 or not _tame(step):
                return None
        elif isinstance(step, Einsum):
            out = step.out in held
            # A product unit by unit, or a table on its way.
            if len(stored) > 1 or len(moving) > 1 or (stored and bool(moving) == out):
                return None
            found.update(dict.fromkeys(stored, 1 if out else -1))
        elif stored or not step.linear:
            return None
    if set(found) != set(axes) or any(len(a) > 1 for a in axes.values()):
        return None
    wrote, read = ({o for o in places if found[o.tensor] == sign} for sign in (1, -1))
    return (wrote, read) if wrote and read else None


def _tame(step: Pointwise) -> bool:
    made = compute(step, [NEAR])
    return made is not None and bool(np.all(np.abs(made) <= STEEPEST * np.abs(NEAR)))
