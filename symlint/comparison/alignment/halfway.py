"""Halfway: elements by which the average of two trainings puts out what both do, on random inputs.

The distance of weights does not say what their average computes: what two matched units do not share cancels, and how
that adds up from layer to layer depends on scales and matrices that keep either network as it is. These are followed
down the squares of what is between the outputs of the average and the average of the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from symlint.comparison.alignment.gauge import inside
from symlint.comparison.alignment.pair import Evidence, Move, Pair, grouped, sizes_of
from symlint.comparison.alignment.slopes import Course, Unknowable
from symlint.model.graph import Array
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap
from symlint.symmetry.actions.scaling import UnitRescaling
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.motion.motion import Weights, across_ones
from symlint.symmetry.structure import Action

STEPS, WORK = (50, 200), 1 << 29
"""Steps of the descent, which visit this many numbers in all; where that is too few there is none."""
DRAWS, ZEROS = 4, 0.5
"""Draws of inputs a step, and the share of their numbers that is zero, as much of real inputs is."""
RATE, KEPT, SPREAD = 0.03, 0.9, 0.99
"""Of Adam: the first step of a unit, and how much of mean and square stays."""


def halfway(pair: Pair) -> list[Move]:
    """Move the second network of a pair to where the average of both computes the most of what they do."""
    return Descent(pair).moves()


class Descent:
    """Adam along the elements of scales and matrices."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.evidence, self.rng = pair, Evidence(pair), np.random.default_rng(0)
        structure = pair.structure
        self.actions = [
            a
            for a in structure.actions.values()
            if isinstance(a, InvertibleMap | OrthogonalMap)
            or (isinstance(a, UnitRescaling) and not inside(structure, a) and not a.offsets)
        ]
        self.means: dict[str, Array] = {}
        self.squares: dict[str, float] = {}

    def moves(self) -> list[Move]:
        """All steps; none where it is not known how outputs answer to weights, and where the average is no better."""
        program, before, made = self.pair.structure.program, dict(self.pair.current.now), list[Move]()
        cost = DRAWS * sum(int(np.prod(shape, dtype=np.int64)) for shape in program.shapes.values())
        steps = min(WORK // max(cost, 1), STEPS[1])
        if steps < STEPS[0] or not self.actions or program.batch_norms:
            return []
        try:
            gap = self.gap()
            for k in range(steps):
                made += self.step(k, steps)
            if self.gap() < gap:
                return made
        except (Unknowable, np.linalg.LinAlgError):
            pass
        self.pair.current.now = before
        return []

    def gap(self) -> float:
        """Of draws of their own, what is between the outputs of the average and the average of the outputs."""
        return sum(self._drawn(np.random.default_rng(1 + k))[0] for k in range(DRAWS))

    def step(self, k: int, steps: int) -> list[Move]:
        """One step down, over all generators at once."""
        sums: dict[str, Array] = {}
        for _ in range(DRAWS):
            for name, slope in self._drawn(self.rng)[1].items():
                sums[name] = sums.get(name, 0.0) + slope
        rate = RATE * (1 + np.cos(np.pi * k / steps)) / 2
        made = []
        for action, slope in [(a, self._slope(a, sums)) for a in self.actions]:
            mean = KEPT * self.means.get(action.id, 0.0) + (1 - KEPT) * slope
            square = SPREAD * self.squares.get(action.id, 0.0) + (1 - SPREAD) * float(np.mean(slope**2))
            self.means[action.id], self.squares[action.id] = mean, square
            root = (square / (1 - SPREAD ** (k + 1))) ** 0.5
            if root > 0 and np.isfinite(root):
                made.append(Move(action, self._element(action, -rate / (1 - KEPT ** (k + 1)) * mean / root)))
        for move in made:
            move.apply(self.pair.current)
        return made

    def _element(self, action: Action, tangent: Array) -> Array:
        from scipy.linalg import expm

        form = action.shape(self.pair.structure)
        if isinstance(action, UnitRescaling):
            return np.exp(tangent).reshape(form)
        return np.asarray(expm(tangent / form[-1] ** 0.5)).reshape(*form, form[-1])

    def draw(self, rng: np.random.Generator) -> tuple[dict[str, Array], dict[str, Array]]:
        """Inputs half of which are zero, and what lookups take from where, if that is not drawn as they are met."""
        shapes = self.pair.structure.program.shapes
        drawn = {name: rng.standard_normal(shapes[name]) for name in self.pair.structure.program.inputs}
        return {name: values * (rng.random(values.shape) < ZEROS) for name, values in drawn.items()}, {}

    def _drawn(self, rng: np.random.Generator) -> tuple[float, dict[str, Array]]:
        """What is between the outputs in one draw, and its slopes along the weights of the second network."""
        program, (inputs, chosen) = self.pair.structure.program, self.draw(rng)
        sides = [self._weights(side) for side in (self.pair.target, self.pair.current)]
        between = {name: (values + sides[1][name]) / 2 for name, values in sides[0].items()}
        made = [Course(program, weights, chosen, rng) for weights in (*sides, between)]
        one, two, half = (course.outputs(inputs) for course in made)
        gap, ends = 0.0, {}
        for name, values in half.items():
            aim = (one[name] + two[name]) / 2
            size = float(np.sum(np.square(aim - aim.mean(axis=0)))) or 1.0
            ends[name] = 2 * (values - aim) / size
            gap += float(np.sum(np.square(values - aim))) / size
        return gap, made[2].slopes(ends)

    def _weights(self, side: Weights) -> dict[str, Array]:
        return {name: side.get(name) for name in self.pair.structure.program.weights}

    def _slope(self, action: Action, slopes: Mapping[str, Array]) -> Array:
        """The slope along the elements of a generator near the neutral one."""
        form = action.shape(self.pair.structure)
        count, n = int(np.prod(sizes_of(self.pair.structure, action), dtype=np.int64)), form[-1]
        matrix = not isinstance(action, UnitRescaling)
        total = np.zeros((count, n, n) if matrix else (count, n))
        for power, one, two in self._met(action, slopes):
            if matrix:
                cross = np.matmul(one.swapaxes(-1, -2), two)
                total += cross if power > 0 else -cross.swapaxes(-1, -2)
            else:
                total += power * np.sum(one * two, axis=1)
        if isinstance(action, OrthogonalMap):
            total = (total - total.swapaxes(-1, -2)) / 2
            across = across_ones(n) if action.fixes_ones else np.eye(n)
            total = across @ (across.T @ total @ across) @ across.T
        return total

    def _met(self, action: Action, slopes: Mapping[str, Array]) -> Iterator[tuple[float, Array, Array]]:
        """Where a generator meets weights: its power, and lines of their slopes and of the weights."""
        sizes = sizes_of(self.pair.structure, action)
        for stored, name, stands in self.evidence.stands(action):
            powers, weight = action.powers(name), self.pair.current.get(name)
            for stand in stands if powers else ():
                power = powers.get((stand.axis, stand.term, stand.place))
                if not power:
                    continue
                one, two = (grouped(values, stand, sizes) for values in (self._sum(stored, slopes), weight))
                frames = self.evidence.frames(action, Occurrence(name, stand.axis, stand.term, stand.place), power)
                if frames is not None:
                    one, two = one / frames[1], two * frames[1]
                yield float(power), one, two

    def _sum(self, stored: str, slopes: Mapping[str, Array]) -> Array:
        names = [n for n, s in self.pair.structure.program.weights.items() if s == stored]
        start = self.pair.current.get(names[0])
        return np.asarray(sum((slopes[n] for n in names if n in slopes), np.zeros(start.shape)))
