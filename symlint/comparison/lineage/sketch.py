"""Sketches: what of a network is the same in every gauge, small enough to be kept beside it.

Every unit of a space is told by a few random projections of what leads to it from what inputs pin, and of what leads
from it to what outputs pin, through the weights alone and in the canonical gauge: permutations change the order of the
units, rotations turn all projections alike, nothing else is left. Units within heads, which have a gauge each, are left
out, and of rotated spaces nothing is kept, though paths lead through them.

Storage of sketches: one npz archive of numbers and a text, in which nothing is pickled.

The engine of `symlint trace`: the networks of files and folders, by how surely another is derived from them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from importlib import import_module
from pathlib import Path

import numpy as np

from symlint.comparison.alignment.fits import assignment
from symlint.comparison.alignment.gauge import canonise
from symlint.comparison.alignment.search import MATRICES, WIDEST, Spaces
from symlint.comparison.lineage.trace import SpaceTrace, Trace, noise, traced
from symlint.comparison.weights import READS, WRITES, Weights
from symlint.evidence.context import Context
from symlint.model.errors import MissingModel, UnreadableModel, UsageProblem
from symlint.model.graph import Array, Model
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.scaling import SignFlip
from symlint.symmetry.axes.terms import Term
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.motion import fresh_weights

PROJECTIONS = 32
TINY = 1e-30
FLOOR = 0.1
"""Directions with less than this share of the mean variance are not raised to that of the others."""
TURNS = 4
"""Random turns of the projections, which tell how alike strangers are."""


@dataclass(frozen=True, eq=False)
class SpaceSketch:
    """The units of a space, in no order: (units, projections) each, or (0, 0) where nothing leads there."""

    id: str
    name: str
    signed: bool
    """Whether units may change their sign."""
    upward: Array
    downward: Array

    @property
    def units(self) -> int:
        """How many there are."""
        return max(len(self.upward), len(self.downward))


@dataclass(frozen=True, eq=False)
class Sketch:
    """What is kept of a network."""

    path: str
    sha256: str
    weights: int
    """How many it has."""
    spaces: tuple[SpaceSketch, ...]


def sketched(weights: Weights, path: str) -> Sketch:
    """The sketch of a network.

    Raises UsageProblem where its weights are those of a grid, or some are NaN or infinite.
    """
    if weights.quantised:
        raise UsageProblem(f"{path}: a sketch is made of a float network, and this one is quantised: compare the files")
    if weights.broken:
        raise UsageProblem(f"{path}: {weights.broken} holds NaN or infinity, which tells nothing (see symlint check)")
    paths = _Paths(weights)
    names = {space.id: space.name for space in weights.context.symmetry.spaces}
    up, down = paths.projections(WRITES), paths.projections(READS)
    empty = np.zeros((0, 0), np.float32)
    spaces = [
        SpaceSketch(
            a.space, names.get(a.space, a.space), paths.signed(leaf), up.get(leaf, empty), down.get(leaf, empty)
        )
        for leaf, a in paths.units.items()
        if leaf in up or leaf in down
    ]
    model = weights.program.model
    return Sketch(path, model.sha256, sum(weight.size for weight in weights.all), tuple(spaces))


class _Paths:
    """The weights of a network in the canonical gauge, as paths between what is pinned and units."""

    def __init__(self, weights: Weights) -> None:
        self.structure, self.readings = weights.context.structure, weights.readings
        self.spaces = Spaces(self.structure)
        self.now = fresh_weights(self.structure)
        canonise(self.now, bare=True)

    @cached_property
    def units(self) -> dict[int, UnitPermutation]:
        """Leaf -> the permutation of its units, where they have no gauge of their own."""
        found = {a.leaf: a for a in self.structure.permutations if not a.copies}
        kept = {leaf for leaf, actions in self.spaces.of.items() if not any(isinstance(a, MATRICES) for a in actions)}
        return {leaf: a for leaf, a in found.items() if leaf in kept}

    def signed(self, leaf: int) -> bool:
        """Whether the units of a leaf may change their sign."""
        return any(isinstance(action, SignFlip) for action in self.spaces.of[leaf])

    @cached_property
    def _held(self) -> Mapping[str, list[Sequence[Term]]]:
        """Weight -> the terms of every axis."""
        program = self.structure.program
        names = [n for n in program.weights if n not in program.detached and n in self.readings]
        floating = (n for n in names if program.model.tensors[program.weights[n]].floating)
        return {n: [self.structure.expansion.terms(f) for f in self.structure.axes.of[n]] for n in floating}

    def projections(self, use: str) -> dict[int, Array]:
        """Leaf -> its units' projections, of that first of which most is known.

        Args:
            use: what its weights do with units that are reached from what is known: write them, or read them.
        """
        found: dict[int, Array] = {}
        single = {leaf for leaf, actions in self.spaces.of.items() if not any(a.copies for a in actions)}
        while True:
            known = {leaf: self._reached(leaf, use, found) for leaf in sorted(single - found.keys())}
            best = max(known, key=lambda leaf: sum(map(np.size, known[leaf])), default=None)
            if best is None or not known[best]:
                return {leaf: values.astype(np.float32) for leaf, values in found.items()}
            total = np.sum(known[best], axis=0)
            found[best] = total / max(float(np.sqrt(np.mean(total**2))), TINY)

    def _reached(self, leaf: int, use: str, found: Mapping[int, Array]) -> list[Array]:
        """What the weights make of a leaf's units all of whose other leaves are known."""
        made = []
        for name, axes in self._held.items():
            mine = [k for k, terms in enumerate(axes) if any(leaf in term.leaves for term in terms)]
            if len(mine) != 1 or len(axes) < 2 or self.readings[name].axes[mine[0]] != {use}:
                continue
            shape = self.structure.program.shapes[name]
            sides = [self._side(terms, shape[k], found) for k, terms in enumerate(axes) if k != mine[0]]
            known = [side for side in sides if side is not None]
            if len(known) < len(sides):
                continue
            values = np.moveaxis(self.now.get(name), mine[0], 0)
            values = values / max(float(np.sqrt(np.mean(values**2))), TINY)
            for number, term in enumerate(axes[mine[0]]):
                place = term.leaves.index(leaf) if leaf in term.leaves else -1
                if place >= 0 and self._flips(leaf, Occurrence(name, mine[0], number, place)):
                    within = self._product(term.leaves[:place] + term.leaves[place + 1 :], term.first, found)
                    if within is not None:
                        rows = np.moveaxis(values[term.positions], place, 0)
                        made.append(_contracted(rows.reshape(len(rows), -1, *values.shape[1:]), [within, *known]))
        return made

    def _flips(self, leaf: int, at: Occurrence) -> bool:
        """Whether all signs of a leaf act on an occurrence: what stays as it is cannot be added to what flips."""
        signs = (a for a in self.spaces.of[leaf] if isinstance(a, SignFlip))
        return all(sign.charge.get(at, Fraction(0)).numerator % 2 for sign in signs)

    def _side(self, terms: Sequence[Term], size: int, found: Mapping[int, Array]) -> Array | None:
        """The projections of an axis; None where they are not known."""
        made = np.zeros((size, PROJECTIONS))
        for term in terms:
            part = self._product(term.leaves, term.first, found)
            if part is None:
                return None
            made[term.positions.reshape(-1)] = part
        return made

    def _product(self, leaves: Sequence[int], start: int, found: Mapping[int, Array]) -> Array | None:
        """The projections of a product of leaves; of what is pinned they are random, the same in all networks."""
        made = np.random.default_rng(start).choice([-1.0, 1.0], (1, PROJECTIONS)) if start else np.ones((1, 1))
        for leaf in leaves:
            n = self.structure.axes.factors.size(leaf)
            if leaf in self.spaces.of and leaf not in found:
                return None
            drawn = found[leaf] if leaf in found else np.random.default_rng(n).normal(size=(n, PROJECTIONS))
            made = (made[:, None] * drawn[None]).reshape(-1, PROJECTIONS)
        return np.broadcast_to(made, (len(made), PROJECTIONS))


