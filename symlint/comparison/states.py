"""State: how much of each space a network uses, and its spectra, in numbers that do not depend on the gauge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import prod
from types import MappingProxyType

import numpy as np

from symlint.comparison.weights import VECTORS, WRITES, Block, Weights
from symlint.evidence.context import Context
from symlint.evidence.estimates import effective_width, participation
from symlint.evidence.products import general_linear
from symlint.evidence.ranks import Freedom
from symlint.model.clusters import ABSENT
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Unvalued
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.actions.translation import Shift
from symlint.symmetry.motion.action import stands
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Action
from symlint.symmetry.translation.element import unseen

WIDEST = 1024
"""Spectra of wider spaces are left alone: the cost grows with the cube of the width."""
MOST = 1 << 25
"""The same for spaces of many copies."""
SPANNED = 1e-6
"""Directions below this, relative to the largest, are rounding."""
TURNS = 30
"""How often rows and columns of a product are brought to one size in turn."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one block over the units: shape (copies, rows, rows that a rotation of their own mixes, units)."""

    values: Array
    sheared: bool
    """Whether more than rotations mixes the rows, so that only the space that they span means something."""

    def gram(self, size: Array) -> Array:
        """Per copy, the Gram matrix over the units of rows divided by their sizes, shape (copies, n, n)."""
        scaled = np.where(size > ABSENT, self.values / np.maximum(size, ABSENT), 0.0)
        flat = scaled.reshape(scaled.shape[0], -1, scaled.shape[-1])
        return np.asarray(flat.swapaxes(1, 2) @ flat)

    def sizes(self, gram: Array) -> Array:
        """The size of every row, those that are mixed together, measured by a Gram matrix of the other side."""
        square = np.asarray(np.einsum("comn,comn->co", self.values @ gram[:, None], self.values))
        return np.asarray(np.sqrt(np.maximum(square, 0.0))[..., None, None])


