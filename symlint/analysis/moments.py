"""Second moments of tensors: a number per element, and between the elements of an axis that a rotation may mix.

An axis without units has size 1. An axis is *doubled* where sums of squares are not enough, because a generator mixes
its elements: then the array has the axis once more behind all others, and holds moments of pairs.

Second moments of tensors, and what elementwise functions make of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.values.lattice import Value
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.model.stored import PACKED, unpacked
from symlint.program.flow import Passages
from symlint.program.functions import Parity
from symlint.program.steps import Pointwise
from symlint.symmetry.actions.rotation import PlaneRotation
from symlint.symmetry.axes.terms import Term
from symlint.symmetry.structure import Structure

WIDEST = 2048
"""Wider axes are not doubled."""
LARGEST = 1 << 20
"""Tensors of more elements than this when doubled are not doubled."""


@dataclass(frozen=True)
class Layout:
    """Which axes of the tensors of a program are written out, and which are doubled."""

    structure: Structure
    mixed: frozenset[int]
    """Leaves of which pairs count wherever they are summed over."""
    paired: frozenset[int] = frozenset()
    """Leaves of which pairs are told, but not summed over."""

    @cached_property
    def _living(self) -> frozenset[int]:
        held = {x for a in self.structure.actions.values() for x in (a.leaf, *a.copies)}
        return frozenset(held | self.mixed | self.paired)

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        return {}

    def shape(self, name: str) -> Shape:
        """The shape of a tensor, with size 1 along axes without units."""
        if name not in self._shapes:
            factors, axes = self.structure.axes.factors, self.structure.axes.of[name]
            sizes = self.structure.program.shapes[name]
            indices = {f: {factors.index(g) for g in factors.families(f)} for f in axes}
            self._shapes[name] = tuple(
                n
                if not self._living.isdisjoint(factors.leaves(f))
                or any(g in indices[h] for h in axes for g in factors.sums(f))
                else 1
                for f, n in zip(axes, sizes, strict=True)
            )
        return self._shapes[name]

    def doubled(self, name: str) -> tuple[int, ...]:
        """The axes of a tensor that are doubled."""
        if name not in self._doubled:
            shape, found = self.shape(name), list[int]()
            for k, f in enumerate(self.structure.axes.of[name]):
                room = LARGEST // prod((*shape, *(shape[j] for j in found)))
                if 1 < shape[k] <= min(WIDEST, room) and self._twice(f):
                    found.append(k)
            self._doubled[name] = tuple(found)
        return self._doubled[name]

    @cached_property
    def _doubled(self) -> dict[str, tuple[int, ...]]:
        return {}

    def _twice(self, f: int) -> bool:
        return not (self.mixed | self.paired).isdisjoint(self.structure.axes.factors.leaves(f))

    def mask(self, name: str, axis: int, *, summed: bool = False) -> NDArray[np.bool_]:
        """Which pairs along a doubled axis may have a moment: those that differ in leaves that are mixed alone."""
        leaves = self.mixed if summed else self.mixed | self.paired
        key = (self.structure.axes.of[name][axis], summed)
        if key not in self._masks:
            terms = self.structure.expansion.terms(key[0])
            first = self._blocks(terms, leaves, self.structure.program.shapes[name][axis])
            self._masks[key] = first[:, None] == first[None, :]
        return self._masks[key]

    def _blocks(self, terms: Sequence[Term], mixed: Collection[int], size: int) -> NDArray[np.int64]:
        """For every index of an axis the first of those that differ from it in mixed leaves alone.

        What is mixed itself is left out where units have a gauge of their own per index of it: no two of these are one.
        What is mixed as a whole is mixed across groups and the parts of a sum, since a mean may be taken of all.
        """
        first = np.arange(size)
        whole: list[NDArray[np.int64]] = []
        for term in terms:
            owned = {c for leaf in term.leaves for c in self._copies.get(leaf, ())}
            axes = tuple(k for k, leaf in enumerate(term.leaves) if leaf in mixed and leaf not in owned)
            first[term.positions] = term.positions.min(axis=axes, keepdims=True)
            if term.leaves and self.mixed.issuperset(term.leaves):
                whole.append(term.positions.reshape(-1))
        if whole:
            first[np.concatenate(whole)] = min(int(positions.min()) for positions in whole)
        return first

    @cached_property
    def _copies(self) -> dict[int, set[int]]:
        """Leaf -> the leaves of which each index has a gauge of its own on it."""
        found: dict[int, set[int]] = {}
        for action in self.structure.actions.values():
            found.setdefault(action.leaf, set()).update(action.copies)
        return found

    def levelled(self, name: str, square: Array) -> Array:
        """Moments where both elements of a plane have the mean of the two: that is the same however it is turned.

        Positions turn it too, by angles of their own.
        """
        shape, twice = self.shape(name), self.doubled(name)
        for action in self._planes.get(name, ()):
            found = action.stands(self.structure, name)
            for first, second in zip(found[::2], found[1::2], strict=True):
                k = first.axis
                if k in twice or shape[k] == 1:
                    continue
                partner = np.arange(shape[k])
                partner[first.grid], partner[second.grid] = second.grid, first.grid
                here: NDArray[np.bool_] = np.zeros((), bool)
                for stand in (first, second):
                    held = np.broadcast_to(stand.here, np.broadcast_shapes(stand.here.shape, stand.grid.shape))
                    here = here | stand.along(shape, held, np.zeros(shape[k], bool))
                if all(n in (1, m) for n, m in zip(here.shape, shape, strict=True)):
                    mean = (square + square.take(partner, axis=k)) / 2
                    square = np.where(here.reshape(here.shape + (1,) * len(twice)), mean, square)
        return square

    @cached_property
    def _planes(self) -> dict[str, list[PlaneRotation]]:
        """Tensor -> the rotations that turn pairs of its elements."""
        found: dict[str, list[PlaneRotation]] = {}
        for action in (a for a in self.structure.rotations if isinstance(a, PlaneRotation)):
            for name in {o.tensor for o in action.charge}:
                found.setdefault(name, []).append(action)
        return found

    @cached_property
    def _masks(self) -> dict[tuple[int, bool], NDArray[np.bool_]]:
        return {}

    def alike(self, one: str, other: str, axis: int) -> bool:
        """Whether two tensors are written alike, up to the length of one axis."""
        shapes = [list(self.shape(x)) for x in (one, other)]
        single = any(self.structure.program.shapes[x][axis] == 1 for x in (one, other))
        written = [shape.pop(axis) > 1 for shape in shapes]
        return (
            (single or written[0] == written[1]) and shapes[0] == shapes[1] and self.doubled(one) == self.doubled(other)
        )

    @staticmethod
    def averaged(squares: Array, shape: Shape) -> Array:
        """Squares with size 1 where the shape has it."""
        lost = tuple(k for k, n in enumerate(shape) if n == 1 < squares.shape[k])
        return np.broadcast_to(squares.mean(axis=lost, keepdims=True) if lost else squares, shape)

    # -- arrays ---------------------------------------------------------------------------------------------------
    def diagonal(self, name: str, square: Array) -> Array:
        """The squares alone."""
        rank, twice = len(self.shape(name)), self.doubled(name)
        return np.einsum(square, [*range(rank), *twice], list(range(rank))) if twice else square

    def spread(self, name: str, squares: Array) -> Array:
        """Squares of elements that have nothing to do with each other."""
        made = np.broadcast_to(squares, self.shape(name))
        for axis in self.doubled(name):
            n = self.shape(name)[axis]
            eye = np.eye(n).reshape([n if k in (axis, made.ndim) else 1 for k in range(made.ndim + 1)])
            made = made[..., None] * eye
        return made

    def masked(self, name: str, square: Array, *, summed: Collection[int] = ()) -> Array:
        """Without the moments of pairs that no generator mixes; along axes that are summed over fewer count."""
        rank = len(self.shape(name))
        for j, axis in enumerate(self.doubled(name)):
            mask = self.mask(name, axis, summed=axis in summed)
            if not mask.all():
                square = square * mask.reshape([len(mask) if k in (axis, rank + j) else 1 for k in range(square.ndim)])
        return square

    def scaled(self, name: str, square: Array, factor: Array) -> Array:
        """Every element times a factor: shape of the tensor, or one that broadcasts to it."""
        rank, twice = len(self.shape(name)), self.doubled(name)
        factor = factor.reshape((1,) * (rank - factor.ndim) + factor.shape)
        other = factor.reshape(factor.shape + (1,) * len(twice))
        for j, axis in enumerate(twice):
            other = np.swapaxes(other, axis, rank + j)
        return square * factor.reshape(factor.shape + (1,) * len(twice)) * other

    def outer(self, name: str, values: Array) -> Array:
        """Second moments of known numbers, in the layout of a tensor to which they broadcast."""
        shape, sizes = self.shape(name), self.structure.program.shapes[name]
        values = values.reshape((1,) * (len(shape) - values.ndim) + values.shape).astype(np.float64)
        rank, twice = len(shape), self.doubled(name)
        kept = [k for k in range(rank) if shape[k] > 1 or values.shape[k] == 1 or sizes[k] == 1]
        values = np.broadcast_to(
            values, [n if k in twice else m for k, (n, m) in enumerate(zip(shape, values.shape, strict=True))]
        )
        pair = [rank + k if k in twice else k for k in range(rank)]
        made = np.einsum(values, list(range(rank)), values, pair, [*kept, *(rank + k for k in twice)])
        lost = [k for k in range(rank) if k not in kept]
        return np.asarray(np.expand_dims(made, lost) / prod(values.shape[k] for k in lost))

    def carry(
        self, source: str, target: str, square: Array, keep: Sequence[int | None], *, joined: bool = True
    ) -> Array:
        """Moments of one tensor in the layout of another.

        Axis k of the target is axis ``keep[k]`` of the source, or a new one, along which all elements are the same
        (`joined`) or have nothing to do with each other. What is not kept is summed up (`joined`) or averaged.
        """
        have, want = self.shape(source), self.shape(target)
        twice, rank = self.doubled(source), len(have)
        keep = [
            j if j is not None and (have[j] == n or have[j] == 1) else None for j, n in zip(keep, want, strict=True)
        ]
        pairs = [k for k in self.doubled(target) if keep[k] is not None and keep[k] in twice]
        both = {keep[k] for k in pairs}
        whole = {j for j in twice if j not in keep} if joined else set()
        labels = [*range(rank), *(rank + j if j in both or j in whole else j for j in twice)]
        out = [j for j in keep if j is not None] + [rank + j for k in pairs if (j := keep[k]) is not None]
        lost = prod(have[j] for j in range(rank) if j not in keep)
        made = np.einsum(square, labels, out) / (1 if joined else lost)
        kept = [k for k, j in enumerate(keep) if j is not None]
        order = [*kept, *(len(want) + k for k in pairs)]
        wide = [*range(len(want)), *(len(want) + k for k in self.doubled(target))]
        made = made.reshape([made.shape[order.index(k)] if k in order else 1 for k in wide])
        for i, k in enumerate(self.doubled(target)):
            j = keep[k]
            if k not in pairs and (j is None or have[j] > 1) and not (j is None and joined):
                eye = np.eye(want[k])
                made = made * eye.reshape([want[k] if d in (k, len(want) + i) else 1 for d in range(len(wide))])
        return np.broadcast_to(made, [*want, *(want[k] for k in self.doubled(target))])

    def table(self, name: str, values: Array, keep: Sequence[int | None]) -> Array:
        """Second moments of the entries of a table, less what all of them share; axis k is ``keep[k]`` of the table."""
        shape, rank = self.shape(name), values.ndim
        lost = tuple(j for j in range(rank) if j not in keep)
        values = values.astype(np.float64)
        values = values - values.mean(axis=lost, keepdims=True)
        twice = [k for k in self.doubled(name) if keep[k] is not None]
        pairs = [keep[k] for k in twice]
        written = [j for k, j in enumerate(keep) if j is not None and shape[k] == values.shape[j]]
        out = [*written, *(rank + j for j in pairs if j is not None)]
        made = np.einsum(
            values, list(range(rank)), values, [rank + j if j in pairs else j for j in range(rank)], out, optimize=True
        )
        made = made / prod(values.shape[j] for j in range(rank) if j not in written)
        wide = [n if keep[k] in written else 1 for k, n in enumerate(shape)]
        made = made.reshape([*wide, *(shape[k] if k in twice else 1 for k in self.doubled(name))])
        for i, k in enumerate(self.doubled(name)):
            if k not in twice:
                made = made * np.eye(shape[k]).reshape(
                    [shape[k] if d in (k, len(shape) + i) else 1 for d in range(made.ndim)]
                )
        return np.broadcast_to(made, [*shape, *(shape[k] for k in self.doubled(name))])


SUMS = frozenset({"Add", "Sub", "Sum", "Mean", "Max", "Min", "Where"})
GATES = frozenset({"Sigmoid", "HardSigmoid", "Exp", "Cos", "Sign", "Reciprocal", "Softplus"})
UNBOUNDED = 1e6
"""Limits above this are none."""


class Elements:
    """The moments of the tensors of a program."""

    def __init__(self, layout: Layout, values: Mapping[str, Value]) -> None:
        self.layout, self.values, self.program = layout, values, layout.structure.program
        self.moving = Passages(self.program).moving
        self.found: dict[str, Array] = {}
        blocks = [step for step in self.program.steps if step.node.op == PACKED]
        self._levels = {name for step in blocks for name in step.results} - self.moving
        read = [(step, n) for step in blocks if self.moving.issuperset(step.results) for n in step.operands]
        self._packed = {name: step.node for step, name in read if name in self._levels}

    # -- tensors --------------------------------------------------------------------------------------------------
    def ones(self, name: str) -> Array:
        """Elements of size one that have nothing to do with each other."""
        return self.layout.spread(name, np.ones(()))

    def number(self, name: str) -> Array | None:
        """The value of a tensor that depends on no input."""
        if name in self._packed:
            made, shape = unpacked(self.program.model, self._packed[name]), self.program.shapes[name]
            return None if made is None else made[0][: shape[0], : shape[1]]
        value = self.values.get(name)
        if name in self.moving or value is None or value.bases is not None:
            return None
        number, shape = np.asarray(value.scale), self.program.shapes[name]
        return (
            np.broadcast_to(number, shape)
            if all(a in (1, b) for a, b in zip(number.shape, shape, strict=True))
            else None
        )

    def unknown(self, name: str) -> bool:
        """Whether the moments of a tensor are found step by step: it depends on the inputs, or has no known value."""
        return name in self.moving or (name not in self._levels and self.number(name) is None)

    def of(self, name: str) -> Array:
        """The second moments of a tensor; inputs are of size one."""
        if name not in self.found:
            number = self.number(name)
            self.found[name] = self.ones(name) if number is None else self.layout.outer(name, number)
        return self.found[name]

    def squares(self, name: str) -> Array:
        """The squares of a tensor's elements."""
        return self.layout.diagonal(name, self.of(name))

    def put(self, name: str, square: Array) -> None:
        """Remember the moments of a tensor."""
        self.found[name] = self.layout.levelled(name, self.layout.masked(name, square))

    # -- functions of elements ---------------------------------------------------------------------------------------
    def lanes(self, step: Pointwise) -> list[int]:
        """The operands through which paths lead; of a constant without a known value, all that it is made of."""
        degrees = step.law.degrees or (None,) * len(step.operands)
        summed = step.law.kind != "product"
        return [
            k
            for k, name in enumerate(step.operands)
            if (name in self.moving or step.out not in self.moving)
            and k >= _conditions(step)
            and (summed or degrees[k] is not None)
        ]

    def plain(self, step: Pointwise) -> Array:
        """The moments of the sum or product of the operands."""
        lanes = self.lanes(step)
        if not lanes:
            return self.ones(step.out)
        if step.law.kind == "product":
            return np.asarray(prod((self.factor(step, k) for k in range(len(step.operands))), start=np.ones(())))
        if step.law.kind != "sum" and step.function not in SUMS:
            lanes = lanes[:1]
        return np.asarray(sum((self.wide(step, k) for k in lanes), start=np.zeros(())))

    def passed(self, step: Pointwise) -> Array:
        """What a function leaves of its argument, element by element."""
        squares = self.layout.diagonal(step.out, np.broadcast_to(self.plain(step), self.of_shape(step.out)))
        if step.law.kind == "none" and step.function in GATES:
            return root(squares, -1.0)
        if self.bound(step):
            return self.slope(step)
        values = step.operands[_conditions(step) :]
        added = [n for n in values if n in self.program.tables and self.program.tables[n].size == 1]
        if step.function in SUMS and added and step.out not in self.layout.structure.compensated:
            more = sum(float(self.program.tables[n].reshape(-1)[0].astype(np.float64)) ** 2 for n in added)
            return np.where(squares > 0, (1.0 + more * root(squares, -2.0)) ** 0.5, 0.0)
        return np.ones(())

    def bound(self, step: Pointwise) -> float:
        """The largest value of a bounded function; 0 of others."""
        if step.law.kind == "none" and (step.function in GATES or step.known.parity is Parity.ODD):
            return 1.0
        node, constants = step.node, self.program.model.constants
        limits = [node.attributes[x] for x in ("min", "max") if x in node.attributes]
        limits += [float(constants[x].reshape(-1)[0]) for x in node.inputs[1:] if x in constants and constants[x].size]
        top = max(map(abs, limits), default=0.0)
        return float(top) if step.function == "Clip" and len(limits) == 2 and top < UNBOUNDED else 0.0

    def slope(self, step: Pointwise) -> Array:
        """What a bounded function leaves of a small change of its argument."""
        plain = np.broadcast_to(self.plain(step), self.of_shape(step.out))
        return np.asarray((1.0 + self.layout.diagonal(step.out, plain) / self.bound(step) ** 2) ** -0.5)

    def of_shape(self, name: str) -> tuple[int, ...]:
        """The shape of the moments of a tensor."""
        shape = self.layout.shape(name)
        return (*shape, *(shape[k] for k in self.layout.doubled(name)))

    def keep(self, step: Pointwise, k: int) -> list[int | None]:
        """The axis of an operand that each axis of the result is."""
        lead = len(self.program.shapes[step.out]) - len(self.program.shapes[step.operands[k]])
        return [None] * lead + list(range(len(self.program.shapes[step.operands[k]])))

    def wide(self, step: Pointwise, k: int) -> Array:
        """The moments of an operand in the layout of the result."""
        name = step.operands[k]
        return self.layout.carry(name, step.out, self.of(name), self.keep(step, k))

    def factor(self, step: Pointwise, k: int) -> Array:
        """What an operand multiplies the moments of a product with."""
        name, degree = step.operands[k], step.law.degrees[k]
        number = self.number(name)
        if degree is None:
            return np.ones(())
        if number is not None:
            wide = number.astype(np.float64)
            bent = np.where(wide == 0, 0.0, np.abs(wide) ** float(degree) * np.sign(wide))
            return self.layout.outer(step.out, bent)
        if degree == 1:
            return self.wide(step, k)
        bent = self.layout.scaled(name, self.of(name), root(self.squares(name), float(degree) - 1.0))
        return self.layout.carry(name, step.out, bent, self.keep(step, k))


def _conditions(step: Pointwise) -> int:
    """How many operands say which of the others is taken."""
    return 1 if step.function == "Where" else 0


def root(squares: Array, power: float) -> Array:
    """A power of the roots of squares; zero stays zero."""
    return np.where(squares > 0, np.where(squares > 0, squares, 1.0) ** (power / 2), 0.0)