def _contracted(values: Array, sides: Sequence[Array]) -> Array:
    """(units, a, b, ...) with (a, k), (b, k), ... to (units, k)."""
    made = np.einsum("...a,ak->...k", values, sides[-1], optimize=True)
    for side in sides[-2::-1]:
        made = np.einsum("...ak,ak->...k", made, side)
    return np.asarray(made)


def compared(model: Sketch, other: Sketch) -> Trace:
    """How well the units of two sketches match."""
    pairs = list(_counterparts(model, other))
    spaces = [made for one, two in pairs if (made := _space(one, two)) is not None]
    whole = sum(space.units for space in model.spaces)
    share = sum(space.units for space in spaces) / whole if whole else 0.0
    return Trace(other.path, tuple(spaces), share, sketched=True)


def _counterparts(model: Sketch, other: Sketch) -> Iterator[tuple[SpaceSketch, SpaceSketch]]:
    """The spaces of two networks with the same widths and ends, in their order."""
    left = list(other.spaces)
    for one in model.spaces:
        form = (one.upward.shape, one.downward.shape, one.signed)
        two = next((t for t in left if (t.upward.shape, t.downward.shape, t.signed) == form), None)
        if two is not None:
            left.remove(two)
            yield one, two


def _space(one: SpaceSketch, two: SpaceSketch) -> SpaceTrace | None:
    if not 1 < one.units <= WIDEST:
        return None
    ways = [_alike(*pair, one.signed) for pair in ((one.upward, two.upward), (one.downward, two.downward))]
    if all(way is None for way in ways):
        return None
    return SpaceTrace(one.id, one.name, one.units, ways[0], ways[1], noise((one.units,)))