class Spectra:
    """The spectra of one network's rotated spaces."""

    def __init__(self, context: Context, weights: Weights, holders: Mapping[int, list[Block]]) -> None:
        self.structure, self.weights, self.holders = context.structure, weights, holders
        self.factors = context.structure.axes.factors
        turns = self.structure.rotations
        self.linear = {a.leaf: a for a in turns if general_linear(a)}
        self.rotated = frozenset(a.leaf for a in turns)
        self.centred = frozenset(a.leaf for a in turns if isinstance(a, OrthogonalMap) and a.fixes_ones)
        self._energies: dict[str, Sequence[Array] | None] = {}
        self._metrics: dict[tuple[int, bool], Array | None] = {}
        self.frames: dict[tuple[str, int, int, int], Array] = {}
        self.unseen: dict[str, list[Array]] = defaultdict(list)
        """Weight -> arrays along one axis of it, of which what it is read with sees no multiple."""
        shifts = (a for a in self.structure.actions.values() if isinstance(a, Shift))
        for nowhere in (n for shift in shifts for n in shift.translation.nulls):
            with np.errstate(all="ignore"), suppress(Unvalued):
                along = unseen(nowhere, weights.numbers)
                if along is not None and np.isfinite(along).all() and along.all():
                    self.unseen[nowhere.way.weight].append(along)
        for action in (a for a in turns if isinstance(a, OrthogonalMap)):
            for o, gains in action.frames.items():
                found = [(weights.number(gain), float(power)) for gain, power in gains]
                powers = [gain.reshape(-1) ** power for gain, power in found if gain is not None]
                if len(powers) == len(found):
                    frame = prod(powers, start=np.ones(1))
                    self.frames[o.tensor, o.axis, o.term, action.leaf] = np.where(frame == 0, 1.0, frame)

    def width(self, action: Action) -> float | None:
        """The effective number of directions, added up over the copies; None where it cannot be told in any basis."""
        found = self.energies(action)
        return None if found is None else float(sum(map(participation, found)))

    def energies(self, action: Action) -> Sequence[Array] | None:
        """Per copy, the squared singular values, ascending; None where they cannot be told in any basis.

        Where all invertible matrices act they are those of the product of the two sides, whose rows and columns are
        brought to one size first. Where only rotations act they are those of what is written, row by row of length one.
        """
        if action.id not in self._energies:
            self._energies[action.id] = self._decomposed(action)
        return self._energies[action.id]

    def _decomposed(self, action: Action) -> Sequence[Array] | None:
        size, copies = self.factors.size(action.leaf), prod(self.factors.size(c) for c in action.copies)
        if size > WIDEST or copies * size * size > MOST or (general_linear(action) and self._loose(action)):
            return None
        sides = self._sides(action)
        if not sides or not all(np.isfinite(rows.values).all() for side in sides.values() for rows in side):
            return None
        if not general_linear(action):
            grams = self._plain(next(iter(sides.values())), action)
            return [np.linalg.eigvalsh(g).clip(0) for g in grams]
        if len(sides) != 2 or any(rows.sheared for side in sides.values() for rows in side):
            return None
        one, two = sides.values()
        grams = np.broadcast_to(np.eye(size), (copies, size, size))
        for _ in range(TURNS):
            first = sum(rows.gram(rows.sizes(grams)) for rows in one)
            grams = np.asarray(sum(rows.gram(rows.sizes(np.asarray(first))) for rows in two))
        pairs = (np.broadcast_to(g, (copies, size, size)) for g in (first, grams))
        return [np.linalg.eigvalsh(root @ b @ root).clip(0) for a, b in zip(*pairs, strict=True) for root in [_root(a)]]

    def _loose(self, action: Action) -> bool:
        """Whether some rows may be shifted along all units, in a direction other than the mean of a rotated stream."""
        of, weights = self.structure.axes.of, self.structure.program.weights
        names = {o.tensor for o in action.charge if o.tensor in weights}
        places = {n: list(stands(self.structure.expansion, of[n], action.leaf, action.copies)) for n in names}
        rows = (f for n in Freedom(self.structure).touched(places) & names for f in of[n])
        beside = (set(self.factors.leaves(f)) for f in rows if self.factors.size(f) > 1)
        return any(action.leaf not in leaves and not leaves <= self.centred for leaves in beside)

    def _plain(self, rows: list[Rows], action: Action) -> Array:
        """The Gram matrices of what is written, each row of length one; what a mean takes away is left out."""
        size = self.factors.size(action.leaf)
        fixing = isinstance(action, OrthogonalMap) and action.fixes_ones
        eye = np.eye(size) - (np.full((size, size), 1 / size) if fixing else 0.0)
        found = np.zeros((1, size, size))
        for part in rows:
            centred = Rows(part.values @ eye, part.sheared)
            if part.sheared:
                _, length, span = np.linalg.svd(centred.values, full_matrices=False)
                there = (length > SPANNED * length.max(axis=-1, keepdims=True))[..., None]
                found = found + Rows(span * there, sheared=True).gram(np.ones(1))
            else:
                found = found + centred.gram(centred.sizes(np.broadcast_to(np.eye(size), (1, size, size))))
        return found

    def _sides(self, action: Action) -> dict[object, list[Rows]] | None:
        """The rows of either side: of writers alone where only rotations act. None where some number is unknown."""
        charge = {(o.tensor, o.axis, o.term): c > 0 for o, c in action.charge.items()}
        sides: dict[object, list[Rows]] = defaultdict(list)
        for block in self.holders[action.leaf]:
            weight = self.weights.all[block.weight]
            mine = [d for d in block.dims if d.leaf == action.leaf]
            place = (weight.tensor, mine[0].axis, mine[0].term)
            if weight.kind in VECTORS or place not in charge:
                continue
            if len(mine) > 1:
                return None
            side: object = charge[place]
            if not general_linear(action):
                if WRITES not in mine[0].use.split("|"):
                    continue
                side = WRITES
            values = self.weights.read(weight)
            if values is None:
                return None
            sides[side].append(self._rows(block, values, action, weight.tensor))
        return sides

    def absorbed(self, block: Block, values: Array, name: str, leaf: int) -> Array:
        """A block of a tensor in float64 with the gains of normalisations in it, and without what their means remove.

        The dimension of `leaf` is left as it is.
        """
        mine = {d.axis for d in block.dims if d.leaf == leaf}
        for along in self.unseen.get(name, ()):
            axes = tuple(k for k, n in enumerate(along.shape) if n > 1)
            if len(axes) == 1 and mine.isdisjoint(axes):
                values = values - along * np.mean(values / along, axis=axes, keepdims=True)
        cut = block.cut(values).astype(np.float64)
        for k, d in enumerate(block.dims):
            frame = self.frames.get((name, d.axis, d.term, d.leaf))
            if frame is not None and frame.size in (1, d.size):
                cut = cut / frame.reshape([-1 if j == k else 1 for j in range(cut.ndim)])
            if d.leaf in self.centred and d.leaf != leaf:
                cut = cut - cut.mean(axis=k, keepdims=True)
        return cut

    def measured(self, block: Block, values: Array, name: str, leaf: int) -> Array:
        """The same, along a linear space in the metric of its other side: as what is seen through that space."""
        cut = self.absorbed(block, values, name, leaf)
        for k, d in enumerate(block.dims):
            if d.leaf != leaf and d.leaf in self.linear and d.size <= WIDEST:
                root = self._metric(d.leaf, (name, d.axis, d.term))
                cut = cut if root is None else np.moveaxis(np.moveaxis(cut, k, -1) @ root, -1, k)
        return cut

    def _metric(self, leaf: int, place: tuple[str, int, int]) -> Array | None:
        """The root of the Gram matrix of the side of a linear space on which a place is not."""
        action = self.linear[leaf]
        mine = next((c > 0 for o, c in action.charge.items() if (o.tensor, o.axis, o.term) == place), None)
        if action.copies or mine is None:
            return None
        if (leaf, mine) not in self._metrics:
            found = (self._sides(action) or {}).get(not mine)
            gram = None if not found else np.sum([rows.gram(np.ones(1))[0] for rows in found], axis=0)
            self._metrics[leaf, mine] = None if gram is None else _root(gram)
        return self._metrics[leaf, mine]

    def bounds(self, action: Action) -> tuple[int, ...]:
        """What the rank of each copy of a linear space could be."""
        size, copies = self.factors.size(action.leaf), prod(self.factors.size(c) for c in action.copies)
        sides = (self._sides(action) or {}).values()
        rows = [sum(prod(rows.values.shape[:3]) for rows in side) // copies for side in sides]
        return (min([size, *rows]),) * copies

    def _rows(self, block: Block, values: Array, action: Action, name: str) -> Rows:
        """The rows of a block over the units of an action."""
        cut = self.absorbed(block, values, name, action.leaf)
        leaves = [d.leaf for d in block.dims]
        unit, copies = leaves.index(action.leaf), [leaves.index(c) for c in action.copies if c in leaves]
        mixed = [k for k, x in enumerate(leaves) if x in self.rotated and k not in (unit, *copies)]
        outer = [k for k in range(len(leaves)) if k not in (unit, *copies, *mixed)]
        if len(copies) < len(action.copies):
            copies, outer = [], [*copies, *outer]
        size = [prod(block.dims[k].size for k in part) for part in (copies, outer, mixed)]
        rows = cut.transpose([*copies, *outer, *mixed, unit]).reshape(*size, block.dims[unit].size)
        return Rows(rows, sheared=any(leaves[k] in self.linear for k in mixed))


def holders(weights: Weights) -> dict[int, list[Block]]:
    """Leaf -> the blocks that hold it."""
    found: dict[int, list[Block]] = defaultdict(list)
    for block in weights.blocks:
        for leaf in {d.leaf for d in block.dims}:
            found[leaf].append(block)
    return found


def _root(gram: Array) -> Array:
    values, vectors = np.linalg.eigh(gram)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


LAST = 1 << 60
"""The order of what no step reads."""


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


def states(context: Context, *, widths: bool) -> tuple[State, ...]:
    """The state of every space whose units are computed, in the order of the program; widths cost the most."""
    known = States(context)
    return tuple(known.state(space, widths=widths) for space in known.spaces)


class States:
    """The spaces of one network, each of which is looked at when it is asked for.

    Its weights are those that are judged, without what no output sees of them.
    """

    def __init__(self, context: Context, moved: Mapping[str, Array] = MappingProxyType({})) -> None:
        """Of a network in which some stored tensors may have other values."""
        judged = context.as_judged()
        self.context, self.weights = context, Weights(judged).at(moved)
        self.holders = holders(self.weights)
        self.spectra = Spectra(judged, self.weights, self.holders)
        self.products = {space.id: product for space, product in context.products}
        self.plain = frozenset(space.id for space in context.spaces)
        self.actions: dict[str, list[Action]] = defaultdict(list)
        for action in context.structure.actions.values():
            if action.leaf >= 0:
                self.actions[action.space].append(action)

    @property
    def spaces(self) -> Iterator[Space]:
        """The spaces whose units are computed, in the order of the program."""
        first = {k: min(map(self._order, self.holders[a[0].leaf]), default=LAST) for k, a in self.actions.items()}
        mine = [space for space in self.context.symmetry.spaces if space.id in self.actions]
        yield from sorted(mine, key=lambda space: first[space.id])

    def turned(self, space: Space) -> Action | None:
        """What mixes the units of a space: all invertible matrices, else all rotations, else nothing."""
        mine = self.actions[space.id]
        linear = next((a for a in mine if general_linear(a)), None)
        return linear or next((a for a in mine if isinstance(a, OrthogonalMap)), None)

    def state(self, space: Space, *, widths: bool) -> State:
        """One space; its width only where it is asked for, since that costs the most."""
        units, turned = space.size * space.copies, self.turned(space)
        live = width = rank = None
        if space.id in self.plain:
            live = units - int(self.context.units(space).dead.sum())
            width = effective_width(self.context, space) if widths else None
        elif turned is not None:
            width = self.spectra.width(turned) if widths else None
            rank = sum(self.ranks(turned)) if general_linear(turned) else None
        return State(space.id, self.actions[space.id][0].leaf, space.name, units, live, width, rank)

    def ranks(self, action: Action) -> tuple[int, ...]:
        """The rank of each copy of a linear space."""
        if action.space in self.products:
            return self.products[action.space].ranks
        return self.spectra.bounds(action)

    def _order(self, block: Block) -> int:
        return self.weights.all[block.weight].order
