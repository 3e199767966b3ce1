"""State: how much of each space a network uses, in numbers that do not depend on the gauge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from symlint.comparison.change.delta import participation
from symlint.comparison.course.spectra import Spectra, holders
from symlint.comparison.matching.blocks import Block
from symlint.comparison.matching.readings import READS, WRITES
from symlint.comparison.matching.weights import VECTORS, Weights
from symlint.evidence.context import Context
from symlint.evidence.ranks.invariant import general_linear
from symlint.model.clusters import ABSENT
from symlint.model.graph import Array
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Action

LAST = 1 << 60
SPANNED = 1e-6
"""Directions below this, relative to the largest, are rounding."""
"""The order of what no step reads."""
SCALES = ("gain", "mul")


@dataclass(frozen=True, slots=True)
class State:
    """One space of a network."""

    id: str
    leaf: int
    name: str
    units: int
    """Over all copies."""
    live: int | None
    """Units that reach an output; None where units are but a choice of basis."""
    width: float | None
    """How many equally strong units, or directions, would do: the exponential of an entropy, over all copies."""
    rank: int | None
    """Directions of the product of writers and readers, over all copies, where that means something."""


def states(context: Context, weights: Weights | None) -> tuple[State, ...]:
    """The state of every space whose units are computed, in the order of the program.

    Args:
        context: the network.
        weights: its weights in the canonical gauge; None where widths are not asked for.
    """
    return tuple(_States(context, weights or Weights(context), widths=weights is not None).found())


class _States:
    def __init__(self, context: Context, weights: Weights, *, widths: bool) -> None:
        self.context, self.weights, self.widths = context, weights, widths
        self.structure = context.structure
        self.holders = holders(weights)
        self.spectra = Spectra(context, weights, self.holders)

    def found(self) -> Iterator[State]:
        plain = {s.id for s in self.context.spaces}
        low = {space.id: product for space, product in self.context.products}
        actions: dict[str, list[Action]] = defaultdict(list)
        for action in self.structure.actions.values():
            if action.leaf >= 0:
                actions[action.space].append(action)
        first = {k: min((self._order(b) for b in self.holders[a[0].leaf]), default=LAST) for k, a in actions.items()}
        for space in sorted(self.context.symmetry.spaces, key=lambda s: first.get(s.id, LAST)):
            mine, units = actions[space.id], space.size * space.copies
            if not mine:
                continue
            leaf = mine[0].leaf
            turned = next((a for a in mine if general_linear(a)), None)
            turned = turned or next((a for a in mine if isinstance(a, OrthogonalMap)), None)
            live = width = rank = None
            if space.id in plain:
                live = units - int(self.context.units(space).dead.sum())
                copies = next(a for a in mine if isinstance(a, UnitPermutation)).copies
                width = self._spread(space, leaf, copies) if self.widths else None
            elif turned is not None:
                width = self.spectra.width(turned) if self.widths else None
                if general_linear(turned):
                    product = low.get(space.id)
                    rank = product.total - sum(r.bound - r.rank for r in product.low.values()) if product else None
                    rank = self.spectra.bound(turned) if rank is None else rank
            yield State(space.id, leaf, space.name, units, live, width, rank)

    def _order(self, block: Block) -> int:
        return self.weights.all[block.weight].order

    def _spread(self, space: Space, leaf: int, copies: Sequence[int]) -> float | None:
        """The effective number of units: the strength of each is what is written times what is read."""
        sides: dict[str, Array] = {}
        gains: list[Array] = []
        for block in self.holders[leaf]:
            weight = self.weights.all[block.weight]
            values = self.weights.read(weight)
            if values is None:
                return None
            whole = self.spectra.measured(block, values, weight.tensor, leaf)
            energy = _per_unit(block, np.square(whole), leaf, copies)
            if weight.kind in SCALES and prod(weight.shape) == prod(energy.shape):
                gains.append(energy)
            elif weight.kind == "variance":
                gains.append(1 / np.maximum(energy**0.5, ABSENT))
            elif weight.kind not in VECTORS:
                for side in {u for d in block.dims if d.leaf == leaf for u in d.use.split("|")} & {WRITES, READS}:
                    sides[side] = sides.get(side, 0.0) + energy
        if not sides:
            return None
        strength = np.asarray(prod(sides.values()))
        if gains:
            # A stream has several gains, each for readers of its own: what counts is their mean.
            full = np.broadcast_shapes(*(g.shape for g in gains))
            strength = strength * np.mean([np.broadcast_to(g, full) for g in gains], axis=0)
        return participation(np.sqrt(strength)) * space.copies * space.size / strength.size


def _per_unit(block: Block, values: Array, leaf: int, copies: Sequence[int]) -> Array:
    """Values added up over all dimensions but the copies and the units; of size 1 where there is none."""
    wanted = [*copies, leaf]
    kept = [next((k for k, d in enumerate(block.dims) if d.leaf == x), None) for x in wanted]
    rest = tuple(k for k in range(values.ndim) if k not in kept)
    summed = values.sum(axis=rest)
    left = [k for k in range(values.ndim) if k not in rest]
    made = summed.transpose([left.index(k) for k in kept if k is not None])
    return np.asarray(made.reshape([1 if k is None else block.dims[k].size for k in kept]))
