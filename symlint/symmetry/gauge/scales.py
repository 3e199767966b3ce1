"""The free scales of a network, numbered one by one, and where they meet its weights.

Balance: put the weights where rounding them to few bits costs least, among all places that rescalings lead to.

Where nothing is known of the data, all weights of the minimum-norm gauge count alike: there, what writes a unit is
as large as what reads it. A tensor that one step size rounds makes the same error in each of its elements. Seen from
the minimum-norm gauge, the error of an element is that step divided by how much the gauge has scaled the element. The
gauge chosen has the least product, over all tensors, of these errors' mean squares. It depends on the function alone:
wherever rescalings have taken the weights, they come back to the same place.

Weights seen from another gauge, and the spaces that share weights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import median
from symlint.model.graph import Array, Graph
from symlint.model.records import dataclass
from symlint.symmetry.actions.scaling import Rescaling, TensorRescaling
from symlint.symmetry.charges.unknowns import Charge
from symlint.symmetry.gauge.convex import CLOSE, Hold, Table, minimum, pulls, table
from symlint.symmetry.kinds.branches import components
from symlint.symmetry.kinds.whole import whole
from symlint.symmetry.motion.action import Index
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure


@dataclass(frozen=True)
class Scales:
    """The scales of some rescalings, one after another."""

    structure: Structure
    actions: Sequence[Rescaling]

    @cached_property
    def numbers(self) -> tuple[Index, ...]:
        """For every action, the numbers of its scales in the shape of its elements."""
        shapes = [a.shape(self.structure) for a in self.actions]
        ends = np.cumsum([int(np.prod(s, dtype=np.int64)) for s in shapes])
        return tuple(np.arange(e - np.prod(s, dtype=np.int64), e).reshape(s) for s, e in zip(shapes, ends, strict=True))

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return sum(n.size for n in self.numbers)

    @cached_property
    def groups(self) -> Index:
        """For every scale the action that it is of, shape (count,)."""
        return np.repeat(np.arange(len(self.numbers)), [n.size for n in self.numbers])

    def tensors(self) -> list[str]:
        """The weights of the program that scales move, and the scales of its batch normalisations, without biases.

        What is added to a sum is rounded far more finely than what is multiplied, so that its size is of no concern.
        """
        summands = added(self.structure)
        return [n for n in self._moving if _sized(self.structure, n) and n not in summands]

    @cached_property
    def _moving(self) -> dict[str, list[tuple[Rescaling, Index]]]:
        """Tensor -> the actions that scale it, with the numbers of their scales."""
        found: dict[str, list[tuple[Rescaling, Index]]] = {}
        for action, numbers in zip(self.actions, self.numbers, strict=True):
            for name in dict.fromkeys(o.tensor for o in action.charge):
                found.setdefault(name, []).append((action, numbers))
        return found

    def size(self, name: str) -> Array:
        """The size of each element of a weight, in float64; of a batch normalisation, gain / sqrt(var + epsilon)."""
        program = self.structure.program
        if name in program.weights:
            return np.abs(self._read(name)).reshape(program.shapes[name])
        step = program.affines[name]
        return np.abs(self._read(step.gain) / np.sqrt(self._read(step.var) + step.epsilon)).reshape(
            program.shapes[name]
        )

    def _read(self, name: str) -> Array:
        program = self.structure.program
        return program.model.tensors[program.weights[name]].read().astype(np.float64)

    def holds(self, name: str) -> Iterator[Hold]:
        """Where scales meet a weight."""
        form = self.structure.program.shapes[name]
        for action, numbers in self._moving.get(name, ()):
            if isinstance(action, TensorRescaling):
                if power := action.charge.get(whole(name)):
                    yield Hold(numbers.reshape((1,) * len(form)), float(power))
                continue
            charge = action.powers(name)
            for s in action.stands(self.structure, name):
                if power := charge.get((s.axis, s.term, s.place)):
                    chosen = np.where(s.here, numbers[(*s.copies, s.units)], self.count)
                    full = np.broadcast_shapes(chosen.shape, (1,) * len(s.others) + s.grid.shape)
                    none = np.full(form[s.axis], self.count)
                    yield Hold(s.along(form, np.broadcast_to(chosen, full), none), float(power))

    def apply(self, logs: Array) -> dict[str, Array]:
        """All stored tensors after a move by scales of these logarithms, shape (count,), in float64."""
        tensors = self.structure.program.model.tensors
        weights = Weights(self.structure, lambda stored: tensors[stored].read())
        for action, numbers in zip(self.actions, self.numbers, strict=True):
            if logs[numbers].any():
                action.move(weights, np.exp(logs[numbers]))
        return weights.now


def two_sided(structure: Structure) -> list[Rescaling]:
    """The exact rescalings that let some weights grow while others shrink, biases aside.

    The others shrink everything that they move; their norm has no minimum, and no place of theirs is better.
    """
    summands = added(structure)

    def signs(charge: Charge) -> set[bool]:
        sized = (c > 0 for o, c in charge.items() if o.tensor not in summands and _sized(structure, o.tensor))
        return set(sized)

    return [a for a in structure.rescalings if len(signs(a.charge)) == 2]


def _sized(structure: Structure, name: str) -> bool:
    """Whether a tensor has a size of its own: what is made of a weight, as a reciprocal, has that of the weight."""
    return name in structure.program.weights or name in structure.program.affines


def added(structure: Structure) -> Collection[str]:
    """The weights that are summands, as they are or in another layout: the biases."""
    program = structure.program
    found: set[str] = set()
    queue = [n for step in program.elementwise if step.law.kind == "sum" for n in step.operands]
    for name in queue:
        if name not in program.fixed or name in found:
            continue
        found.add(name)
        if name in program.makers and name not in program.affines:
            queue += program.makers[name].operands
    return found


Aim = Literal["rounding", "norm"]
QUANTISED = ("Quant", "Dequant", "QLinear", "Integer", "QGemm", "QAttention", "QMoE", "QEmbed", "NBits", "Bnb4", "FpQ4")
"""Words in the names of operators that say that a network is quantised."""
HIGH = 16
"""The norm that stands for the largest element: it has a second derivative."""
PIN = 1e-4
"""How much the square of each logarithm counts beside the logarithms of the errors: it keeps what they do not see."""
ROUNDING = {"float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
FINE = 2.0**-23
SETTLED = 64
"""Scales within this many roundings of one are left alone."""


@dataclass(frozen=True)
class Place:
    """A place on the orbit of a network's weights, and the minimum-norm gauge, by the logarithms of the scales."""

    scales: Scales
    logs: Array
    least: Array
    dead: NDArray[np.bool_]
    """The scales without two sides, which stay."""
    values: Mapping[str, Array]
    """All stored tensors there that differ, in their stored dtype."""


