"""Orthogonal groups: rotations of a space whose tensors are normalised along it.

The equations are those of invertible matrices counted modulo 2, as g is its own inverse transpose; a norm lets g
through: O(n) where it divides by the length, the stabiliser of the vector of ones where it also subtracts the mean.
A gain after a norm puts what follows in another *frame*: with x -> g x, the tensor y = D x with D = diag(gain) moves by
D g D^-1 and what reads it by the inverse. Frames add up along the network and must agree wherever two tensors meet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.steps import NONE, SUM, Fold, Law, Normalise, Pointwise, Step
from symlint.symmetry.charges.charge import Linear
from symlint.symmetry.charges.linear_system import LinearSystem
from symlint.symmetry.charges.unknowns import ONE, Charge, Occurrence, Slots, Variables

LENGTHS = ("rms", "l2")
Frame = tuple[tuple[str, int], ...]
"""Gains, each with its exponent."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Where an orthogonal matrix acts, and in which frame."""

    charge: Charge
    fixes_ones: bool
    """Whether it has to fix the vector of ones, as a mean is subtracted."""
    frames: Mapping[Occurrence, Frame]


@dataclass(frozen=True, slots=True)
class _Relation:
    """The frame of one variable in terms of another: sign times the other's, and a gain to some power."""

    other: int
    sign: int
    gain: Frame


class Orthogonal(Linear):
    """Orthogonal matrices: as `Linear` modulo 2, through norms and gains."""

    modulus = 2

    def __init__(self, variables: Variables) -> None:
        self.related: dict[LinearSystem, list[tuple[int, int, int, Frame]]] = {}
        """The equations of a leaf -> pairs of its variables, the sign between them, and what gains are passed."""
        self.passing: Frame = ()
        self.normed: dict[int, bool] = {}
        """Variables of what is normalised -> whether its mean is subtracted."""
        self.fixed = variables.program.fixed
        super().__init__(variables)

    def tie(self, v: int, w: int, leaf: int) -> None:
        """An equality, and what it says of the frames of two variables."""
        if leaf in self.systems:
            super().tie(v, w, leaf)
            self._relate(v, w, 1, self.systems[leaf])

    def tied(self, out: Slots, x: Slots) -> None:
        """Equalities, and what they say of frames."""
        super().tied(out, x)
        for k, system in self._kept(x.pattern):
            self._relate(x.first + k, out.first + k, 1, system)

    def opposed(self, v: int, w: int, system: LinearSystem) -> None:
        """Two variables that add up to nothing, and what that says of frames."""
        super().opposed(v, w, system)
        self._relate(v, w, -1, system)

    def _relate(self, v: int, w: int, sign: int, system: LinearSystem) -> None:
        self.related.setdefault(system, []).append((v, w, sign, self.passing))

    def _relations(self, leaf: int) -> dict[int, list[_Relation]]:
        """Variable of a leaf -> the frames of others in terms of its own."""
        found: dict[int, list[_Relation]] = {}
        for v, w, sign, passing in self.related.get(self.systems[leaf], ()):
            back = tuple((gain, -sign * power) for gain, power in passing)
            found.setdefault(v, []).append(_Relation(w, sign, passing))
            found.setdefault(w, []).append(_Relation(v, sign, back))
        return found

    @dispatched
    def step(self, step: Step) -> None:
        """The equations of one step."""
        super().step(step)

    def normalised(self, step: Normalise, axis: int) -> Law:
        """Rotations of what is normalised, and of nothing else."""
        if step.function not in (*LENGTHS, "standardise") or axis not in step.axes:
            return NONE
        for name in (step.x, step.out):
            first, pattern = self.slots(name, axis)
            for v in range(first, first + len(pattern.flat)):
                self.normed[v] = self.normed.get(v, False) or step.function == "standardise"
        return SUM

    @step.register
    def _(self, step: Pointwise) -> None:
        scaled = self._scaled(step)
        if scaled is None:
            super().step(step)
            return
        x, gain, power = scaled
        self.still(gain)
        for k, size in enumerate(self.program.shapes[step.out]):
            if size == 1:
                continue
            if self._along(gain, step, k):
                # A gain conjugates a matrix on the whole axis; one of several factors would have a frame per copy.
                # It is read in the order of the units, too.
                terms = self.terms(x, k)
                if len(terms) > 1 or not np.array_equal(terms[0].positions, np.arange(size)):
                    self.zero(self.slots(step.out, k))
                    self.zero(self.slots(x, k))
                    continue
                self.passing = ((gain, power),)
            self.balance(self.slots(step.out, k), [(self.slots(x, k), ONE)])
            self.passing = ()

    @step.register
    def _(self, step: Fold) -> None:
        if not step.known.turns:
            super().step(step)
            return
        for k in range(len(self.axes.of[step.x])):
            x = self.slots(step.x, k)
            if k in step.axes:
                self.balance(None, [(x, ONE), (x, ONE)])
            else:
                self.zero(x)
        for k in range(len(self.axes.of[step.out])):
            self.zero(self.slots(step.out, k))

    def _scaled(self, step: Pointwise) -> tuple[str, str, int] | None:
        """The tensor, the gain and its exponent, where a step multiplies by a gain along one axis."""
        power = step.known.factor
        if not power or len(step.operands) != 2:
            return None
        for k, gain in enumerate(step.operands):
            x = step.operands[1 - k]
            along = [n for n in self.program.shapes[gain] if n > 1]
            whole = self.program.shapes[x] == self.program.shapes[step.out]
            if gain in self.fixed and x not in self.fixed and len(along) == 1 and whole and (k or power > 0):
                return x, gain, power
        return None

    def _along(self, gain: str, step: Pointwise, k: int) -> bool:
        shape = self.program.shapes[gain]
        mine = k - len(self.program.shapes[step.out]) + len(shape)
        return mine >= 0 and shape[mine] > 1

    def rotations(self, linear: Mapping[int, Sequence[Charge]]) -> dict[int, list[Turn]]:
        """The rotations of every leaf along which something is normalised, or a tensor meets itself.

        `linear` are the spaces on which all invertible matrices act, of which these are a part.
        """
        found: dict[int, list[Turn]] = {}
        for leaf, charges in self.solve().items():
            general, relations = [set(c) for c in linear.get(leaf, ())], self._relations(leaf)
            for charge in charges:
                acted = {self.slots(o.tensor, o.axis).term(o.term)[o.place] for o in charge}
                means = [self.normed[v] for v in acted if v in self.normed]
                plain = not means and set(charge) <= set().union(*general)
                frames = _frames(relations, acted, self.normed) if not plain else None
                if frames is not None:
                    written = {o: frame for v, frame in frames.items() if (o := self.occurrence(v)) is not None}
                    found.setdefault(leaf, []).append(Turn(charge, any(means), written))
        return found


