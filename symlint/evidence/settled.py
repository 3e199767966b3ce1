"""Settling: weights without what no output sees of them, so that a zero in the function is a zero in the file.

A translation may add to a weight whatever a normalisation takes away again, and to logits whatever a softmax does. What
is settled is the smallest weight; where logits may be shifted alike, the one in which entries that go along with each
other stay at zero. A settled weight is what is stored and a few changes, each the same along some axes or a product of
such: it is worked out in blocks, and whole for whoever asks for that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial, reduce
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.values.lattice import Names, Value, alike, distinct
from symlint.analysis.values.weights import Blockwise, Mask, absent
from symlint.model.clusters import ABSENT, ROUNDING, Cut, Off, Strip, precision
from symlint.model.graph import BLOCK, Array, Shape, Tensor
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers, Unvalued
from symlint.symmetry.actions.translation import Shift, UnseenChange
from symlint.symmetry.motion.membership import members
from symlint.symmetry.structure import Structure
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import factors, written

SKETCHES = 2
"""Random sums that entries must agree in before they are compared."""
WITNESSES = 16
"""Elements of each entry that must agree before all of them are compared: in half precision sums tell little apart."""
ROUNDED = 1e-12
"""What float64 may lose of such a sum."""
FAR = 16
"""How many entries of another kind may lie between two that are alike, when they are sorted by such a sum."""
SMALL = 1 << 10
"""Elements of a weight that is kept once it is worked out: biases, gains, and what graphs of many nodes are made of."""


@dataclass(frozen=True, eq=False)
class Change:
    """What is added to a weight, as arrays whose product it is: with size 1 along axes on which they do not depend."""

    parts: tuple[Array, ...]
    rounding: float
    """Half a unit in the last place of the weight, relative."""

    def at(self, cut: Cut, room: Array | None = None) -> Array:
        """The part of the change that meets a block of the weight; in the room of a block, where it is as large."""
        *first, last = [_part(part, cut) for part in self.parts]
        if not first:
            return last
        product = reduce(np.multiply, first)
        fits = room is not None and np.broadcast_shapes(product.shape, last.shape) == room.shape
        return np.asarray(np.multiply(product, last, out=room if fits else None))

    def floor(self, cut: Cut, places: Sequence[Array]) -> Array:
        """What rounding may leave of a zero in some places of a block: the change is as large as along some axis."""
        parts = [_part(line, cut) for line in self._lines]
        lines = [part[tuple(0 if n == 1 else at for n, at in zip(part.shape, places, strict=True))] for part in parts]
        floor = ROUNDING * self.rounding * reduce(np.minimum, lines, np.array(np.inf))
        return np.where(np.isfinite(floor), floor, -1.0)

    @cached_property
    def most(self) -> float:
        """The largest element."""
        return float(np.prod([np.abs(part).max(initial=0) for part in self.parts]))

    @cached_property
    def highest(self) -> float:
        """What no floor is above."""
        most = min((float(line.max(initial=0)) for line in self._lines), default=np.inf)
        return ROUNDING * self.rounding * most * (1 + 1e-9)

    @cached_property
    def _lines(self) -> list[Array]:
        """For every axis how large the change is along it."""
        sizes = [np.abs(part) for part in self.parts]
        if not _apart(sizes):
            sizes = [reduce(np.multiply, sizes)]
        axes = range(sizes[0].ndim)
        return [reduce(np.multiply, [size.max(axis=k, keepdims=True) for size in sizes]) for k in axes]


class Settled(Blockwise):
    """A stored tensor with changes, read as float64; calling it reads it whole."""

    def __init__(self, tensor: Tensor, changes: tuple[Change, ...] = ()) -> None:
        self.tensor, self.changes = tensor, changes
        self._zeros: list[tuple[Strip, Array | None]] | None = None
        self._whole: Array | None = None
        self._far = False
        """Whether no change brought any element near nothing: once a reading has seen that, no other one looks."""

    @property
    def shape(self) -> Shape:
        """Of the tensor."""
        return self.tensor.shape

    def __call__(self) -> Array:
        """The whole of it, read-only; made anew each time unless it is small."""
        if self._whole is not None:
            return self._whole
        values, made, spare = self.tensor.read(), np.empty(self.shape), np.empty(0)
        near, touched, places = False, False, list(cuts(self.shape, BLOCK))
        for cut in places:
            spare = _roomy(spare, made[cut].size)
            _, mine, reached = self._block(values, cut, made[cut], spare)
            near, touched = near | mine, touched | reached
        self._far |= not touched
        if not near:
            self._zeros = [(cut, None) for cut in places]
        made.flags.writeable = False
        if made.size <= SMALL:
            self._whole = made
        return made

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[Strip, Array]]:
        """Blocks of about some elements in the order in which they are stored, each with its place.

        All of them are made in one place: a block is overwritten by the next. The first reading tells where zeros are.
        """
        zeros: list[tuple[Strip, Array | None]] = []
        told = self._zeros is not None
        for cut, block, near in self.reading(size):
            zero = np.abs(block) < ABSENT if near and not told else None
            zeros.append((cut, np.packbits(zero) if zero is not None and zero.any() else None))
            yield cut, block
        if not told:
            self._zeros = zeros

    def reading(self, size: int = BLOCK) -> Iterator[tuple[Strip, Array, bool]]:
        """The blocks, and whether any element of theirs may be nothing."""
        values, room, spare, touched = self.tensor.read(), np.empty(0), np.empty(0), False
        for cut in cuts(self.shape, size):
            part = np.asarray(values[cut])
            room, spare = _roomy(room, part.size), _roomy(spare, part.size)
            block, near, reached = self._block(values, cut, room[: part.size].reshape(part.shape), spare)
            touched |= reached
            yield cut, block, near
        self._far |= not touched

    def at(self, cut: Cut, values: Array | None = None) -> Array:
        """One block; of the stored `values`, where the caller has read them."""
        return self._block(self.tensor.read() if values is None else values, cut)[0]

    @property
    def off(self) -> Off | None:
        """How far the numbers may be off, since they are differences of larger ones."""
        most = sum(change.most * ROUNDING * change.rounding for change in self.changes)
        return Off(most, self._noise) if most else None

    def _noise(self) -> Array:
        whole = (slice(None),) * len(self.shape)
        parts = [ROUNDING * change.rounding * np.abs(change.at(whole)) for change in self.changes]
        return np.broadcast_to(reduce(np.add, parts), self.shape)

    @property
    def full(self) -> bool:
        """Whether no element is nothing."""
        return all(zero is None for _, zero in self.zeros)

    @property
    def present(self) -> Mask:
        """Which elements are not nothing."""
        found = np.ones(self.shape, bool)
        for cut, zero in self.zeros:
            if zero is not None:
                part = found[cut]
                found[cut] = np.unpackbits(zero, count=part.size).reshape(part.shape) == 0
        return found

    @property
    def zeros(self) -> list[tuple[Strip, Array | None]]:
        """Of every block whether its elements are nothing, eight to a byte; None where none is. Told by any reading."""
        if self._zeros is None:
            deque(self.blocks(), 0)
        assert self._zeros is not None
        return self._zeros

    def _block(
        self, values: Array, cut: Cut, room: Array | None = None, spare: Array | None = None
    ) -> tuple[Array, bool, bool]:
        """One block, whether any element of it may be nothing, and whether any ever came near that on the way.

        `spare` has room for as many elements.
        """
        part = np.asarray(values[cut])
        block, near, reached = np.empty(part.shape) if room is None else room, True, False
        size: Array = np.empty(part.shape) if spare is None else spare[: part.size].reshape(part.shape)
        block[...] = part  # to widen while adding takes longer
        for change in self.changes:
            np.add(block, change.at(cut, size), out=block)
            if self._far:
                near = False
                continue
            np.abs(block, out=size)
            near = not float(size.min(initial=np.inf)) > change.highest + ABSENT
            if near:
                reached = True
                small = np.flatnonzero(size <= change.highest)
                places = np.unravel_index(small, size.shape or (1,))[: size.ndim]
                gone = size[places] <= change.floor(cut, places)
                block[places] = np.where(gone, 0.0, block[places])
        return block, near, reached


def canonical(
    structure: Structure,
    silent: Mapping[str, Mask],
    logits: Collection[int],
    names: Collection[str] | None = None,
    kinds: Mapping[int, Array] | None = None,
) -> Structure:
    """The same network with settled weights: in this gauge a flaw of the function is one of the weights.

    Args:
        structure: of the network.
        silent: elements of weights of the program that count as zero.
        logits: leaves of outputs, see `settled`.
        names: the weights of the program that are settled; None for all.
        kinds: see `settled`.
    """
    program = structure.program
    blank = {
        program.weights[name]: partial(_blanked, program.model.tensors[program.weights[name]], mask)
        for name, mask in silent.items()
        if name not in program.detached
    }
    start = reread(structure, blank)
    return reread(start, settled(start, program.weights.keys() if names is None else names, logits, kinds))


def reread(structure: Structure, values: Mapping[str, Callable[[], Array]]) -> Structure:
    """The same network with other values of some stored tensors."""
    program = structure.program
    tensors = {name: replace(program.model.tensors[name], read=read) for name, read in values.items()}
    model = replace(program.model, tensors={**program.model.tensors, **tensors})
    return replace(structure, program=replace(program, model=model))


def _blanked(tensor: Tensor, silent: Mask) -> Array:
    values = tensor.read()
    return np.where(silent, values.dtype.type(0), values)


def settled(
    structure: Structure, names: Collection[str], logits: Collection[int], kinds: Mapping[int, Array] | None = None
) -> dict[str, Settled]:
    """Stored tensor -> its values, for those of the weights `names` that a translation moves.

    Args:
        structure: of the network.
        names: weights of the program.
        logits: leaves of outputs: a shift along them is chosen so that rows that are alike vanish.
        kinds: leaf -> how many times each unit is of each kind, which changes that few readers see are to follow.
    """
    weights = _Settling(structure)
    for action in structure.actions.values():
        moves: list[tuple[str, Sequence[Array]]] = []
        # What follows from a constant without a value stays as it is.
        with np.errstate(all="ignore"), suppress(Unvalued):
            if isinstance(action, Shift) and not action.translation.bent and action.translation.weight in names:
                numbers = weights.numbers
                size = weights.held(action.translation, numbers, logits)
                moves += list(factors(action.translation, numbers, -size)) if size.any() else ()
            elif isinstance(action, UnseenChange) and action.weight in names:
                rounding = ROUNDING * precision(weights.now(action.weight).tensor.dtype)
                own = kinds.get(action.leaf) if kinds and action.passing else None
                found = action.changes(structure, -weights.get(action.weight), weights.get, rounding, own)
                moves += [(name, (part,)) for name, part in found]
        # Weights that are huge or no numbers are left as they are: nothing finite takes such a change back.
        if all(np.isfinite(part).all() for _, parts in moves for part in parts):
            for moved, parts in moves:
                weights.add(moved, parts)
    return weights.moved


class _Settling:
    """The weights of a network on their way."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.tensors, self.stored = structure.program.model.tensors, structure.program.weights
        self.moved: dict[str, Settled] = {}

    def now(self, name: str) -> Settled:
        """The present state of a weight of the program."""
        stored = self.stored[name]
        return self.moved.get(stored) or Settled(self.tensors[stored])

    def get(self, name: str) -> Array:
        """Its values, written out."""
        tensor = self.tensors[self.stored[name]]
        return self.now(name)() if tensor.floating else tensor.read()

    @property
    def numbers(self) -> Numbers:
        """The constant tensors that the present weights make."""
        return Numbers(self.structure.program, self.get)

    def add(self, name: str, parts: Sequence[Array]) -> None:
        """Change a weight; what is left of an element by the rounding of the change is zero."""
        now, rank = self.now(name), len(self.structure.program.shapes[name])
        change = Change(tuple(_ranked(part, rank) for part in parts), precision(now.tensor.dtype))
        self.moved[self.stored[name]] = Settled(now.tensor, (*now.changes, change))

    def held(self, translation: Translation, numbers: Numbers, logits: Collection[int]) -> Array:
        """How much of the translation a weight holds: one number per class."""
        weight, count = self.now(translation.weight), translation.dimension
        rank = len(weight.shape)
        _, parts = next(factors(translation, numbers, np.ones(translation.shape)))
        units = [_ranked(part, rank) for part in parts]
        cells = _ranked(written(np.arange(1, count + 1).reshape(translation.shape), translation.wave), rank)
        chosen = self._chosen(translation, weight, logits)
        along = dict.fromkeys(range(rank), slice(None)) | {k: slice(n, n + 1) for k, n in chosen.items()}
        where = tuple(along[k] for k in range(rank))
        shape = tuple(1 if k in chosen else n for k, n in enumerate(weight.shape))
        units, cells = [_part(unit, where) for unit in units], _part(cells, where)
        if not _apart(units):
            units = [reduce(np.multiply, units)]
        # Along axes on which the classes do not depend all elements count together.
        same = tuple(k for k in range(rank) if cells.shape[k] == 1)
        inner = [u for u in units if any(u.shape[k] > 1 for k in same)]
        outer = reduce(np.multiply, [u for u in units if not any(u.shape[k] > 1 for k in same)], np.ones((1,) * rank))
        held = np.zeros([1 if k in same else n for k, n in enumerate(shape)])
        for cut, block, _ in weight.reading() if not chosen else [((slice(None),) * rank, weight.at(where), True)]:
            made = reduce(np.multiply, [block, *(_part(u, cut) for u in inner)])
            held[tuple(slice(None) if k in same else c for k, c in enumerate(cut))] += made.sum(
                axis=same, keepdims=True
            )
        square = np.ones((1,) * rank)
        for u in inner:
            square = square * (u * u).sum(axis=same, keepdims=True)
        square = square * prod(shape[k] for k in same if all(u.shape[k] == 1 for u in inner))
        flat = np.broadcast_to(cells, held.shape).astype(np.int64).reshape(-1)
        sums = np.bincount(flat, np.broadcast_to(held * outer, held.shape).reshape(-1), count + 1)[1:]
        squares = np.bincount(flat, np.broadcast_to(square * outer**2, held.shape).reshape(-1), count + 1)[1:]
        return np.asarray(sums / np.where(squares > 0, squares, 1.0)).reshape(translation.shape)

    def _chosen(self, translation: Translation, weight: Settled, logits: Collection[int]) -> Mapping[int, int]:
        """Axis -> the entry that is to be zero, where entries may be shifted alike."""
        factors, of = self.structure.axes.factors, self.structure.axes.of[translation.weight]
        found: dict[int, int] = {}
        for axis, classes in enumerate(translation.wave.classes if translation.nowhere is None else ()):
            shared = len(classes) > 1 and not classes.any()
            if shared and not set(logits).isdisjoint(factors.leaves(of[axis])):
                chosen = _repeated(weight, axis, found, ROUNDING * precision(weight.tensor.dtype))
                if chosen is not None:
                    found[axis] = chosen
        return found