def _alike(one: Array, two: Array, signed: bool) -> float | None:
    """How alike the units are that match best: 1 is the same, 0 as those of projections that were turned at random."""
    if not one.size:
        return None
    sides = _whitened(one.astype(np.float64), two.astype(np.float64))
    rng, strange = np.random.default_rng(0), []
    for _ in range(TURNS):
        turn = np.linalg.qr(rng.normal(size=(one.shape[1], one.shape[1])))[0]
        strange.append(_best(sides[0], sides[1] @ turn, signed))
    base = float(np.mean(strange))
    return (_best(*sides, signed) - base) / max(1 - base, TINY)


def _whitened(one: Array, two: Array) -> tuple[Array, Array]:
    """Projections without what the units of both networks have in common, of length one."""
    both = np.concatenate([one, two])
    values, basis = np.linalg.eigh(both.T @ both / len(both))
    turn = basis / np.sqrt(np.maximum(values, 0) + FLOOR * values.mean())
    made = [side @ turn for side in (one, two)]
    one, two = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), TINY) for side in made)
    return one, two


def _best(one: Array, two: Array, signed: bool) -> float:
    table = one @ two.T
    table = np.abs(table) if signed else table
    return float(np.take_along_axis(table, assignment(table)[:, None], axis=1).mean())


VERSION = "1"
SUFFIX = ".npz"


