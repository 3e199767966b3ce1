"""The share of every unit in the paths of a network."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from symlint.analysis.paths.bending import root
from symlint.analysis.paths.paths import Forward
from symlint.model.graph import Array
from symlint.program.flow import Passages
from symlint.program.functions import dispatched
from symlint.program.steps import (
    Affine,
    Concat,
    Einsum,
    Fold,
    Mix,
    Normalise,
    Pointwise,
    Slice,
    Step,
    Unknown,
)
from symlint.symmetry.actions.rotation import PlaneRotation
from symlint.symmetry.motion.membership import members
from symlint.symmetry.structure import Action, Structure


class Backward:
    """What leads from every tensor to the outputs, in the layout of its moments."""

    def __init__(self, forward: Forward) -> None:
        self.forward, self.layout, self.program = forward, forward.layout, forward.program
        self.found: dict[str, Array] = {name: forward.ones(name) for name in self.program.finals}
        with np.errstate(all="ignore"):
            for step in reversed(self.program.steps):
                self.step(step)

    def give(self, name: str, asked: Array) -> None:
        """Add what one use asks of a tensor."""
        if name in self.forward.moving:
            asked = self.layout.levelled(name, self.layout.masked(name, asked))
            self.found[name] = self.found[name] + asked if name in self.found else asked

    @dispatched
    def step(self, step: Step) -> None:
        """What a step asks of its operands."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Affine) -> None:
        """It reads weights alone."""

    @step.register
    def _(self, step: Unknown) -> None:
        for name in step.operands:
            self.give(name, self.forward.ones(name))

    @step.register
    def _(self, step: Einsum) -> None:
        if step.out in self.found:
            for k, name in enumerate(step.operands):
                if name in self.forward.moving:
                    self.give(name, self.forward.contracted(step, k, self.found[step.out]))

    @step.register
    def _(self, step: Pointwise) -> None:
        if step.out not in self.found:
            return
        forward, lanes = self.forward, self.forward.lanes(step)
        asked = self.found[step.out]
        if forward.bound(step):
            asked = self.layout.scaled(step.out, asked, forward.slope(step))
        for k in lanes:
            mine = asked
            if step.law.kind == "product":
                mine = asked * prod(
                    (forward.factor(step, j) for j in range(len(step.operands)) if j != k), start=np.ones(())
                )
                power = float(step.law.degrees[k] or 1) - 1
                if power:
                    wide = self.layout.carry(
                        step.operands[k],
                        step.out,
                        self.layout.spread(step.operands[k], forward.squares(step.operands[k])),
                        forward.keep(step, k),
                    )
                    mine = self.layout.scaled(step.out, mine, root(self.layout.diagonal(step.out, wide), power))
            self._back(step.out, step.operands[k], mine, forward.keep(step, k), joined=True)

    def _back(self, out: str, x: str, asked: Array, keep: Sequence[int | None], *, joined: bool) -> None:
        rank = len(self.layout.shape(x))
        asked = np.broadcast_to(asked, self.forward.of_shape(out))
        have, want = self.layout.shape(x), self.layout.shape(out)
        inverse = [next((k for k, j in enumerate(keep) if j == i and want[k] == have[i]), None) for i in range(rank)]
        self.give(x, self.layout.carry(out, x, asked, inverse, joined=joined))

    @step.register
    def _(self, step: Concat) -> None:
        start = 0
        for name in step.operands:
            stop = start + self.program.shapes[name][step.axis]
            if step.out in self.found:
                self.give(name, self.forward.piece(name, step.out, self.found[step.out], step.axis, start, stop))
            start = stop

    @step.register
    def _(self, step: Slice) -> None:
        if step.out in self.found:
            self.give(
                step.x, self.forward.part(step.x, step.out, self.found[step.out], step.axis, step.start, step.stop)
            )

    @step.register
    def _(self, step: Mix) -> None:
        if step.out in self.found:
            self._back(step.out, step.x, self.found[step.out], step.keep, joined=False)

    @step.register
    def _(self, step: Fold) -> None:
        if step.out in self.found:
            keep = [k for k in range(len(self.program.shapes[step.x])) if k not in step.axes]
            self._back(step.out, step.x, self.found[step.out], keep, joined=False)

    @step.register
    def _(self, step: Normalise) -> None:
        if step.out in self.found:
            asked = self.found[step.out]
            if step.known.shares:
                count = prod(self.program.shapes[step.x][k] for k in step.axes)
                squares = np.abs(self.forward.squares(step.x))
                asked = self.layout.scaled(step.x, asked, (1.0 + squares) ** -0.5 / count)
            else:
                centred = self.forward.centred(step, self.forward.of(step.x))
                size = self.layout.diagonal(step.x, centred).mean(axis=step.axes, keepdims=True)
                asked = self.layout.scaled(step.out, asked, root(size, -1.0))
            self.give(step.x, self.forward.centred(step, asked))


