"""Gauges that a quantiser rounds least: exact moves, each kept only if what onnxruntime makes of the network gains.

Scales: the balance of units. Order: units of like size stand in one block. Rotations: of what lies between linear maps,
such as values and outputs of heads, and of normalised streams, whose gains go into their readers; no weight is then
much larger than the others. A rotation starts as a Hadamard matrix and descends on the fourth powers of the weights.
Channels: what is read is made smaller where the calibration inputs make it large, and the weights that read it larger.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (ICCV 2019); Ashkboos et
al., QuaRot (NeurIPS 2024); Liu et al., SpinQuant (ICLR 2025); Xiao et al., SmoothQuant (ICML 2023), Equation 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from math import prod
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from symlint.model.graph import Array
from symlint.model.load import load
from symlint.model.naming import Names
from symlint.model.records import dataclass
from symlint.model.saving import write
from symlint.program.translate import lowered
from symlint.repair.canonical import Form
from symlint.runtime.precision import BITS, BLOCK
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap, Rotation
from symlint.symmetry.actions.scaling import Rescaling, TensorRescaling
from symlint.symmetry.gauge.scales import balanced, quantised
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.motion import across_ones
from symlint.symmetry.structure import Structure

GAIN = 0.5
"""Decibels that a move has to gain, on average and without a loss on any set of inputs: less is lost on others."""
SURE = 3.0
"""Standard deviations of the gains of sets of inputs that their average has to be: other sets differ as much."""
TURNS = 40
"""Steps of the descent of a rotation."""
ROWS = 4096
"""Rows of weights that a rotation is chosen by, at most."""
WIDEST = 2048
"""Units that are rotated, at most."""
SMOOTH = 0.5
"""The share of what channels differ in that goes from the values into the weights."""
MOST = 1e4
"""How much one channel may be scaled against the others."""
Move = Callable[[Structure, "Judge"], Mapping[str, Array]]


class Judge(Protocol):
    """What runs quantised files, as `Quantiser` does."""

    target: str

    def decibels(self, path: Path) -> tuple[float, ...] | None:
        """Signal to noise on each set of inputs."""

    def sizes(self, path: Path, values: Mapping[str, int]) -> Mapping[str, Array]:
        """The largest sizes of values of a file along one axis each."""


@dataclass
class Sought:
    """What the search has come to."""

    path: Path
    before: float
    """Signal to noise of the outputs, in decibels, the mean of the sets of inputs."""
    after: float
    tried: list[tuple[str, float, bool]] = field(default_factory=list)
    """Each kind of move with what it gained, and whether it was made."""
    layers: list[tuple[str, float, float]] = field(default_factory=list)
    """Layer, and signal to noise of its weights before and after, the one that gains most first."""

    @property
    def kept(self) -> str:
        """Why the weights stay where they are."""
        told = ", ".join(f"{name} {gain:+.1f}" for name, gain, _ in self.tried) or "none that changes anything"
        return (
            f"quantised, the outputs have {self.before:.1f} dB of signal to noise, and no move gains {GAIN} and"
            f" is sure to on other inputs: {told}"
        )

    @property
    def gains(self) -> tuple[str, ...]:
        """It in lines."""
        told = [f"{name} {gain:+.1f} dB{'' if made else ' (not made)'}" for name, gain, made in self.tried]
        lines = [f"quantised, the outputs have {self.before:.1f} dB of signal to noise, and {self.after:.1f} dB after"]
        lines += [f"  {', '.join(told)}"] if told else []
        return (*lines, *(f"  weights of {n}: {a:.1f} dB before, {b:.1f} dB after" for n, a, b in self.layers[:8]))


def sought(start: Path, others: Mapping[str, Path], judge: Judge, folder: Path) -> Sought | None:
    """The file that the quantiser rounds least; None where it cannot be told.

    Args:
        start: the network.
        others: the same in gauges that are there already, by what was done.
        judge: of files that compute the same.
        folder: where files are made.
    """
    first = judge.decibels(start)
    if first is None:
        return None
    found, least = Sought(start, float(np.mean(first)), float(np.mean(first))), first
    moves: list[tuple[str, Path | Move]] = [*others.items(), *MOVES[judge.target]]
    for number, (name, move) in enumerate(moves):
        path = move if isinstance(move, Path) else _moved(found.path, move, judge, folder / f"gauge{number}.onnx")
        now = None if path is None else judge.decibels(path)
        if path is None or now is None:
            continue
        gains = np.subtract(now, least)
        # What is there already mends a finding of the weights; of the others nothing speaks for them but these inputs.
        sure = 0.0 if isinstance(move, Path) else SURE * float(gains.std(ddof=1))
        made = bool(gains.min() >= 0 and gains.mean() >= max(GAIN, sure))
        found.tried.append((name, float(gains.mean()), made))
        if made:
            found.path, found.after, least = path, float(np.mean(now)), now
    found.layers = _layers(start, found.path, judge.target) if found.path != start else []
    return found


def _moved(path: Path, move: Move, judge: Judge, out: Path) -> Path | None:
    """A file in another gauge; None where the move does nothing."""
    structure = examine(load(str(path)))[1]
    values = {} if quantised(structure.program.model.graph) else move(structure, judge)
    if not values:
        return None
    write(path, values, out)
    return out


def _ordered(structure: Structure, _judge: Judge) -> Mapping[str, Array]:
    """Units in the order of the size of what reads them, where that stands in blocks along them."""
    form = Form(structure)
    for action in form.all(UnitPermutation):
        met = [one for one in form.met(action) if len(structure.program.shapes[one.name]) == 2 and one.stand.axis == 0]
        if met and prod(action.shape(structure)) > BLOCK:
            squares = [form.sums(action, [one], 2) for one in met]
            keys = sum(one / max(float(one.mean()), np.finfo(float).tiny) for one in squares)
            action.move(form.weights, np.argsort(-np.asarray(keys), axis=-1, kind="stable"))
    return form.values()


def _between(structure: Structure, _judge: Judge) -> Mapping[str, Array]:
    """What lies between linear maps, as large on both sides, and rotated."""
    form = Form(structure)
    for action in form.all(InvertibleMap):
        if action.shape(structure)[-1] <= WIDEST:
            action.move(form.weights, form.balancing(action))
            action.move(form.weights, _turned(form, action))
    return form.values()


def _streams(structure: Structure, _judge: Judge) -> Mapping[str, Array]:
    """Normalised streams rotated, their gains in what reads them."""
    form = Form(structure)
    if not form.all(OrthogonalMap):
        return {}
    form.absorb()
    for action in form.all(OrthogonalMap):
        if action.shape(structure)[-1] <= WIDEST:
            action.move(form.weights, _turned(form, action))
    return form.values()


def _scaled(structure: Structure, _judge: Judge) -> Mapping[str, Array]:
    return balanced(structure)


def _least(structure: Structure, _judge: Judge) -> Mapping[str, Array]:
    return balanced(structure, "norm")


def _smoothed(structure: Structure, judge: Judge) -> Mapping[str, Array]:
    """What matrices and kernels read, channel by channel nearer to their own size."""
    form, left = Form(structure), set[Reading]()
    free = [action for action in structure.rescalings if not isinstance(action, TensorRescaling)]
    met = [(action, _readings(form, action)) for action in free]
    values = {one.value: one.axis for _, those in met for one in those}
    sizes = judge.sizes(Path(structure.program.model.path), values)
    for action, readings in met:
        *copies, n = action.shape(structure)
        if (
            not readings
            or prod(copies) > 1
            or left & {*readings}
            or any(len(sizes.get(r.value, ())) != n for r in readings)
        ):
            continue
        left.update(readings)
        rows = {one.name: one for one in form.met(action)}
        large = np.max([sizes[one.value] for one in readings], 0)
        weights = np.max([np.abs(rows[one.weight].rows).max(0) for one in readings], 0)
        live = (large > 0) & (weights > 0)
        if live.any():
            ratio = np.where(live, large**SMOOTH / np.where(live, weights, 1) ** (1 - SMOOTH), 1)
            middle = float(np.exp(np.log(ratio[live]).mean()))
            by = np.where(live, np.clip(ratio / middle, 1 / MOST, MOST), 1)
            power = rows[readings[0].weight].power
            action.move(form.weights, by.reshape(action.shape(structure)) ** (1 / power))
    return form.values()


class Reading(NamedTuple):
    """A weight that reads the units of a space, and where they come from."""

    weight: str
    value: str
    """Of the model."""
    axis: int


def _readings(form: Form, action: Rescaling) -> list[Reading]:
    """The weights that read what an action scales, each with the value that it reads."""
    program, found = form.structure.program, list[Reading]()
    names = {ref.name: value for value, ref in lowered(program).values.items()}
    windows = {step.out: step for step in program.mixes}
    for one in form.met(action):
        for step in (s for s in program.contractions if one.name in s.operands and s.product and len(s.operands) == 2):
            mine = step.operands.index(one.name)
            label = step.specs[mine][one.stand.axis]
            other, spec = step.operands[1 - mine], step.specs[1 - mine]
            if label in spec and not step.kept & {*label} and len(label) == 1:
                axis: int | None = spec.index(label)
                while other not in names and axis is not None and other in windows:
                    other, axis = windows[other].x, windows[other].keep[axis]
                if other in names and axis is not None:
                    found.append(Reading(one.name, names[other], axis))
    return found


MOVES: Mapping[str, tuple[tuple[str, Move], ...]] = {
    "int8": (
        ("scales", _scaled),
        ("channels", _smoothed),
        ("rotations between layers", _between),
        ("rotations of streams", _streams),
    ),
    "int4": (
        ("scales", _least),
        ("channels", _smoothed),
        ("rotations between layers", _between),
        ("rotations of streams", _streams),
        ("order of units", _ordered),
    ),
}
"""What is tried for a target, one after another."""


def _turned(form: Form, action: Rotation) -> Array:
    """A rotation of each copy, under which the fourth powers of the weights are small."""
    shape = action.shape(form.structure)
    n = shape[-1]
    fixing = isinstance(action, OrthogonalMap) and action.fixes_ones
    across = across_ones(n) if fixing else np.eye(n)
    wide = [one for one in form.met(action) if len(form.structure.program.shapes[one.name]) > 1]
    rng = np.random.default_rng(0)
    made = np.broadcast_to(np.eye(n), (prod(shape[:-1]), n, n)).copy()
    for copy in range(len(made)):
        parts = [one.rows[one.owner == copy] for one in wide]
        rows = [part / max(float(np.abs(part).std()), np.finfo(float).tiny) for part in parts if part.any()]
        if rows and across.shape[1] > 1:
            stacked = np.concatenate(rows) @ across
            chosen = stacked[rng.permutation(len(stacked))[:ROWS]]
            turn = _descended(chosen, _hadamard(across.shape[1], rng))
            made[copy] = across @ turn.T @ across.T + (np.eye(n) - across @ across.T)
    return made.reshape(*shape, n)


def _hadamard(n: int, rng: np.random.Generator) -> Array:
    """An orthogonal matrix of entries of one size, as far as powers of two divide n, with random signs."""
    odd = n
    made = np.eye(1)
    while odd % 2 == 0:
        made, odd = np.kron(np.array([[1, 1], [1, -1]]) / np.sqrt(2), made), odd // 2
    rest, _ = np.linalg.qr(rng.standard_normal((odd, odd)))
    return np.asarray(rng.choice([-1.0, 1.0], n)[:, None] * np.kron(rest, made))


def _descended(rows: Array, turn: Array) -> Array:
    """A rotation near one, under which the fourth powers of rows are less: descent along skew matrices."""
    now = rows @ turn
    least, step, n = float((now**4).sum()), 0.3, len(turn)
    for _ in range(TURNS):
        slope = now.T @ now**3
        skew = slope - slope.T
        size = float(np.abs(skew).max())
        if not size or step < 1e-3:
            break
        half = 0.5 * step * skew / size / np.sqrt(n)
        tried = np.linalg.solve(np.eye(n) - half, np.eye(n) + half)
        then = now @ tried
        if (total := float((then**4).sum())) < least:
            turn, now, least, step = turn @ tried, then, total, step * 1.5
        else:
            step /= 2
    return turn


def _layers(before: Path, after: Path, target: str) -> list[tuple[str, float, float]]:
    """What rounding in the steps of a target leaves of each weight in two files, where that differs."""
    models = [load(str(path)) for path in (before, after)]
    names, found = Names(models[0]), list[tuple[str, float, float]]()
    for name, tensor in models[0].tensors.items():
        other = models[1].tensors.get(name)
        if other is not None and tensor.floating and len(tensor.shape) > 1 and tensor.shape == other.shape:
            one, two = (_noise(t.read().astype(np.float64), target) for t in (tensor, other))
            if abs(one - two) > GAIN:
                found.append((names.layer(name), one, two))
    return sorted(found, key=lambda one: one[1] - one[2])


def _noise(values: Array, target: str) -> float:
    """Signal to noise, in decibels, of a weight rounded with one step, or with one for each block along its rows."""
    steps, blocks = 2 ** (BITS[target] - 1) - 1, values.reshape(1, -1)
    if target == "int4":
        rows = np.moveaxis(values, -2, -1)
        room = -rows.shape[-1] % BLOCK
        blocks = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, room)]).reshape(-1, BLOCK)
    step = np.abs(blocks).max(axis=1, keepdims=True) / steps
    step[step == 0] = 1
    gap = np.square(np.round(blocks / step) * step - blocks).sum()
    return float(-10 * np.log10(max(gap / max(np.square(values).sum(), np.finfo(float).tiny), 1e-16)))
