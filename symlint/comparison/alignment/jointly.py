"""Jointly: the scales and matrices of all spaces at once, where one after another they hardly come nearer.

What writers W and readers R make of a tensor c is t = W c R^-1. Of networks that a symmetry makes the same, t R = W c
is linear in all elements together, and is solved by least squares; what no tensor tells stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from symlint.comparison.alignment.gauge import inside
from symlint.comparison.alignment.pair import Move, Pair, grouped, sizes_of
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.rotation import InvertibleMap
from symlint.symmetry.actions.scaling import UnitRescaling
from symlint.symmetry.actions.translation import Shift, UnseenChange
from symlint.symmetry.charges.unknowns import ONE
from symlint.symmetry.motion.action import Stand, scale, transform
from symlint.symmetry.motion.motion import Weights

STEPS, WORK = (20, 300), 1 << 28
"""Steps of least squares that visit this many elements in all; where that is too few there is none."""
DENSE = 1 << 22
"""Entries of a table of equations up to which it is written out."""
CLOSE = 1e-13
SHIFTED = 1e-3
"""So much an element counts that translations move as well."""
WIDEST = 3.0
"""A scale is moved by no more than e to this at once."""


@dataclass(frozen=True, eq=False)
class _Meeting:
    """Where an action meets a tensor, with the side that it acts on."""

    action: int
    stand: Stand
    power: float
    side: Array


class _Equations:
    """The elements of scales and matrices, one after another, and the tensors that they are to make the same."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.structure = pair, pair.structure
        structure = pair.structure
        self.actions = [
            a
            for a in structure.actions.values()
            if isinstance(a, InvertibleMap) or (isinstance(a, UnitRescaling) and not inside(structure, a))
        ]
        self.forms = [
            (*a.shape(structure), *a.shape(structure)[-1:][: isinstance(a, InvertibleMap)]) for a in self.actions
        ]
        self.met: dict[str, list[_Meeting]] = {}
        self.gaps: dict[str, Array] = {}
        self.roots: dict[str, float] = {}
        shifts = [a.translation for a in structure.actions.values() if isinstance(a, Shift)]
        shifted = {name for shift in shifts for name in (shift.weight, *(way.weight for way in shift.absorbers))}
        for k, action in enumerate(self.actions):
            for name in dict.fromkeys(o.tensor for o in action.charge):
                one, two = sized(pair.target, name), sized(pair.current, name)
                if one is None or two is None:
                    continue
                self.gaps[name], square = one - two, float(np.mean(one * one) + np.mean(two * two))
                self.roots[name] = (square**-0.5 if square else 0.0) * (SHIFTED if name in shifted else 1.0)
                powers = action.powers(name)
                for stand in action.stands(structure, name):
                    if power := float(powers.get((stand.axis, stand.term, stand.place), 0)):
                        meeting = _Meeting(k, stand, power, two if power > 0 else one)
                        self.met.setdefault(name, []).append(meeting)

    @cached_property
    def _free(self) -> dict[str, list[tuple[UnseenChange, Weights]]]:
        """Tensor -> what nothing sees of its change, by the weights in whose frame both sides of its equation are."""
        found: dict[str, list[tuple[UnseenChange, Weights]]] = {}
        for action in self.structure.actions.values():
            if isinstance(action, UnseenChange) and action.weight in self.met:
                written = next(iter(action.charge.values())) > 0
                side = self.pair.target if written else self.pair.current
                found.setdefault(action.weight, []).append((action, side))
        return found

    def _seen(self, name: str, values: Array) -> Array:
        """A difference of two tensors, but what nothing sees of it."""
        for action, side in self._free.get(name, ()):
            values = values - action.hidden(self.structure, values, side.get)
        return self.roots[name] * values

    @property
    def ends(self) -> list[int]:
        """Where the elements of each action end."""
        return [int(n) for n in np.cumsum([np.prod(form, dtype=np.int64) for form in self.forms])]

    @property
    def wanted(self) -> Array:
        """What is left between the networks."""
        return np.concatenate([self._seen(name, self.gaps[name]).reshape(-1) for name in self.met])

    def elements(self, flat: Array) -> list[Array]:
        """Action by action."""
        return [part.reshape(form) for part, form in zip(np.split(flat, self.ends[:-1]), self.forms, strict=True)]

    def forth(self, flat: Array) -> Array:
        """What elements add to writers, less what they take from readers."""
        elements, made = self.elements(flat), []
        for name, meetings in self.met.items():
            total = np.zeros_like(self.gaps[name])
            for met in meetings:
                element, place = elements[met.action], {(met.stand.axis, met.stand.term, met.stand.place): ONE}
                if isinstance(self.actions[met.action], InvertibleMap):
                    matrix = np.eye(element.shape[-1]) + (element if met.power > 0 else element.swapaxes(-1, -2))
                    after = transform(met.side, [met.stand], matrix, place)
                    total += np.sign(met.power) * (after - met.side)
                else:
                    total += met.power * (scale(met.side, [met.stand], 1 + element, place) - met.side)
            made.append(self._seen(name, total).reshape(-1))
        return np.concatenate(made)

    def back(self, flat: Array) -> Array:
        """The transpose of `forth`."""
        made, start = [np.zeros(form) for form in self.forms], 0
        for name, meetings in self.met.items():
            gap = self.gaps[name]
            rest, start = self._seen(name, flat[start : start + gap.size].reshape(gap.shape)), start + gap.size
            for met in meetings:
                sizes = sizes_of(self.structure, self.actions[met.action])
                one, two = grouped(rest, met.stand, sizes), grouped(met.side, met.stand, sizes)
                if isinstance(self.actions[met.action], InvertibleMap):
                    one, two = (one, two) if met.power > 0 else (two, one)
                    found = np.sign(met.power) * np.matmul(one.swapaxes(-1, -2), two)
                else:
                    found = met.power * np.sum(one * two, axis=1)
                made[met.action] += found.reshape(self.forms[met.action])
        return np.concatenate([part.reshape(-1) for part in made])


