"""Balance: put the weights where rounding them to few bits costs least, among all places that rescalings lead to.

Where nothing is known of the data, all weights of the minimum-norm gauge count alike: there, what writes a unit is
as large as what reads it. A tensor that one step size rounds makes the same error in each of its elements. Seen from
the minimum-norm gauge, the error of an element is that step divided by how much the gauge has scaled the element. The
gauge chosen has the least product, over all tensors, of these errors' mean squares. It depends on the function alone:
wherever rescalings have taken the weights, they come back to the same place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import median
from symlint.model.graph import Array, Graph
from symlint.model.records import dataclass
from symlint.symmetry.gauge.convex import CLOSE, Table, minimum, pulls, table
from symlint.symmetry.gauge.scales import Scales, two_sided
from symlint.symmetry.structure import Structure

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
