"""Tensors as affine functions of a normalised vector, gains and biases on the way included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod, sqrt

import numpy as np

from symlint.analysis.bounds.radius import radii
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import NORMS, Numbers, Truth, exactly
from symlint.program.steps import Einsum, Normalise, Program, Slice, Step

WIDEST = 2048
"""Longer vectors are left alone: the cost grows with the cube of their length."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A tensor for vectors no longer than the radius: axis 0 of `linear` belongs to the vectors that were put in."""

    radius: float
    centred: bool
    linear: Array
    offset: Array


class Normalised:
    """The tensors of a program that are made of one normalised vector by linear steps."""

    def __init__(self, program: Program, numbers: Numbers) -> None:
        self.program, self.numbers, self.truth = program, numbers, Truth(program)
        self.makers: Mapping[str, Step] = {name: step for step in program.steps for name in step.results}
        self._radii: Mapping[str, float] | None = None

    def affine(self, name: str, probes: int) -> Affine | None:
        """A tensor by what it makes of a basis of the vectors, or of as many random ones as asked for."""
        chain = self._chain(name)
        if chain is None:
            return None
        norm, steps = chain
        whole = self.program.shapes[norm.out]
        count, radius = prod(whole[a] for a in norm.axes), self._radius(norm)
        if radius is None or count > WIDEST or any(self.truth.free(whole[a]) for a in norm.axes):
            return None
        vectors = np.random.default_rng(count).standard_normal((probes, count)) if probes else np.eye(count)
        if norm.function == "standardise":
            vectors = vectors - vectors.mean(axis=1, keepdims=True)
        if probes:
            vectors *= radius / np.linalg.norm(vectors, axis=1, keepdims=True)
        shape = [n if a in norm.axes else 1 for a, n in enumerate(whole)]
        try:
            linear = self._carried(norm.out, steps, vectors.reshape(-1, *shape), 1)
            offset = self._carried(norm.out, steps, np.zeros(shape), 0)
        except (KeyError, TypeError, ArithmeticError, ValueError):
            return None
        return Affine(radius, norm.function == "standardise", linear, offset)

    def _radius(self, norm: Normalise) -> float | None:
        if norm.function not in ("rms", "standardise", "l2"):
            return None
        if norm.node.op in NORMS:
            whole = self.program.shapes[norm.out]
            return sqrt(prod(whole[a] for a in norm.axes)) if norm.function != "l2" else 1.0
        if self._radii is None:
            self._radii = radii(self.program)
        return self._radii.get(norm.out)

    def _chain(self, name: str) -> tuple[Normalise, list[Step]] | None:
        """The normalisation from which a tensor is made by linear steps, and these in order."""
        steps: list[Step] = []
        while True:
            step = self.makers.get(name)
            if isinstance(step, Normalise):
                return step, steps[::-1]
            linear = isinstance(step, (Einsum, Slice)) or _scales(step)
            if step is None or not linear or not (exactly(step) or step.node.op.endswith("Attention")):
                return None
            moving = [n for n in step.operands if n not in self.program.fixed]
            divided = step.function == "Div" and moving[:1] != [step.operands[0]]
            if len(moving) != 1 or divided:
                return None
            steps.append(step)
            name = moving[0]

    def _carried(self, source: str, steps: Sequence[Step], x: Array, lead: int) -> Array:
        """What linear steps make of vectors with an axis of their own in front, or of nothing but their biases."""
        arrays = {source: x}
        for step in steps:
            given = dict(arrays)
            if not lead:
                given |= {n: self.numbers.value(n) for n in step.operands if n in self.program.fixed}
            arrays = self.numbers.apply(step, given, lead)
        return next(iter(arrays.values()))


def _scales(step: Step | None) -> bool:
    return step is not None and (step.known.sums or step.function in ("Mul", "Div", "Identity"))
