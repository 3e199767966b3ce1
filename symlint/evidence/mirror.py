"""Mirrors: reflections of weights that a user declares, shown to be symmetries of a network, or not.

A network has the mirror symmetry of a surface O with orthonormal columns if (I - 2 O O^T) theta computes what
theta computes, whatever theta is. That is shown, never tried: the reflection has to be an element of the groups that
were inferred, on all places of a space at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import reduce
from itertools import combinations
from math import prod
from pathlib import Path

import numpy as np

from symlint.evidence.options import Mirror, Surface, surface
from symlint.evidence.ranks import orthonormal
from symlint.model.clusters import ABSENT, ROUNDING, precision
from symlint.model.errors import UsageProblem, suggestion
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import PartExchange, UnitPermutation
from symlint.symmetry.actions.rotation import OrthogonalMap, PlaneRotation, Rotation
from symlint.symmetry.actions.translation import Shift
from symlint.symmetry.motion.action import stands
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.spaces import Kind
from symlint.symmetry.structure import Action, Structure

STILL = 1e-7
"""Numbers of a matrix below this are zero."""
Place = tuple[str, int]
"""A stored tensor and one of its axes."""


class NotShown(Exception):
    """No generator of the network holds the reflection; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Reflection:
    """Elements of generators, one after another."""

    leaf: int
    units: tuple[int, ...]
    """Those that it moves, by the number that findings give them."""
    parts: tuple[tuple[Action, Array], ...]

    @property
    def compares(self) -> bool:
        """Whether it only exchanges units, so that each is compared with another one."""
        return all(isinstance(action, UnitPermutation) for action, _ in self.parts)

    def act(self, weights: Weights) -> None:
        """Reflect weights."""
        for action, element in self.parts:
            action.move(weights, element)

    def places(self, structure: Structure) -> frozenset[Place]:
        """Where it moves something."""
        found: frozenset[Place] = frozenset()
        for kind in dict.fromkeys(action.kind for action, _ in self.parts):
            same: frozenset[Place] = frozenset()
            for action, element in self.parts:
                if action.kind == kind:
                    same ^= frozenset(_places(structure, action, element))  # two signs cancel
            found |= same
        return found


def _places(structure: Structure, action: Action, element: Array) -> Iterator[Place]:
    program, still = structure.program, np.arange(element.shape[-1])
    moved: Array
    if isinstance(action, Rotation):
        moved = np.any(np.abs(element - np.eye(len(still))) > STILL, axis=-1)
    else:
        moved = np.asarray(element != (still if isinstance(action, UnitPermutation) else 1.0))
    charged = {(o.tensor, o.axis, o.term, o.place) for o in action.charge}
    hit: set[str] = set()
    for name in (*program.weights, *program.affines):
        if name in program.detached or (name in program.affines and not charged):
            continue
        for stand in stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies):
            acts = not charged or (name, stand.axis, stand.term, stand.place) in charged
            if acts and np.any(np.where(stand.here, moved[(*stand.copies, stand.units)], False)):
                hit.add(name)
                affine = program.affines.get(name)
                part = name if affine is None else affine.gain if name == affine.scale else affine.bias
                yield program.weights[part], stand.axis
    if any((step.scale in hit) != (step.shift in hit) for step in program.affines.values()):
        raise NotShown("a batch normalisation takes the sign back, and its bias changes with the running mean")


MOST = 3
"""Sign symmetries of one space that are tried together."""
WIDEST = 4096
"""Units of which a reflection along any direction is written out as a matrix."""