def mixed(structure: Structure) -> frozenset[int]:
    """Leaves of which pairs of elements count: what rotations mix, or lose a direction where a mean is taken away."""
    found = {a.leaf for a in structure.rotations if not isinstance(a, PlaneRotation)}
    factors, of, met = structure.axes.factors, structure.axes.of, Passages(structure.program).met
    weights = structure.program.weights
    for step in structure.program.norms:
        if len(step.axes) != 1 or step.x in met:
            continue
        leaves = set(factors.leaves(of[step.x][step.axes[0]]))
        held = all(any(n in weights for n in factors.holders.get(x, ())) for x in leaves)
        if held and (step.known.shares or step.function == "standardise"):
            found |= leaves
    return frozenset(found)


class Shares:
    """Sums over the paths of one network."""

    def __init__(self, forward: Forward) -> None:
        self.forward, self.backward = forward, Backward(forward)
        self.structure = forward.layout.structure
        self.loose = uncentred(forward) | centred(forward)
        self.norms = {step.out: step for step in forward.program.norms}

    def of(self, action: Action) -> Array | None:
        """The share of each unit relative to an equal one, where it is largest; None where no path holds the units."""
        layout, found = self.forward.layout, None
        for name in sorted(self.structure.axes.factors.holders.get(action.leaf, ())):
            if name not in self.backward.found or name not in self.forward.moving or name in self.loose:
                continue
            axes, shape = self.structure.axes.of[name], layout.shape(name)
            rows = members(self.structure, action, axes, shape)
            if rows is None:
                continue
            reached, asked = _unit(self.forward.of(name)), _unit(self.backward.found[name])
            if name in self.norms and not self.norms[name].known.shares:
                asked = self.forward.centred(self.norms[name], asked)
            if action.leaf in layout.mixed:
                each = layout.diagonal(name, reached) * layout.diagonal(name, asked)
            else:
                each = (reached * asked).sum(axis=tuple(range(len(shape), reached.ndim)))
            passing = each.reshape(-1)[rows].sum(axis=1)
            if np.isfinite(passing).all() and passing.sum() > 0:
                share = np.maximum(passing, 0.0) / passing.mean()
                found = share if found is None else np.maximum(found, share)
        return found


def uncentred(forward: Forward) -> frozenset[str]:
    """Tensors of which only what a mean leaves counts: what all their elements have in common is free."""
    found: set[str] = set()
    for step in reversed(forward.program.steps):
        if isinstance(step, Normalise):
            square = forward.of(step.x)
            if step.out in forward.moving and forward.centred(step, square) is not square:
                found.add(step.x)
        elif (step.linear and not isinstance(step, Mix)) or _gained(forward, step):
            found.update(step.operands if not found.isdisjoint(step.results) else ())
    return frozenset(found)


def centred(forward: Forward) -> frozenset[str]:
    """Tensors that a gain makes of what a mean has left: their readers may see one direction more than is there."""
    found: set[str] = set()
    made: set[str] = set()
    for step in forward.program.steps:
        if isinstance(step, Normalise) and step.out in forward.moving:
            square = forward.of(step.x)
            if forward.centred(step, square) is not square:
                made.add(step.out)
        elif not isinstance(step, (Normalise, Concat)) and not made.isdisjoint(step.operands):
            one = step.linear or isinstance(step, Mix) or _gained(forward, step)
            if one and sum(name in forward.moving for name in step.operands) == 1:
                made.update(step.results)
                found.update(step.results)
    return frozenset(found)


def _gained(forward: Forward, step: Step) -> bool:
    """Whether a step multiplies one tensor by numbers."""
    return step.known.factor != 0 and sum(name in forward.moving for name in step.operands) == 1


def _unit(square: Array) -> Array:
    """The same with the largest element 1: products of long paths leave the range of numbers."""
    top = float(np.abs(square).max(initial=0.0))
    return square / top if np.isfinite(top) and top > 0 else square