def write(sketch: Sketch, output: Path) -> None:
    """Save a sketch; its numbers in half precision."""
    document = {
        "schema_version": VERSION,
        "path": sketch.path,
        "sha256": sketch.sha256,
        "weights": sketch.weights,
        "spaces": [
            {"id": space.id, "name": space.name, "units": space.units, "signed": space.signed}
            for space in sketch.spaces
        ],
    }
    arrays = {"sketch": np.frombuffer(json.dumps(document).encode(), np.uint8)}
    for number, space in enumerate(sketch.spaces):
        arrays[f"upward {number}"] = space.upward.astype(np.float16)
        arrays[f"downward {number}"] = space.downward.astype(np.float16)
    with output.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: str) -> Sketch:
    """A sketch as it was saved. Raises UnreadableModel where a file is none."""
    if not Path(path).is_file():
        raise MissingModel(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            document = json.loads(arrays["sketch"].tobytes())
            if document["schema_version"] != VERSION:
                raise UnreadableModel(path, f"a sketch of version {document['schema_version']}, expected {VERSION}")
            spaces = [
                SpaceSketch(
                    told["id"],
                    told["name"],
                    told["signed"],
                    arrays[f"upward {number}"].astype(np.float32),
                    arrays[f"downward {number}"].astype(np.float32),
                )
                for number, told in enumerate(document["spaces"])
            ]
            return Sketch(document["path"], document["sha256"], document["weights"], tuple(spaces))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UnreadableModel(path, "no sketch as `symlint fingerprint` writes it") from error


UNSOLVED = 4
"""Exit code: something could not be read, or nothing could be compared."""


@dataclass(frozen=True)
class Lineage:
    """Everything that `symlint trace` tells: the networks that one may be derived from, the most likely first."""

    path: str
    found: tuple[Trace, ...]

    @property
    def best(self) -> Trace:
        """The most likely origin."""
        return self.found[0]

    @property
    def exit_code(self) -> int:
        """4 where some network could not be read or nothing could be compared, 0 else."""
        unread = any(trace.problem is not None for trace in self.found)
        return UNSOLVED if unread or all(trace.score is None for trace in self.found) else 0


def lineage(path: str, paths: Iterable[str]) -> Lineage:
    """Whether a network is derived from one of others, whatever was done to it.

    Args:
        path: a model.
        paths: models, sketches, and folders of both, in which the first itself is left out.

    Raises `UnreadableModel` where the first cannot be read or there is nothing to compare it with, and `UsageProblem`
    where scipy is missing or a weight of it is NaN or infinite.
    """
    try:
        import_module("scipy.optimize")
    except ImportError as error:
        raise UsageProblem("trace needs scipy, which an extra brings: pip install 'symlint[align]'") from error
    others = list(candidates(path, paths))
    mine = weights(load(path))
    if mine.broken:
        raise UsageProblem(f"{path}: {mine.broken} holds NaN or infinity, which tells nothing (see symlint check)")
    sketch = sketched(mine, path) if any(map(_is_sketch, others)) and not mine.quantised else None
    found = [_beside_sketch(sketch, other) if _is_sketch(other) else _beside(mine, other) for other in others]
    return Lineage(path, tuple(sorted(found, key=lambda t: (t.score is None, -(t.score or 0.0), t.path))))


def candidates(path: str, paths: Iterable[str]) -> Iterator[str]:
    """The files that some paths name; in folders all models but one, and all sketches."""
    for other in paths:
        if not Path(other).is_dir():
            if not Path(other).exists():
                raise MissingModel(other)
            yield other
            continue
        files = sorted((*Path(other).rglob("*.onnx"), *Path(other).rglob(f"*{SUFFIX}")))
        inside = [file for file in files if file.resolve() != Path(path).resolve()]
        if not inside:
            raise MissingModel(other, f"no other *.onnx and no *{SUFFIX} in this folder")
        yield from map(str, inside)


def weights(model: Model) -> Weights:
    """The weights of a network."""
    return Weights(Context(*examine(model)))


def _is_sketch(path: str) -> bool:
    return Path(path).suffix == SUFFIX


def _beside_sketch(mine: Sketch | None, path: str) -> Trace:
    if mine is None:
        return Trace(path, sketched=True, problem="a quantised network has no sketch to compare with this one")
    try:
        return replace(compared(mine, read(path)), path=path)
    except UnreadableModel as problem:
        return Trace(path, sketched=True, problem=problem.reason)


def _beside(mine: Weights, path: str) -> Trace:
    try:
        other = weights(load(path))
    except UnreadableModel as problem:
        return Trace(path, problem=problem.reason)
    if other.broken:
        return Trace(path, problem=f"{other.broken} holds NaN or infinity")
    return traced(mine, other, path)