def reflections(
    structure: Structure, name: str, axis: int, surface: Surface, tensors: Collection[str]
) -> list[Reflection]:
    """The elements that do what words say with the units along one axis of a weight of the program.

    Only what moves nothing but `tensors` is looked for, unless there is no such element.

    Raises `UsageProblem` where there are no such units, and `NotShown` where no generator moves them so.
    """
    kind: Kind = "permutation" if surface.word == "swap" else "sign"
    found: list[Reflection] = []
    counts: list[int] = []
    reasons: list[str] = []
    for leaf in _leaves(structure, name, axis):
        actions = _actions(structure, leaf, (kind,))
        sizes = {_count(structure, a) for a in actions} or _sizes(structure, leaf)
        counts += sorted(sizes)
        if not actions and surface.count in (0, *sizes):
            reasons.append(_absent(structure, leaf, kind))
        actions = [a for a in actions if surface.count in (0, _count(structure, a))]
        actions = [a for a in actions if max(surface.units) < _count(structure, a)]
        for some in _signs(structure, actions, tensors) if kind == "sign" else [(a,) for a in actions]:
            try:
                made = tuple((a, _element(structure, a, surface)) for a in some)
            except NotShown as reason:
                reasons.append(str(reason))
            else:
                found.append(Reflection(leaf, surface.units, made))
    if found:
        return found
    stored = structure.program.weights[name]
    if surface.count and surface.count not in counts:
        raise UsageProblem(f"axis {axis} of {stored} holds no space of {surface.count} units: it has {_or(counts)}")
    if max(surface.units) >= (surface.count or max(counts)):
        raise UsageProblem(f"unit {max(surface.units)} is out of range: axis {axis} of {stored} has {_or(counts)}")
    raise NotShown("; ".join(dict.fromkeys(reasons)))


def along(structure: Structure, name: str, axis: int, directions: Array, tensors: Collection[str]) -> list[Reflection]:
    """The elements that turn round directions (units, k), orthonormal, of the units along one axis.

    Raises `UsageProblem` where no space has so many units, and `NotShown` where no generator holds the reflection.
    """
    n = len(directions)
    sizes = {x: _sizes(structure, x) for x in _leaves(structure, name, axis)}
    leaves = [x for x in sizes if n in sizes[x]]
    if not leaves:
        counts = [count for found in sizes.values() for count in sorted(found)]
        raise UsageProblem(f"axis {axis} of {structure.program.weights[name]} has {_or(counts)}")
    if n > WIDEST:
        raise NotShown(f"its surface has {n} units, and symlint follows {WIDEST} at most in any direction")
    matrix = np.eye(n) - 2 * directions @ directions.T
    units = tuple(np.flatnonzero(np.abs(directions).max(axis=1, initial=0.0) > STILL).tolist())
    found: list[Reflection] = []
    for leaf in leaves:
        found += [Reflection(leaf, units, parts) for parts in _splits(structure, leaf, matrix, tensors)]
    if not found:
        framed = any(_framed(a) for x in leaves for a in _actions(structure, x, ("rotation",)))
        reason = "the gains of a norm tell the units apart" if framed else "no symmetry mixes these units so"
        raise NotShown(reason)
    return found


def _splits(
    structure: Structure, leaf: int, matrix: Array, tensors: Collection[str]
) -> Iterator[tuple[tuple[Action, Array], ...]]:
    """A matrix of all units as elements of the generators of a space."""
    size = np.abs(matrix)
    order, sign = size.argmax(axis=1), np.sign(matrix[np.arange(len(matrix)), size.argmax(axis=1)])
    if np.abs(size - np.eye(len(matrix))[order]).max() < STILL:
        moving, turning = bool((order != np.arange(len(order))).any()), bool((sign < 0).any())
        permutations = _actions(structure, leaf, ("permutation",)) if moving else [None]
        for permutation in permutations:
            flips = [a for a in _actions(structure, leaf, ("sign",)) if _count(structure, a) == len(sign)]
            for signs in _signs(structure, flips, tensors) if turning else [()]:
                parts = [(a, sign.reshape(_form(structure, a))) for a in signs]
                if permutation is not None:
                    parts.append((permutation, _order(structure, permutation, order)))
                yield tuple(parts)
        return
    for action in _actions(structure, leaf, ("rotation",)):
        blocks = None if isinstance(action, PlaneRotation) else _blocks(structure, action, matrix)
        if blocks is None or _framed(action):
            continue
        fixing = isinstance(action, OrthogonalMap) and action.fixes_ones
        if not fixing or np.abs(blocks.sum(axis=-1) - 1).max() < STILL:
            yield ((action, blocks),)


def _framed(action: Action) -> bool:
    """Whether gains tell the units apart that an action mixes."""
    return isinstance(action, OrthogonalMap) and action.framed


def _blocks(structure: Structure, action: Action, matrix: Array) -> Array | None:
    """A matrix of all units copy by copy; None where it mixes copies."""
    form = _form(structure, action)
    n, copies = form[-1], prod(form[:-1])
    if n * copies != len(matrix):
        return None
    apart = matrix.reshape(copies, n, copies, n)
    mine = apart[np.arange(copies), :, np.arange(copies)]
    return mine.reshape(*form, n) if np.sum(apart**2) - np.sum(mine**2) < STILL else None