def balanced(structure: Structure, aim: Aim = "rounding", actions: Collection[str] | None = None) -> dict[str, Array]:
    """New values, in their stored dtype, of the stored tensors that a balanced gauge changes; the function stays.

    Exact rescalings act, computed in float64 and rounded once. Units that nothing writes or nothing reads keep their
    scale, and so does whatever would leave the range of its dtype. Empty where the network is balanced to within
    rounding, has no rescalings, or is quantised.

    Args:
        aim: ``rounding`` for the least error of weights that are rounded tensor by tensor; ``norm`` for the least sum
            of squares of all weights but biases.
        actions: the rescalings that may act, by id; all of them by default.
    """
    tensors = structure.program.model.tensors
    found = place(structure, aim, actions)
    if found is None:
        return {}
    finest = max((ROUNDING.get(tensors[n].dtype, FINE) for n in found.values), default=FINE)
    return {} if np.abs(found.logs).max(initial=0) <= SETTLED * finest else dict(found.values)


def place(structure: Structure, aim: Aim, only: Collection[str] | None = None, close: float = CLOSE) -> Place | None:
    """The balanced gauge, to within a step of `close` in the logarithms; None without free scales."""
    if quantised(structure.program.model.graph):
        return None
    wild = _wild(structure)
    actions = [a for a in two_sided(structure) if only is None or a.id in only]
    actions = [a for a in actions if not any(o.tensor in wild for o in a.charge)]
    tensors = structure.program.model.tensors
    while actions:
        scales = Scales(structure, actions)
        logs, least, dead = _gauge(scales, aim, close)
        made: dict[str, Array] = {}
        for name, values in scales.apply(logs).items():
            with np.errstate(over="ignore"):
                made[name] = np.broadcast_to(values, tensors[name].shape).astype(tensors[name].read().dtype)
        kept = {n for n, v in made.items() if not np.isfinite(v.astype(np.float32)).all()}
        if not kept:
            changed = {n: v for n, v in made.items() if not np.array_equal(v, tensors[n].read())}
            return Place(scales, logs, least, dead, changed)
        actions = [a for a in actions if not any(kept & behind(structure, o.tensor) for o in a.charge)]
    return None


def gauge(scales: Scales, aim: Aim) -> Array:
    """The logarithms of the scales that lead to the balanced gauge, shape (count,); zero for dead units."""
    return _gauge(scales, aim, CLOSE)[0]


def least_norm(scales: Scales) -> tuple[Array, NDArray[np.bool_]]:
    """The logarithms of the scales that lead to the minimum-norm gauge, and which are dead and stay: shape (count,)."""
    squares = [table(scales.size(n) ** 2, list(scales.holds(n)), scales.count, 2) for n in scales.tensors()]
    dead, least = _least_norm(scales, squares, CLOSE)
    return least, dead