def _frames(
    relations: Mapping[int, Sequence[_Relation]], acted: set[int], normed: Collection[int]
) -> dict[int, Frame] | None:
    """The frame of every variable; None where two ways to a tensor disagree."""

    def itself(v: int) -> bool:
        return any(r.other == v and r.sign < 0 for r in relations.get(v, ()))

    found: dict[int, Counter[str]] = {v: Counter() for v in acted if v in normed or itself(v)}
    if not found:
        found[min(acted)] = Counter()
    waiting = list(found)
    while waiting:
        v = waiting.pop()
        for relation in relations.get(v, ()):
            frame = Counter({gain: relation.sign * power for gain, power in found[v].items()})
            for gain, power in relation.gain:
                frame[gain] += power
            frame = Counter({gain: power for gain, power in frame.items() if power})
            if relation.other not in found:
                found[relation.other] = frame
                waiting.append(relation.other)
            elif found[relation.other] != frame:
                return None
    return {v: tuple(sorted(frame.items())) for v, frame in found.items()}


def rotations(variables: Variables, linear: Mapping[int, Sequence[Charge]]) -> dict[int, list[Turn]]:
    """Leaf -> the orthogonal groups that act on it, beside those of the matrices that are `linear`."""
    system = Orthogonal(variables)
    for step in variables.program.steps:
        system.step(step)
    return system.rotations(linear)