def _element(structure: Structure, action: Action, surface: Surface) -> Array:
    form = _form(structure, action)
    if surface.word == "sign":
        element = np.ones(prod(form))
        element[list(surface.units)] = -1.0
        return element.reshape(form)
    order = np.arange(prod(form))
    first, second = surface.units[::2], surface.units[1::2]
    order[[*first, *second]] = [*second, *first]
    return _order(structure, action, order)


def _order(structure: Structure, action: Action, order: Array) -> Array:
    """An order of all units as one within each copy."""
    n, form = _form(structure, action)[-1], _form(structure, action)
    copy = np.arange(len(order)) // n
    if (order // n != copy).any():
        a, b = next((u, int(v)) for u, v in enumerate(order) if v // n != u // n)
        raise NotShown(f"units {a} and {b} are in different heads, groups or copies, which only change places whole")
    return (order % n).reshape(form)


def _leaves(structure: Structure, name: str, axis: int) -> list[int]:
    factors = structure.axes.factors
    found = [x for x in dict.fromkeys(factors.leaves(structure.axes.of[name][axis])) if factors.size(x) > 1]
    if not found:
        raise UsageProblem(f"axis {axis} of {structure.program.weights[name]} holds no units")
    return found


def _actions(structure: Structure, leaf: int, kinds: Sequence[Kind]) -> list[Action]:
    found = (a for a in structure.actions.values() if a.leaf == leaf and a.kind in kinds)
    return [a for a in found if not isinstance(a, PartExchange | Shift)]


def _form(structure: Structure, action: Action) -> tuple[int, ...]:
    size = structure.axes.factors.size
    return (*(size(c) for c in action.copies), size(action.leaf))


def _count(structure: Structure, action: Action) -> int:
    return prod(_form(structure, action))


def _sizes(structure: Structure, leaf: int) -> set[int]:
    kinds: tuple[Kind, ...] = ("permutation", "sign", "rotation")
    found = {_count(structure, a) for a in _actions(structure, leaf, kinds)}
    return found or {structure.axes.factors.size(leaf)}


def _signs(structure: Structure, actions: Sequence[Action], tensors: Collection[str]) -> Iterator[tuple[Action, ...]]:
    """Products of sign symmetries that move nothing but some tensors; each alone where there are none.

    Two of them that move a weight both leave it where it was, so that this is elimination modulo 2.
    """
    rows = [(frozenset(_signed(structure, action)), frozenset([action.id])) for action in actions]
    for place in sorted({p for moved, _ in rows for p in moved if p[0] not in tensors}):
        pivot = next((row for row in rows if place in row[0]), None)
        if pivot is not None:
            rows.remove(pivot)
            rows = [(m ^ pivot[0], names ^ pivot[1]) if place in m else (m, names) for m, names in rows]
    chosen = [names for _, names in rows] or [frozenset([action.id]) for action in actions]
    found = [
        reduce(frozenset.symmetric_difference, some) for k in range(1, MOST + 1) for some in combinations(chosen, k)
    ]
    for names in dict.fromkeys((*found, reduce(frozenset.symmetric_difference, chosen, frozenset()))):
        if names and (rows or len(names) == 1):
            yield tuple(a for a in actions if a.id in names)


def _signed(structure: Structure, action: Action) -> Iterator[tuple[str, int]]:
    """The stored tensors that a sign moves, and along which axis."""
    program = structure.program
    for o in action.charge:
        affine = program.affines.get(o.tensor)
        name = o.tensor if affine is None else affine.gain if o.tensor == affine.scale else affine.bias
        if name in program.weights and name not in program.detached:
            yield program.weights[name], o.axis


def _absent(structure: Structure, leaf: int, kind: Kind) -> str:
    """Why no generator of a kind moves the units of a space."""
    pin = structure.axes.factors.pins.get(leaf)
    if kind == "permutation" and pin is not None:
        return f"its units stay in place: {pin}"
    return "the sign of its units is seen" if kind == "sign" else "its units stay in place"


def _or(counts: Sequence[int]) -> str:
    """Numbers of units in words."""
    return f"{' or '.join(str(n) for n in dict.fromkeys(counts))} units"


NEAR = 1e-6
"""Two images of random weights are the same if they differ by less."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one mirror."""

    leaf: int | None
    """Whose units it reflects; None where it is not known."""
    units: tuple[int, ...] = ()
    reason: str = ""
    """Why it is not shown to be a symmetry; empty where it is."""
    distance: float = 0.0
    """The length of O^T theta relative to theta, over all tensors of the mirror."""
    tolerance: float = 0.0
    """What the rounding of the stored numbers makes of a zero."""
    holds: bool = False
    """Whether O^T theta is zero in every tensor, to the rounding of its numbers."""


def judge(structure: Structure, mirror: Mirror) -> Verdict:
    """Whether a mirror is a symmetry of a network, and whether the weights lie on its surface.

    Raises `UsageProblem` for a declaration that means nothing in this network: a tensor or a unit that is not there,
    directions of another shape.
    """
    made = _Judge(structure, mirror)
    try:
        found = min(made.reflections(), key=made.gaps)
        reasons = made.reasons(found)
    except NotShown as reason:
        return Verdict(None, reason=str(reason))
    if reasons:
        return Verdict(found.leaf, found.units, "; ".join(reasons))
    return made.measured(found)


class _Judge:
    def __init__(self, structure: Structure, mirror: Mirror) -> None:
        self.structure, self.mirror = structure, mirror
        program = structure.program
        self.names = {stored: name for name, stored in program.weights.items() if name not in program.detached}
        self.shared = frozenset(program.detached.values())
        """Constant tensors that other uses share: no exchange of units changes them."""
        known = {*self.names, *self.shared}
        for tensor in mirror.tensors:
            if tensor not in known:
                raise UsageProblem(f"the model has no weight {tensor!r}{suggestion(tensor, known)}")
        self.shapes = {t: program.model.tensors[t].shape for t in mirror.tensors}
        self.axes = [self._axis(t, a) for t, a in zip(mirror.tensors, mirror.axes, strict=False)]
        self.whole: Array | None = None
        """The directions over all weights, where they are declared so."""

    def _axis(self, tensor: str, axis: int) -> int:
        shape = self.shapes[tensor]
        if not -len(shape) <= axis < len(shape):
            raise UsageProblem(f"{tensor} has no axis {axis}: its shape is {list(shape)}")
        return axis % len(shape)

    def reflections(self) -> list[Reflection]:
        """The elements that could be the mirror."""
        first = self.mirror.tensors[0]
        if first not in self.names:
            raise NotShown(f"{first} is one constant for several uses, which symlint does not move apart")
        try:
            said = surface(self.mirror.surface)
        except ValueError as error:
            raise UsageProblem(str(error)) from None
        axis = self.axes[0] if self.axes else self._axis(first, 0)
        if said.word != "file":
            return reflections(self.structure, self.names[first], axis, said, self.mirror.tensors)
        directions, file = _directions(Path(said.path)), Path(said.path).name
        total = sum(int(np.prod(shape)) for shape in self.shapes.values())
        if len(directions) == total:
            self.whole = directions
            directions = self._units(directions, first, axis)
        try:
            return along(self.structure, self.names[first], axis, directions, self.mirror.tensors)
        except UsageProblem as problem:
            raise UsageProblem(f"{file} has {len(directions)} rows: {problem}, all tensors {total} weights") from None

    def _units(self, directions: Array, tensor: str, axis: int) -> Array:
        """The directions of units that directions of all weights mean, if they do the same to all lines of a tensor."""
        shape = self.shapes[tensor]
        mine = directions[: int(np.prod(shape))].reshape(*shape, -1)
        lines = np.moveaxis(mine, axis, 0).reshape(shape[axis], -1)
        length, basis = np.linalg.eigh(lines @ lines.T / (int(np.prod(shape)) // shape[axis]))
        if np.any(np.minimum(np.abs(length), np.abs(length - 1)) > NEAR):
            raise NotShown(f"it does not do the same to all lines of {tensor} along axis {axis}")
        return np.asarray(basis[:, length > 0.5])

    def gaps(self, found: Reflection) -> int:
        """At how many places a reflection of units is not the mirror."""
        try:
            moved = found.places(self.structure)
        except NotShown:
            return len(self.structure.program.weights) + 1
        return len(moved ^ self._declared(moved))

    def reasons(self, found: Reflection) -> list[str]:
        """Why a reflection of units is not the mirror; nothing where it is."""
        moved = found.places(self.structure)
        declared = self._declared(moved)
        reasons = []
        if moved - declared:
            reasons.append(f"it would have to move {_listed(sorted(moved - declared))} as well")
        idle = sorted(place for place in declared - moved if place[0] not in self.shared)
        axes = dict(sorted(moved, reverse=True))
        turned = [f"{t} holds these units along axis {axes[t]}, not {axis}" for t, axis in idle if t in axes]
        reasons += turned[:1]
        if not turned and idle:
            reasons.append(f"no symmetry of these units moves {_listed(idle)}")
        if not reasons and self.whole is not None and not self._same(found, self.whole):
            reasons.append("it does something else to the weights than to the units of one space")
        return reasons

    def _declared(self, moved: frozenset[Place]) -> frozenset[Place]:
        """The places that the mirror names; where it names no axis, all of that tensor."""
        named = set(zip(self.mirror.tensors, self.axes, strict=False))
        for tensor in self.mirror.tensors[len(self.axes) :]:
            named |= {(t, a) for t, a in moved if t == tensor} or {(tensor, 0)}
        return frozenset(named)

    def _same(self, found: Reflection, directions: Array) -> bool:
        """Whether a reflection of units is I - 2 O O^T on random weights."""
        rng = np.random.default_rng(len(directions))
        tensors = self.structure.program.model.tensors
        drawn: dict[str, Array] = {}

        def start(stored: str) -> Array:
            return drawn.setdefault(stored, rng.uniform(0.5, 1.5, tensors[stored].shape))

        weights = Weights(self.structure, start)
        found.act(weights)
        before = np.concatenate([start(t).reshape(-1) for t in self.shapes])
        after = np.concatenate([weights.now.get(t, start(t)).reshape(-1) for t in self.shapes])
        return float(np.abs(before - 2 * directions @ (directions.T @ before) - after).max()) < NEAR

    def measured(self, found: Reflection) -> Verdict:
        """How far the weights are from the surface: O O^T theta is half of what the reflection changes."""
        tensors = self.structure.program.model.tensors
        if broken := [t for t in self.shapes if not np.isfinite(tensors[t].read().astype(np.float64)).all()]:
            return Verdict(None, reason=f"{broken[0]} holds weights that are not finite")
        weights = Weights(self.structure, lambda stored: tensors[stored].read())
        found.act(weights)
        distance = tolerance = size = 0.0
        holds = True
        for tensor in self.shapes:
            before = tensors[tensor].read().astype(np.float64)
            change = (before - weights.now.get(tensor, before)) / 2
            moved = np.abs(change) > ABSENT
            change[~moved] = 0.0
            # Units that are compared round like themselves; what should be zero rounds like its neighbours.
            length = float(np.linalg.norm(before[moved] if found.compares else before))
            length *= 1.0 if found.compares else float(np.sqrt(np.mean(moved)))
            floor = ROUNDING * precision(tensors[tensor].dtype) * length
            off = float(np.linalg.norm(change))
            holds = holds and off <= floor
            distance, tolerance, size = distance + off**2, tolerance + floor**2, size + float(np.sum(before**2))
        size = size or 1.0
        return Verdict(found.leaf, found.units, "", (distance / size) ** 0.5, (tolerance / size) ** 0.5, holds)


def _directions(file: Path) -> Array:
    """The columns of a file, brought to an orthonormal basis of what they span."""
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        message = f"{file.name} cannot be read as an array of numbers: write it with numpy.save"
        raise UsageProblem(message) from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu" or found.ndim not in (1, 2):
        raise UsageProblem(f"{file.name} is no matrix of numbers of shape (units or weights, directions)")
    wide = found.astype(np.float64).reshape(len(found), -1)
    if not np.isfinite(wide).all() or not wide.any():
        raise UsageProblem(f"{file.name} holds no direction: its numbers are zero or not finite")
    return orthonormal(wide)


def _listed(places: list[Place]) -> str:
    """Places in words."""
    words = [f"{tensor} (axis {axis})" for tensor, axis in places]
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:2])} and {len(words) - 2} more"
