"""Mirrors: reflections of weights that a user declares, shown to be symmetries of a network, or not.

A network has the mirror symmetry of a surface O with orthonormal columns if (I - 2 O O^T) theta computes what
theta computes, whatever theta is. That is shown, never tried: the reflection has to be an element of the groups that
were inferred, on all places of a space at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from symlint.evidence.mirrors.declared import along, reflections
from symlint.evidence.mirrors.reflection import NotShown, Place, Reflection
from symlint.evidence.options import Mirror, surface
from symlint.evidence.ranks.side import orthonormal
from symlint.model.clusters import ABSENT, ROUNDING, precision
from symlint.model.errors import UsageProblem, suggestion
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure

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
