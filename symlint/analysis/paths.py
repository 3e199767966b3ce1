"""Sums over paths: how much of what gets from the inputs of a network to its outputs passes through each unit.

A path is a way through the weights, and counts with the square of their product. What reaches a unit from the inputs
times what leads from it to the outputs is the same in every gauge (Neyshabur et al., Path-SGD, NeurIPS 2015). Pairs of
units are followed where a rotation may mix them. Activations pass what they get, bounded ones at most 1; gates and
normalisations make it 1; biases write nothing; a product multiplies.

The share of every unit in the paths of a network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod

import numpy as np

from symlint.analysis.moments import Elements, Layout, root
from symlint.analysis.values.lattice import Value
from symlint.model.graph import Array, Shape
from symlint.program.flow import Passages
from symlint.program.functions import dispatched
from symlint.program.steps import Affine, Concat, Einsum, Fold, Mix, Normalise, Pointwise, Slice, Spec, Step, Unknown
from symlint.symmetry.actions.rotation import PlaneRotation
from symlint.symmetry.motion.membership import members
from symlint.symmetry.structure import Action, Structure

# Contractions of second moments: each weight counts twice, once for either element of a pair.

Part = tuple[Array, list[str]]


def contract(
    layout: Layout,
    target: tuple[str, Spec],
    squares: Sequence[tuple[str, Spec, Array]],
    fixed: Sequence[tuple[Array, Spec]],
    sizes: Mapping[str, int],
    result: Collection[str],
) -> Array:
    """Second moments of a contraction, or what its result says of one operand: in the layout of the target.

    Args:
        target: the tensor that is wanted, and its labels.
        squares: the tensors whose moments are known; each is independent of the others.
        fixed: weights.
        sizes: of the labels.
        result: the labels that the contraction leaves.

    What is summed over along axes without units is alike.
    """
    wanted, parts = (
        _labels(layout, *target),
        [_part(layout.shape(n), layout.doubled(n), spec, a, sizes) for n, spec, a in squares],
    )
    held = [own for _, own in parts] + [wanted]
    tied = {x for own in held for x in own if not x.endswith("'") and f"{x}'" not in own}
    pairs = {x[:-1] for own in held for x in own if x.endswith("'")} - tied
    found: list[Part] = [(a, [x[:-1] if x.endswith("'") and x[:-1] in tied else x for x in own]) for a, own in parts]
    for value, spec in fixed:
        labels = [x for axis in spec for x in axis]
        array = value.astype(np.float64).reshape([sizes[x] for x in labels])
        if pairs.isdisjoint(labels):
            found.append((array * array, labels))
        else:
            found += [(array, labels), (array, [f"{x}'" if x in pairs else x for x in labels])]
    made, got = _einsum(found, [x for x in wanted if not (x.endswith("'") and x[:-1] in tied)])
    wide = [x for axis in target[1] for x in axis]
    count = np.prod([sizes[x] for x in wide if x not in wanted and any(x in own for _, own in found)])
    alike = np.prod([float(sizes[x]) ** 2 for x in sizes if x not in result and not any(x in own for _, own in found)])
    return layout.masked(target[0], _placed(layout, target, made * (alike / count), got, sizes))


def _labels(layout: Layout, name: str, spec: Spec) -> list[str]:
    shape = layout.shape(name)
    lines = [list(axis) if shape[k] > 1 else [] for k, axis in enumerate(spec)]
    return [x for line in lines for x in line] + [f"{x}'" for k in layout.doubled(name) for x in lines[k]]


def _placed(
    layout: Layout, target: tuple[str, Spec], made: Array, got: Sequence[str], sizes: Mapping[str, int]
) -> Array:
    """An array over some of the labels of the target, in its layout."""
    name, spec = target
    wanted = _labels(layout, name, spec)
    made = made.reshape([made.shape[got.index(x)] if x in got else 1 for x in wanted])
    full = [sizes[x.removesuffix("'")] for x in wanted]
    for k, x in enumerate(wanted):
        if x.endswith("'") and x not in got and x[:-1] in got:
            place = wanted.index(x[:-1])
            made = made * np.eye(full[k]).reshape([full[k] if j in (k, place) else 1 for j in range(len(full))])
    shape = layout.shape(name)
    return np.broadcast_to(made, full).reshape([*shape, *(shape[k] for k in layout.doubled(name))])


def _part(shape: Shape, twice: Sequence[int], spec: Spec, square: Array, sizes: Mapping[str, int]) -> Part:
    """An array with one axis per label; axes without units have none."""
    lines = [list(axis) if shape[k] > 1 else [] for k, axis in enumerate(spec)]
    labels = [x for line in lines for x in line] + [f"{x}'" for k in twice for x in lines[k]]
    return square.reshape([sizes[x.removesuffix("'")] for x in labels]), labels


def _einsum(parts: Sequence[Part], wanted: Sequence[str]) -> tuple[Array, list[str]]:
    """The sum of products over all labels that are not wanted, with the wanted ones that some part has."""
    number: dict[str, int] = {}
    arguments: list[object] = []
    for array, labels in parts:
        arguments += [array, [number.setdefault(x, len(number)) for x in labels]]
    got = [x for x in wanted if x in number]
    return np.asarray(np.einsum(*arguments, [number[x] for x in got], optimize="greedy")), got  # type: ignore[call-overload]


class Forward(Elements):
    """What reaches every tensor from the inputs: its second moments, if every weight were one path."""

    def __init__(self, layout: Layout, values: Mapping[str, Value]) -> None:
        super().__init__(layout, values)
        with np.errstate(all="ignore"):
            for step in self.program.steps:
                self.step(step)

    def inverse(self, name: str, axes: tuple[int, ...]) -> Array:
        """One over the size of the elements together along axes: a shape that broadcasts to the tensor's."""
        return root(self.squares(name).mean(axis=axes, keepdims=True), -1.0)

    @dispatched
    def step(self, step: Step) -> None:
        """The moments of what a step makes."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Affine) -> None:
        """Its values are known, if any are."""

    @step.register
    def _(self, step: Unknown) -> None:
        self.found.update((name, self.ones(name)) for name in step.outs)

    # -- contractions ---------------------------------------------------------------------------------------------
    @step.register
    def _(self, step: Einsum) -> None:
        if self.unknown(step.out):
            self.put(step.out, self.contracted(step))

    def contracted(
        self, step: Einsum, target: int | None = None, asked: Array | None = None, layout: Layout | None = None
    ) -> Array:
        """The moments of the result of a contraction, or what of one operand is `asked`; in another layout if given."""
        layout = layout or self.layout
        numbers = [self.number(name) for name in step.operands]
        known = [(v, step.specs[k]) for k, v in enumerate(numbers) if v is not None]
        squares = [
            (name, step.specs[k], self.summed(step, k))
            for k, name in enumerate(step.operands)
            if numbers[k] is None and k != target
        ]
        left = step.kept
        if target is None or asked is None:
            return contract(layout, (step.out, step.result), squares, known, step.sizes, left)
        wanted = (step.operands[target], step.specs[target])
        return contract(layout, wanted, [*squares, (step.out, step.result, asked)], known, step.sizes, left)

    def summed(self, step: Einsum, k: int) -> Array:
        """The moments of an operand; where it is summed over, only with pairs that count then."""
        name, made = step.operands[k], step.kept
        axes = [j for j, a in enumerate(step.specs[k]) if any(x not in made and step.sizes[x] > 1 for x in a)]
        return self.layout.masked(name, self.of(name), summed=axes) if self.layout.paired else self.of(name)

    # -- elements -------------------------------------------------------------------------------------------------
    @step.register
    def _(self, step: Pointwise) -> None:
        if self.unknown(step.out):
            self.put(step.out, self.layout.scaled(step.out, self.plain(step), self.passed(step)))

    # -- along axes -----------------------------------------------------------------------------------------------
    @step.register
    def _(self, step: Concat) -> None:
        if self.unknown(step.out):
            stops = np.cumsum([self.program.shapes[name][step.axis] for name in step.operands])
            parts = [
                self.part(
                    step.out, name, self.of(name), step.axis, int(b) - self.program.shapes[name][step.axis], int(b)
                )
                for b, name in zip(stops, step.operands, strict=True)
                if name in self.moving or step.out not in self.moving
            ]
            self.put(step.out, sum(parts, start=np.zeros(self.of_shape(step.out))))

    def part(self, out: str, name: str, square: Array, axis: int, start: int, stop: int) -> Array:
        """The moments of a piece of a tensor, where it is in the whole."""
        made = np.zeros(self.of_shape(out))
        cut = self.cut(out, axis, start, stop)
        if self.layout.alike(name, out, axis):
            made[cut] = square
            return made
        squares = np.zeros(self.layout.shape(out))
        whole = cut[: squares.ndim]
        squares[whole] = self.layout.averaged(self.layout.diagonal(name, square), squares[whole].shape)
        return self.layout.spread(out, squares)

    @step.register
    def _(self, step: Slice) -> None:
        if self.unknown(step.out):
            self.put(step.out, self.piece(step.out, step.x, self.of(step.x), step.axis, step.start, step.stop))

    def piece(self, out: str, x: str, square: Array, axis: int, start: int, stop: int) -> Array:
        """The moments of a piece of a tensor."""
        cut = self.cut(x, axis, start, stop)
        if self.layout.alike(x, out, axis):
            return square[cut]
        squares = self.layout.diagonal(x, square)
        return self.layout.spread(out, self.layout.averaged(squares[cut[: squares.ndim]], self.layout.shape(out)))

    def cut(self, name: str, axis: int, start: int, stop: int) -> tuple[slice, ...]:
        """An index of the moments of a tensor that leaves some elements of one axis."""
        here = [axis, *(len(self.layout.shape(name)) + j for j, k in enumerate(self.layout.doubled(name)) if k == axis)]
        written = self.layout.shape(name)[axis] == self.program.shapes[name][axis]
        part = slice(start, stop) if written else slice(None)
        return tuple(part if k in here else slice(None) for k in range(len(self.of_shape(name))))

    @step.register
    def _(self, step: Mix) -> None:
        if not self.unknown(step.out):
            return
        number = self.number(step.x)
        if number is None:
            self.put(step.out, self.layout.carry(step.x, step.out, self.of(step.x), step.keep, joined=False))
        else:
            self.put(step.out, self.layout.table(step.out, number, step.keep))

    @step.register
    def _(self, step: Fold) -> None:
        if self.unknown(step.out):
            keep = [k for k in range(len(self.program.shapes[step.x])) if k not in step.axes]
            self.put(step.out, self.layout.carry(step.x, step.out, self.of(step.x), keep, joined=False))

    @step.register
    def _(self, step: Normalise) -> None:
        if not self.unknown(step.out):
            return
        if step.known.shares:
            count = prod(self.program.shapes[step.x][k] for k in step.axes)
            self.found[step.out] = self.ones(step.out) / count**2
            return
        centred = self.centred(step, self.of(step.x))
        self.put(step.out, centred)
        self.put(step.out, self.layout.scaled(step.out, centred, self.inverse(step.out, step.axes)))

    def centred(self, step: Normalise, square: Array) -> Array:
        """Without the mean, where the step takes it away along one axis of which pairs are known."""
        twice = self.layout.doubled(step.x)
        less = step.known.shares or step.function == "standardise"
        if not less or len(step.axes) != 1 or step.axes[0] not in twice:
            return square
        for k in (step.axes[0], len(self.layout.shape(step.x)) + twice.index(step.axes[0])):
            square = square - square.mean(axis=k, keepdims=True)
        return square


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
