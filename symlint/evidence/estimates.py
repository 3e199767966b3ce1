"""How like each other the units of a space are, in every gauge, and what random weights do by chance.

Analyses that only heuristic rules ask for, made once for each model; effective widths, geometry of classifiers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.moments import SUMS, Layout
from symlint.analysis.paths import Forward, Shares, mixed, uncentred
from symlint.analysis.values.lattice import Value
from symlint.evidence.context import Context
from symlint.model.clusters import ABSENT, different
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Pointwise, rearranges
from symlint.symmetry.actions.rotation import PlaneRotation
from symlint.symmetry.motion.action import Stand, stands
from symlint.symmetry.spaces import Generator, Space, Symmetry
from symlint.symmetry.structure import Action, Structure

RARE = 1e-3
"""In how many random spaces one may be found."""
SAMPLE = 1 << 16


def smallest(units: int, weights: float) -> float:
    """The share of fair that the smallest of many random units has once in a thousand spaces.

    A sum of the squares of `weights` Gaussian numbers, relative to its mean, is below t with a probability of at most
    (e t)^(weights / 2).
    """
    return float((RARE / max(units, 1)) ** (2.0 / max(weights, 1.0)) / np.e)


def nearest(pairs: int, distances: np.ndarray, dimensions: float) -> float:
    """The largest distance that is no chance, of sorted distances among random rows in so many dimensions.

    Rows on a sphere are closer than r with a probability of about r^(dimensions - 1). Of the pairs that are told a
    hundredth may be chance (Benjamini and Hochberg, 1995).
    """
    expected = pairs * distances ** max(dimensions - 1.0, 0.0)
    real = np.flatnonzero(expected <= 10 * RARE * np.arange(1, len(distances) + 1))
    return float(distances[real[-1]]) if len(real) else -1.0


def weights(structure: Structure, leaf: int) -> tuple[float, float]:
    """How many weights per unit write a space, at least, and how many read it; infinite where none does."""
    written, read = [np.inf], [np.inf]
    program, factors, of = structure.program, structure.axes.factors, structure.axes.of
    holders = [name for name in structure.axes.holding.get(leaf, ()) if name in program.fixed]
    for step in program.reading(holders):
        if not isinstance(step, Einsum) or step.out in program.fixed:
            continue
        made = step.kept
        moved = {
            x for n, s in zip(step.operands, step.specs, strict=True) if n not in program.fixed for a in s for x in a
        }
        for name, spec in zip(step.operands, step.specs, strict=True):
            if name not in program.fixed:
                continue
            for k, axis in enumerate(spec):
                if leaf in set(factors.leaves(of[name][k])):
                    each = np.prod(program.shapes[name]) / program.shapes[name][k]
                    if made.issuperset(axis) and any(step.sizes[x] > 1 for x in set(axis) - moved):
                        written.append(each * _filled(structure, name))
                    elif made.isdisjoint(axis):
                        read.append(each)
    return float(min(written)), float(min(read))


def _filled(structure: Structure, name: str) -> float:
    """The share of a weight's elements that are not zero."""
    stored = structure.program.weights.get(name)
    if stored is None:
        return 1.0
    flat = structure.program.model.tensors[stored].read().reshape(-1)
    return float(np.mean(np.abs(flat[:: max(1, flat.size // SAMPLE)]) > ABSENT))


def letters(structure: Structure, leaf: int) -> float:
    """Bits per weight of what writes a space: few where rows of a small alphabet collide by pigeonhole."""
    found = [24.0]
    for name in structure.axes.factors.holders.get(leaf, ()):
        stored = structure.program.weights.get(name)
        if stored is None or len(structure.program.shapes[name]) < 2:
            continue
        flat = structure.program.model.tensors[stored].read().reshape(-1)
        flat = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
        flat = flat[np.abs(flat) > ABSENT]
        if 2 * len(different(np.abs(flat))) < len(flat):
            found.append(float(np.log2(max(len(different(flat)), 1))))
    return min(found)


MOST = 1024
"""Wider spaces are left alone."""
APART = 20.0
"""A bias may differ by so many times more than the weights, relative to those of all units."""


@dataclass(frozen=True, slots=True)
class Near:
    """Units that are nearly the same."""

    groups: tuple[tuple[int, ...], ...]
    distance: float
    """The largest relative distance within a group of neighbours."""
    dimensions: float
    """The dimensions in which the units of the space lie."""


class Likeness:
    """The moments of pairs of units of the spaces of a network."""

    def __init__(
        self, symmetry: Symmetry, structure: Structure, values: Mapping[str, Value], spaces: Sequence[Action]
    ) -> None:
        self.symmetry, self.structure = symmetry, structure
        factors = structure.axes.factors
        paired = frozenset(a.leaf for a in spaces if factors.size(a.leaf) <= MOST)
        self.layout = Layout(structure, mixed(structure), paired)
        self.forward = Forward(self.layout, values)
        self.loose = uncentred(self.forward)

    # -- one space ------------------------------------------------------------------------------------------------
    def _held(self, action: Action) -> Iterator[tuple[str, Stand]]:
        """Where the units of a space are, with pairs, in tensors that depend on the input; as they are computed."""
        axes, places = self.structure.axes.of, self.structure.program.places
        held = self.structure.axes.factors.holders.get(action.leaf, ())
        for name in sorted(held, key=lambda name: (places.get(name, -1), name)):
            if name in self.forward.moving and name in self.forward.found and name not in self.loose:
                for stand in stands(self.structure.expansion, axes[name], action.leaf, action.copies):
                    if stand.axis in self.layout.doubled(name) and not stand.others:
                        yield name, stand

    def moments(self, action: Action, *, single: bool = False) -> Iterator[Array]:
        """Per tensor that holds the units, the moments of pairs in each copy: (copies, n, n).

        Where a tensor holds them several times, as gates beside what they let through, they are added up: signs and
        scales may be others there, so what depends on those asks for `single` ones.
        """
        size = self.structure.axes.factors.size(action.leaf)
        copies = prod(self.structure.axes.factors.size(c) for c in action.copies)
        held = list(self._held(action))
        often = Counter(name for name, _ in held)
        for name, stand in held:
            if single and often[name] > 1:
                continue
            square, rank, twice = self.forward.of(name), len(self.layout.shape(name)), self.layout.doubled(name)
            labels = [*range(rank), *(rank + k if k == stand.axis else k for k in twice)]
            pairs = np.einsum(square, labels, [stand.axis, rank + stand.axis])
            lines = np.moveaxis(stand.grid, stand.place, -1).reshape(-1, size)
            if single and len(lines) > copies:
                continue
            if len(lines) % copies or (copies > 1 and not _leading(stand, len(lines) // copies)):
                continue
            blocks = np.stack([pairs[np.ix_(line, line)] for line in lines])
            made = blocks.reshape(copies, -1, size, size).sum(axis=1)
            if np.isfinite(made).all() and made.any():
                yield made

    def near(self, action: Action, told: NDArray[np.bool_], tolerance: float) -> Near | None:
        """Groups of units nearer to each other than chance and a relative tolerance allow; without those told of."""
        size = self.structure.axes.factors.size(action.leaf)
        fan, _ = weights(self.structure, action.leaf)
        if fan * letters(self.structure, action.leaf) <= 2 * np.log2(max(len(told), 2)) + 20 or not np.isfinite(fan):
            return None
        kinds = {g.kind for g in self._generators.get(action.space, ())}
        free, odd = "rescaling" in kinds, "sign" in kinds
        distances = cosines = None
        for moments in self.moments(action):
            found, cosine = _distances(moments, free=free, odd=odd)
            distances = found if distances is None else np.maximum(distances, found)
            cosines = cosine if cosines is None else np.minimum(np.abs(cosines), np.abs(cosine))
        if distances is None or cosines is None:
            return None
        for apart in self._biases(action, free=free, odd=odd):
            distances = np.maximum(distances, apart) if distances.shape == apart.shape else distances
        distances[told.reshape(-1, size)[:, :, None] | told.reshape(-1, size)[:, None, :]] = np.inf
        return _groups(distances, cosines, fan, tolerance)

    def rank(self, action: Action) -> tuple[int, float, float] | None:
        """The depth at which a space is first written, its effective rank, and that as a share of what can be."""
        fan, _ = weights(self.structure, action.leaf)
        moments = next(self.moments(action, single=True), None)
        if moments is None or len(moments) > 1 or not 0 < fan < np.inf:
            return None
        alive = np.flatnonzero(np.diagonal(moments[0]) > 0)
        if len(alive) < 2:
            return None
        _, cosines = _distances(moments[:, alive][:, :, alive], free=True, odd=True)
        values = np.maximum(np.linalg.eigvalsh(cosines[0]), 0.0)
        part = values / values.sum()
        rank = float(np.exp(-np.sum(part * np.log(np.where(part > 0, part, 1.0)))))
        program, moving = self.structure.program, self.forward.moving
        held = self.structure.axes.factors.holders[action.leaf]
        places = {program.places[name] for name in held if name in program.places}
        depth = min(k for k in places if not moving.isdisjoint(program.steps[k].results))
        return depth, rank, rank / min(fan, len(cosines[0]))

    def _biases(self, action: Action, *, free: bool, odd: bool) -> Iterator[Array]:
        """Per vector that is added to the units or bends them, how far apart two of them are; 1 is too far."""
        size = self.structure.axes.factors.size(action.leaf)
        moved = self._shifted(action)
        held = set(self.structure.axes.holding.get(action.leaf, ()))
        for step in self.structure.program.touching(held):
            if not isinstance(step, Pointwise) or step.out not in held:
                continue
            if step.out not in self.forward.moving or step.law.kind == "product":
                continue
            for name in step.operands:
                number = self.forward.number(name)
                if number is None or number.size < 2 or (name in moved and step.out not in self.loose):
                    continue
                for stand in stands(self.structure.expansion, self.structure.axes.of[step.out], action.leaf, ()):
                    shape = self.structure.program.shapes[step.out]
                    wide = number.reshape((1,) * (len(shape) - number.ndim) + number.shape)
                    if wide.shape[stand.axis] != shape[stand.axis] or stand.grid.size != size or action.copies:
                        continue
                    line = np.moveaxis(wide, stand.axis, 0)[stand.grid.reshape(-1)].reshape(size, -1).astype(np.float64)
                    if step.function in SUMS and free and self.layout.shape(step.out)[stand.axis] > 1:
                        squares = self.forward.squares(step.out)
                        own = np.moveaxis(squares, stand.axis, 0)[stand.grid.reshape(-1)].reshape(size, -1).mean(axis=1)
                        line = line / np.sqrt(np.where(own > 0, own, 1.0))[:, None]
                    line = np.abs(line) if odd else line
                    scale = np.sqrt(np.mean(line**2)) or 1.0
                    yield np.abs(line[:, None] - line[None]).max(axis=2)[None] / (APART * scale)

    def _shifted(self, action: Action) -> Collection[str]:
        """Weights that a translation of these units moves: what they are is no matter."""
        mine = [g for g in self._generators.get(action.space, ()) if g.kind == "translation"]
        return {name for g in mine for stored in g.tensors for name in self._uses.get(stored, ())}

    @cached_property
    def _generators(self) -> dict[str, list[Generator]]:
        """Space -> the generators on it."""
        found: dict[str, list[Generator]] = {}
        for generator in self.symmetry.generators:
            found.setdefault(generator.space, []).append(generator)
        return found

    @cached_property
    def _uses(self) -> dict[str, list[str]]:
        """Stored tensor -> the weights of the program that are it."""
        found: dict[str, list[str]] = {}
        for name, stored in self.structure.program.weights.items():
            found.setdefault(stored, []).append(name)
        return found


def _leading(stand: Stand, each: int) -> bool:
    """Whether the copies are the slowest index of the lines of a stand, copy by copy."""
    index = np.zeros(tuple(n for k, n in enumerate(stand.grid.shape) if k != stand.place), np.int64)
    for copy in stand.copies:
        index = index * (int(copy.max()) + 1) + np.squeeze(
            np.broadcast_to(copy, stand.grid.shape).take([0], axis=stand.place), axis=stand.place
        )
    return bool(np.array_equal(index.reshape(-1), np.arange(index.size) // each))


def _distances(moments: Array, *, free: bool, odd: bool) -> tuple[Array, Array]:
    """How far apart two units are relative to their size, up to what the activation allows, and their cosines."""
    size = np.sqrt(np.maximum(np.einsum("cii->ci", moments), 0.0))
    safe = np.where(size > 0, size, 1.0)
    cosine = np.clip(moments / safe[:, :, None] / safe[:, None, :], -1.0, 1.0)
    toward = np.abs(cosine) if odd else cosine
    if free:
        distance = np.sqrt(np.maximum(2.0 - 2.0 * toward, 0.0))
    else:
        ratio = size[:, :, None] / safe[:, None, :]
        distance = np.sqrt(np.maximum(ratio + 1.0 / np.where(ratio > 0, ratio, 1.0) - 2.0 * toward, 0.0))
    lost = size <= 0
    distance[lost[:, :, None] | lost[:, None, :]] = np.inf
    return distance, cosine


def spread(cosines: Array) -> float:
    """The dimensions in which rows with these cosines lie: the participation ratio of their spectrum."""
    return float(len(cosines) ** 2 / max(float(np.sum(cosines**2)), 1e-300))


def _groups(distances: Array, cosines: Array, fan: float, tolerance: float) -> Near | None:
    copies, size, _ = distances.shape
    upper = np.triu_indices(size, 1)
    groups: list[tuple[int, ...]] = []
    worst, dimensions = 0.0, fan
    for c in range(copies):
        close = distances[c][upper]
        order = np.argsort(close)[: int(np.count_nonzero(close <= tolerance))]
        if not len(order):
            continue
        chosen = [u for u in range(size) if not np.any(distances[c][u, :u] <= tolerance)]
        own = min(fan, spread(cosines[c][np.ix_(chosen, chosen)])) if len(chosen) > 1 else fan
        limit = nearest(len(close), close[order], own)
        dimensions = min(dimensions, own)
        label = np.arange(size)
        for i, j in zip(upper[0][order], upper[1][order], strict=True):
            if distances[c][i, j] <= limit:
                label[label == label[j]] = label[i]
                worst = max(worst, float(distances[c][i, j]))
        for x in np.unique(label):
            members = np.flatnonzero(label == x)
            if len(members) > 1:
                groups.append(tuple(int(u) + c * size for u in members))
    return Near(tuple(groups), worst, dimensions) if groups else None


@dataclass(frozen=True)
class Estimates:
    """Shares of paths and likeness of units."""

    context: Context

    @cached_property
    def shares(self) -> Shares:
        """How much of what gets from the inputs to the outputs passes through each unit."""
        structure = self.context.canonical
        return Shares(Forward(Layout(structure, mixed(structure)), self.context.values))

    @cached_property
    def likeness(self) -> Likeness:
        """How like each other the units of every space are."""
        context = self.context
        return Likeness(context.symmetry, context.canonical, context.values, [self.action(s) for s in context.spaces])

    def action(self, space: Space) -> Action:
        """The permutation of the units of a space."""
        return self.context.plain(self.context.structure.permutation(space.id))

    def share(self, space: Space) -> NDArray[np.float64] | None:
        """The share of each unit in all paths, relative to an equal one; None where paths do not tell."""
        action = self.action(space)
        if action.copies != self.context.structure.actions[action.id].copies:
            return None
        found = self.shares.of(action)
        return found if found is not None and len(found) == space.size * space.copies else None

    def loose(self, space: Space) -> bool:
        """Whether the shares of units are not the same in every gauge.

        That is where they are turned in planes, or what they are made of is, and where all may be shifted alike by
        whole rows, as experts are before a softmax.
        """
        structure = self.context.structure
        mine, factors, of = structure.permutation(space.id).leaf, structure.axes.factors, structure.axes.of
        planes = {a.leaf for a in structure.rotations if isinstance(a, PlaneRotation)}
        shifted = [of[shift.translation.weight] for shift in structure.shifts if shift.space == space.id]
        if any(sum(factors.size(f) > 1 for f in axes) > 1 for axes in shifted):
            return True
        held = [set(factors.leaves(f)) for name in structure.program.weights for f in of[name]] if planes else []
        return any(mine in leaves and planes & leaves for leaves in held)

    def told(self, space: Space) -> NDArray[np.bool_]:
        """The units of which exact rules speak."""
        units = self.context.units(space)
        told = units.dead | units.constant
        for group in units.groups:
            told[list(group)] = True
        return told


def estimates(context: Context) -> Estimates:
    """Those of one model; they are kept with its other analyses."""
    found: Estimates = vars(context).setdefault("_estimates", Estimates(context))
    return found


def participation(energy: Array) -> float:
    """How many equal parts would be as evenly spread: the exponential of the entropy of the shares.

    Source: Roy and Vetterli, The Effective Rank (EUSIPCO 2007).
    """
    total = float(np.sum(energy))
    if not total > 0 or not np.isfinite(total):
        return 0.0
    shares = energy[energy > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def effective_width(context: Context, space: Space) -> float | None:
    """Of units that may be permuted, by their shares of all paths, over all copies; None where paths do not tell."""
    found = estimates(context)
    share = None if found.loose(space) else found.share(space)
    return None if share is None else participation(share)


FEWEST = 4
"""With three classes or fewer any rows are near to a simplex once they are centred."""
WIDEST = 1024
AFTER = frozenset({"Add", "Identity", "Sigmoid", "Cast", "Mul", "Div"})


@dataclass(frozen=True, slots=True)
class Classifier:
    """The last linear map before an output; a difference of 0 is a simplex."""

    name: str
    classes: int
    tensors: tuple[str, ...]
    angle: float
    """Root mean square of what the cosines differ by from those of a simplex."""
    size: float
    """Spread of the sizes, relative to their mean."""
    chance_angle: float
    chance_size: float


def classifiers(forward: Forward) -> Iterator[Classifier]:
    """The classifiers of a network."""
    last = set(forward.program.finals)
    for step in reversed(forward.program.steps):
        if last.isdisjoint(step.results) or not forward.moving.issuperset(step.results):
            continue
        if step.function in AFTER or step.known.shares or rearranges(step):
            last.update(step.operands)
        elif isinstance(step, Einsum):
            found = _look(forward, step)
            if found is not None:
                yield found


def _look(forward: Forward, step: Einsum) -> Classifier | None:
    """The geometry of one linear map, with the features as large as paths make them."""
    fixed = [k for k, name in enumerate(step.operands) if forward.number(name) is not None]
    moving = [k for k in range(len(step.operands)) if k not in fixed]
    if len(fixed) != 1 or len(moving) != 1:
        return None
    made = step.kept
    held = {x for axis in step.specs[moving[0]] for x in axis}
    rows = [k for k, a in enumerate(step.result) if a and not held.intersection(a)]
    if len(rows) != 1 or not FEWEST <= forward.program.shapes[step.out][rows[0]] <= WIDEST or made == held:
        return None
    axis = forward.layout.structure.axes.of[step.out][rows[0]]
    leaves = set(forward.layout.structure.axes.factors.leaves(axis))
    layout = replace(forward.layout, mixed=forward.layout.mixed | leaves)
    if rows[0] not in layout.doubled(step.out):
        return None
    count, rank = forward.program.shapes[step.out][rows[0]], len(layout.shape(step.out))
    with np.errstate(invalid="ignore"):  # what is not finite ends below
        gram = forward.contracted(step, layout=layout)
    gram = np.einsum(gram, [*range(rank), *(rank + k for k in layout.doubled(step.out))], [rows[0], rank + rows[0]])
    if not np.isfinite(gram).all():
        return None
    values = np.maximum(np.linalg.eigvalsh(gram), 0.0)
    gram = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
    size = np.sqrt(np.maximum(np.diag(gram), 0.0))
    if not size.all() or np.count_nonzero(values > 1e-9 * values[-1]) < count - 1:
        return None
    apart = gram / size[:, None] / size[None] + 1.0 / (count - 1)
    angle = np.sqrt(np.mean(apart[~np.eye(count, dtype=bool)] ** 2))
    spread = _dimensions(forward, step, moving[0])
    weight = forward.program.weights.get(step.operands[fixed[0]], step.operands[fixed[0]])
    return Classifier(
        step.node.name or step.out,
        count,
        (weight,),
        float(angle),
        float(size.std() / size.mean()),
        float(spread**-0.5),
        float((2 * spread) ** -0.5),
    )


def _dimensions(forward: Forward, step: Einsum, k: int) -> float:
    """In how many dimensions the features lie, by the participation ratio of their squares."""
    name = step.operands[k]
    squares, shape = np.abs(forward.squares(name)), forward.layout.shape(name)
    summed = [j for j, axis in enumerate(step.specs[k]) if axis and not step.kept.issuperset(axis)]
    if not all(shape[j] > 1 for j in summed) or not squares.sum():
        return float(np.prod([forward.program.shapes[name][j] for j in summed]))
    return float(squares.sum() ** 2 / np.sum(squares**2) / np.prod([n for j, n in enumerate(shape) if j not in summed]))