def cuts(shape: Shape, size: int) -> Iterator[Strip]:
    """The places of blocks of about some elements, in the order in which they are stored."""
    if shape and 0 < prod(shape) <= size:
        yield (slice(0, shape[0]), *(slice(None) for _ in shape[1:]))
        return
    rest = [prod(shape[k + 1 :]) for k in range(len(shape))]
    axis = next((k for k, n in enumerate(rest) if n <= size), len(shape))
    if axis == len(shape):
        yield ()
        return
    step, behind = max(1, size // max(rest[axis], 1)), (slice(None),) * (len(shape) - axis - 1)
    for front in np.ndindex(*shape[:axis]):
        for start in range(0, shape[axis], step):
            yield (*(slice(k, k + 1) for k in front), slice(start, start + step), *behind)


def _roomy(room: Array, size: int) -> Array:
    """Room for so many numbers: that which there is, where it suffices."""
    return room if room.size >= size else np.empty(size)


def _ranked(part: Array, rank: int) -> Array:
    return np.asarray(part).reshape((1,) * (rank - np.ndim(part)) + np.shape(part))


def _part(part: Array, cut: Cut) -> Array:
    """What of an array meets a block of a larger one against which it is broadcast."""
    return part[tuple(slice(None) if n == 1 else place for n, place in zip(part.shape, cut, strict=True))]


def _apart(parts: Sequence[Array]) -> bool:
    """Whether no two arrays depend on one axis."""
    return all(sum(n > 1 for n in sizes) < 2 for sizes in zip(*(part.shape for part in parts), strict=True))


class _Entries:
    """The entries of a weight along an axis, elsewhere in the `chosen` place."""

    def __init__(self, weight: Settled, axis: int, chosen: Mapping[int, int]) -> None:
        self.weight, self.axis, self.chosen = weight, axis, chosen
        self.values = weight.tensor.read()
        self.shape = tuple(1 if k in chosen else n for k, n in enumerate(weight.shape))
        self.where = tuple(
            slice(chosen[k], chosen[k] + 1) if k in chosen else slice(None) for k in range(len(self.shape))
        )
        self.rest = [n for k, n in enumerate(self.shape) if k != axis]
        self.rng = np.random.default_rng(20231129)
        self.random = self.rng.uniform(1.0, 2.0, (SKETCHES, prod(self.rest)))

    def sketched(self) -> tuple[Array, Array]:
        """Random sums of every entry, a row each, and its largest element."""
        shape, axis = self.shape, self.axis
        spread = np.expand_dims(self.random.reshape(SKETCHES, *self.rest), axis + 1)
        sketch, size = np.zeros((SKETCHES, shape[axis])), np.zeros(shape[axis])
        for cut, block in self._blocks():
            rows = np.moveaxis(block, axis, 0).reshape(block.shape[axis], -1)
            parts = np.stack([_part(each, cut).reshape(-1) for each in spread])
            sketch[:, cut[axis]] += parts @ rows.T
            size[cut[axis]] = np.maximum(size[cut[axis]], np.abs(rows).max(axis=1, initial=0))
        return sketch, size

    def _blocks(self) -> Iterator[tuple[Strip, Array]]:
        if self.chosen:
            yield (slice(None),) * len(self.shape), self.weight.at(self.where)
        else:
            yield from ((cut, block) for cut, block, _ in self.weight.reading())

    def witnesses(self) -> Iterator[Array]:
        """What all entries hold at some random places."""
        for place in self.rng.integers(0, prod(self.rest), WITNESSES):
            there = iter(np.unravel_index(place, self.rest))
            index = [0 if k == self.axis else int(next(there)) for k in range(len(self.shape))]
            index = [self.chosen.get(k, n) for k, n in enumerate(index)]
            cut = [slice(None) if k == self.axis else slice(n, n + 1) for k, n in enumerate(index)]
            yield self._elements(cut).reshape(-1)

    def at(self, index: Array) -> Array:
        """Some of the entries in full."""
        cut = [index if k == self.axis else place for k, place in enumerate(self.where)]
        return np.moveaxis(self._elements(cut), self.axis, 0).reshape(len(index), -1)

    def _elements(self, place: Sequence[Array | slice]) -> Array:
        return self.weight.at(tuple(place), self.values)


def _repeated(weight: Settled, axis: int, chosen: Mapping[int, int], tolerance: float) -> int | None:
    """An entry along an axis that agrees with most others, elsewhere in the `chosen` place; None where all differ."""
    entries = _Entries(weight, axis, chosen)
    sketch, size = entries.sketched()
    group = _grouped(entries, sketch, size, tolerance)
    counts = np.bincount(group)
    most = counts.max(initial=0)
    if most < 2:
        return None
    ordered = group[np.argsort(sketch[0], kind="stable")]
    largest = ordered[np.flatnonzero(counts[ordered] == most)[0]]
    return int(np.flatnonzero(group == largest)[0])


def _grouped(entries: _Entries, sketch: Array, size: Array, tolerance: float) -> Array:
    """Entry -> the first of those that agree with it: looked for where sketches, and then witnesses, are near."""
    seen = list(entries.witnesses())
    first = np.argsort(sketch[0], kind="stable")
    group = np.arange(len(first))
    window = (tolerance + ROUNDED) * entries.random.sum(axis=1)
    step = max(1, BLOCK // max(entries.random.shape[1], 1))
    for apart in range(1, FAR):
        left, right = first[:-apart], first[apart:]
        near = np.abs(sketch[0, left] - sketch[0, right]) <= window[0] * size[left]
        if not near.any():
            break
        pairs = np.flatnonzero(near)
        for line, slack in [*zip(sketch[1:], window[1:], strict=True), *((line, tolerance) for line in seen)]:
            apart_by = np.abs(line[left[pairs]] - line[right[pairs]])
            pairs = pairs[apart_by <= slack * size[left[pairs]]]
        near[:] = False
        for k in range(0, len(pairs), step):
            some = pairs[k : k + step]
            off = np.abs(entries.at(left[some]) - entries.at(right[some])).max(axis=1, initial=0)
            near[some] = off <= tolerance * size[left[some]]
        for a, b in zip(left[near], right[near], strict=True):
            group[b] = group[a]
        # A group goes on as its first entry.
        first = first[group[first] == first]
    while (group[group] != group).any():
        group = group[group]
    return group


# Kinds of units: what is added to a change that few readers see tells how it may be spread over the units.
#
# Of a weight whose readers have fewer rows than there are units only what they make of it counts, so it can be given to
# some units alone: none of it to those in which all else is constant, and as much of it as of all else to those that
# are multiples of each other. Then a flaw of the units is one of the weight, and whoever takes units away may do so.

Column = tuple[NDArray[np.int64], Array]
"""Bases and scales, a row per unit."""


def kinds(structure: Structure, values: Mapping[str, Value], names: Names) -> dict[int, Array]:
    """Leaf -> how many times each unit is of each kind, where some are constant or of one kind."""
    found: dict[int, Array] = {}
    changes: dict[int, list[UnseenChange]] = {}
    for action in structure.actions.values():
        if isinstance(action, UnseenChange) and action.passing:
            changes.setdefault(action.leaf, []).append(action)
    for leaf, mine in changes.items():
        columns = list(_columns(structure, mine, values, names))
        if columns:
            labels, scales = (np.concatenate(parts, axis=1) for parts in zip(*columns, strict=True))
            lead = np.take_along_axis(scales, (scales != 0).argmax(axis=1)[:, None], axis=1)
            there = np.flatnonzero(lead)
            share = alike(scales[there] / lead[there])
            kind = distinct(*labels[there].T, *np.broadcast_to(share, labels[there].shape).T)
            if len(there) < len(lead) or kind.max(initial=-1) + 1 < len(kind):
                found[leaf] = np.zeros((len(lead), kind.max(initial=-1) + 1))
                found[leaf][there, kind] = lead[there, 0]
    return found


def _columns(
    structure: Structure, mine: list[UnseenChange], values: Mapping[str, Value], names: Names
) -> Iterator[Column]:
    """What is added to changes and has none, unit by unit; nought where it depends on no input."""
    passing = frozenset[str]().union(*(action.passing for action in mine))
    for name in sorted(frozenset[str]().union(*(action.added for action in mine)) - passing):
        value = values[name]
        places = members(structure, mine[0], structure.axes.of[name], value.shape)
        if value.bases is None or places is None:
            continue
        labels = value.numbers.reshape(-1)[places]
        scales = np.asarray(value.scale, np.float64).reshape(-1)[places]
        gone = absent(scales) | names.still(labels) | (labels == 0)
        yield np.where(gone, 0, labels), np.where(gone, 0.0, scales)