def _gauge(scales: Scales, aim: Aim, close: float) -> tuple[Array, Array, NDArray[np.bool_]]:
    """The logarithms that lead to the balanced and to the minimum-norm gauge, shape (count,), and the dead scales."""
    count = scales.count
    holds = {name: list(scales.holds(name)) for name in scales.tensors()}
    squares = [table(np.square(scales.size(n)), holds[n], count, 2) for n in holds]
    dead, least = _least_norm(scales, squares, close)
    if aim == "norm":
        return least, least, dead
    errors: list[Table] = []
    for name, met in holds.items():
        # Powers are taken of sizes relative to the largest, so that none vanishes or leaves the range of float64.
        size = scales.size(name)
        size /= size.max(initial=0) or 1.0
        errors.append(table(size**HIGH, met, count, HIGH, 2 / HIGH))
        errors.append(table((size > 0).astype(np.float64), met, count, -2))
    live = [t.without(dead) for t in errors]
    there = [t.moved(least) if t.p > 0 else t for t in live]
    return least + minimum(there, scales.groups, logarithms=True, pin=PIN, close=close), least, dead


def _least_norm(scales: Scales, squares: list[Table], close: float) -> tuple[NDArray[np.bool_], Array]:
    """Which scales are dead, and the logarithms that lead to the minimum-norm gauge.

    A scale is dead where one side of it is zero, or where both are below the noise of their dtype in the minimum-norm
    gauge, in which they are equal: that does not depend on where the weights were.
    """
    count = scales.count
    dead = np.zeros(count, bool)
    while True:
        while (fresh := _one_sided(squares, count) & ~dead).any():
            dead |= fresh
            squares = [t.without(dead) for t in squares]
        logs = minimum(squares, scales.groups, close=close)
        grows, _ = pulls([t.moved(logs) for t in squares], count)
        fresh = np.zeros(count, bool)
        for numbers in scales.numbers:
            live = numbers[~dead[numbers]]
            fresh[live] = grows[live] < FINE * median(grows[live]) if live.size else False
        if not fresh.any():
            return dead, logs
        dead |= fresh
        squares = [t.without(dead) for t in squares]


def _one_sided(squares: list[Table], count: int) -> NDArray[np.bool_]:
    grows, shrinks = pulls(squares, count)
    return np.asarray((grows == 0) | (shrinks == 0))


def _wild(structure: Structure) -> set[str]:
    """The weights, and scales of batch normalisations, with sizes that are not finite: no gauge of them is best."""
    program = structure.program
    tensors = program.model.tensors
    wild = {
        name
        for name, stored in program.weights.items()
        if tensors[stored].floating and not np.isfinite(tensors[stored].read().astype(np.float64)).all()
    }
    affines = program.affines.items()
    return wild | {name for name, step in affines if wild & {step.gain, step.bias, step.mean, step.var}}


def behind(structure: Structure, name: str) -> set[str]:
    """The stored tensors behind a weight of the program or a scale or shift of a batch normalisation."""
    program = structure.program
    if name in program.weights:
        return {program.weights[name]}
    step = program.affines.get(name)
    return {program.weights[n] for n in (step.gain, step.bias)} if step else set()


def quantised(graph: Graph) -> bool:
    """Whether a network holds quantised operators."""
    return any(word in node.op for node in graph.walk() for word in QUANTISED)


@dataclass(frozen=True, slots=True)
class Seen:
    """A weight as it is rounded: sizes of its elements, and where scales meet them."""

    sizes: Array
    holds: tuple[Hold, ...]

    def grown(self, logs: Array) -> Array:
        """How much scales of these logarithms, shape (count,), enlarge each element."""
        padded, total = np.append(logs, 0.0), np.zeros((1,) * self.sizes.ndim)
        for h in self.holds:
            total = total + h.power * padded[h.scales]
        return np.asarray(np.exp(total))

    def live(self, dead: NDArray[np.bool_]) -> Array:
        """Sizes, and zero where a dead scale meets them."""
        marked, met = np.append(dead, False), np.zeros((1,) * self.sizes.ndim, bool)
        for h in self.holds:
            met = met | marked[h.scales]
        return np.where(met, 0.0, self.sizes)


def chains(scales: Scales) -> Iterator[list[int]]:
    """The positions of actions that share weights, chain by chain."""
    count = len(scales.actions)
    neighbours: dict[int | str, list[int | str]] = {k: [] for k in range(count)}
    for k in range(count):
        for name in bearers(scales, k):
            neighbours[k].append(name)
            neighbours.setdefault(name, []).append(k)
    for part in components(neighbours):
        yield sorted(k for k in part if isinstance(k, int))


def bearers(scales: Scales, k: int) -> set[str]:
    """The weights, without biases, that an action moves, by its position."""
    return {o.tensor for o in scales.actions[k].charge} & set(scales.tensors())