def jointly(pair: Pair) -> Iterator[Move]:
    """The elements of all scales and matrices that together bring a pair nearest; none where it is too large."""
    from scipy.sparse.linalg import LinearOperator, lsqr

    size = sum(pair.target.get(name).size for name in pair.uses.values())
    steps = min(WORK // max(size, 1), STEPS[1])
    if steps < STEPS[0]:
        return
    equations = _Equations(pair)
    if not equations.met:
        return
    wanted = equations.wanted
    form = wanted.size, equations.ends[-1]
    if form[0] * form[1] <= DENSE:
        found = np.linalg.lstsq(np.stack([equations.forth(row) for row in np.eye(form[1])], axis=1), wanted)[0]
    else:
        system = LinearOperator(form, matvec=equations.forth, rmatvec=equations.back, dtype=np.float64)
        found = lsqr(system, wanted, atol=CLOSE, btol=CLOSE, iter_lim=steps)[0]
    for action, element in zip(equations.actions, equations.elements(found), strict=True):
        if isinstance(action, InvertibleMap):
            yield Move(action, np.eye(element.shape[-1]) + element)
        else:
            yield Move(action, np.exp(np.clip(element, -WIDEST, WIDEST)))


def sized(weights: Weights, name: str) -> Array | None:
    """What a scaling multiplies: a weight, or scale and shift of a batch normalisation; None where it is neither."""
    program = weights.structure.program
    if name in program.weights:
        return weights.get(name).astype(np.float64)
    if name in program.composed:
        return weights.made(name)
    step = program.affines.get(name)
    if step is None:
        return None
    scale = weights.get(step.gain) / np.sqrt(weights.get(step.var) + step.epsilon)
    return scale if name == step.scale else weights.get(step.bias) - weights.get(step.mean) * scale
