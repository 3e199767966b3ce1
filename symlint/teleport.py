"""Teleport: move the weights by random elements of the claimed groups; the function must stay the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from symlint.action import Index, Stand, permute, scale, stands, transform
from symlint.errors import UsageProblem
from symlint.graph import Array
from symlint.inference import Action, Structure
from symlint.program import Affine

HALVES = ("float16", "bfloat16")
SPREAD = float(np.log(3.0))
"""Largest logarithm of a scaling: a unit grows or shrinks at most threefold, and at least by a tenth."""


def select(structure: Structure, only: Collection[str] | None, kinds: Collection[str] | None) -> list[str]:
    """The generators that a user names, in order; a kind that the model lacks is no error.

    Raises UsageProblem for a generator that does not exist.
    """
    unknown = set(only or ()) - set(structure.actions)
    if unknown:
        raise UsageProblem(f"no generator {min(unknown)!r} in this model: see symlint inspect")
    return [
        name
        for name, action in structure.actions.items()
        if (not only or name in only) and (not kinds or action.kind in kinds)
    ]


def teleport(
    structure: Structure, generators: Collection[str], seed: int, *, wrong: bool = False, lifted: bool = False
) -> dict[str, Array]:
    """New values of every stored tensor that the generators move, in their stored dtype or with halves `lifted`.

    Elements are drawn from `seed` and applied one after another in float64, rounded once. Permutations have no fixed
    point. A `wrong` element moves the first tensor of each generator alone, which is no symmetry: it shows that a
    comparison of outputs has the power to refute.
    """
    weights = _Weights(structure)
    for name in generators:
        rng = np.random.default_rng([seed, *name.encode()])
        _move(structure, weights, structure.actions[name], rng, wrong=wrong)
    return weights.rounded(lifted=lifted)


@dataclass
class _Weights:
    """The weights on their way, in float64."""

    structure: Structure
    now: dict[str, Array] = field(default_factory=dict)

    def get(self, name: str) -> Array:
        """The present value of a weight of the program."""
        stored = self.structure.program.weights[name]
        if stored not in self.now:
            tensor = self.structure.program.model.tensors[stored]
            values = tensor.read()
            self.now[stored] = values.astype(np.float64) if tensor.floating else values.copy()
        return self.now[stored]

    def put(self, name: str, values: Array) -> None:
        """Replace a weight of the program."""
        self.now[self.structure.program.weights[name]] = values

    def rounded(self, *, lifted: bool) -> dict[str, Array]:
        """All weights that were touched, rounded to their stored dtype, or to float32 where that is a half."""
        tensors = self.structure.program.model.tensors
        dtypes = {name: tensors[name].read().dtype for name in self.now}
        if lifted:
            dtypes = {n: np.dtype(np.float32) if tensors[n].dtype in HALVES else d for n, d in dtypes.items()}
        return {name: values.astype(dtypes[name]) for name, values in self.now.items()}


def _move(structure: Structure, weights: _Weights, action: Action, rng: np.random.Generator, *, wrong: bool) -> None:
    factors = structure.axes.factors
    shape = (*(factors.size(c) for c in action.copies), factors.size(action.leaf))
    if action.kind == "permutation":
        order = _derangements(rng, shape)
        for name in _bearers(structure, action)[: 1 if wrong else None]:
            weights.put(name, permute(weights.get(name), _stands(structure, name, action), order))
        return
    factor = _factors(rng, shape, action.kind)
    act = transform if action.kind == "rotation" else scale
    moved = [name for name in dict.fromkeys(o.tensor for o in action.charge) if _movable(structure, name)]
    done: set[str] = set()
    for name in moved[: 1 if wrong else None]:
        if name in structure.program.affines:
            step = structure.program.affines[name]
            if step.gain not in done:
                done.add(step.gain)
                _affine(structure, weights, action, step, factor)
        else:
            charge = _charge(action, name)
            weights.put(name, act(weights.get(name), _stands(structure, name, action), factor, charge))


def _affine(structure: Structure, weights: _Weights, action: Action, step: Affine, factor: Array) -> None:
    """Scale and shift move; gain and bias follow, and the running statistics stay.

    scale = gain / sqrt(var + epsilon), shift = bias - mean scale.
    """
    root = np.sqrt(weights.get(step.var) + step.epsilon)
    mean = weights.get(step.mean)
    before = weights.get(step.gain) / root
    shift = weights.get(step.bias) - mean * before
    after = scale(before, _stands(structure, step.scale, action), factor, _charge(action, step.scale))
    shift = scale(shift, _stands(structure, step.shift, action), factor, _charge(action, step.shift))
    weights.put(step.gain, after * root)
    weights.put(step.bias, shift + mean * after)


def _bearers(structure: Structure, action: Action) -> list[str]:
    """Weights of the program that hold the leaf of an action."""
    program = structure.program
    return [
        name
        for name in program.weights
        if name not in program.detached
        and any(action.leaf in set(structure.axes.factors.leaves(f)) for f in structure.axes.of[name])
    ]


def _movable(structure: Structure, name: str) -> bool:
    return name in structure.program.weights or name in structure.program.affines


def _stands(structure: Structure, name: str, action: Action) -> list[Stand]:
    return list(stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies))


def _charge(action: Action, name: str) -> Mapping[tuple[int, int, int], Fraction]:
    return {(o.axis, o.term, o.place): c for o, c in action.charge.items() if o.tensor == name}


def _factors(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Array:
    """A factor per unit and copy: a scaling away from 1, a sign; or a matrix per copy, of condition number below 10."""
    if kind == "sign":
        return np.where(rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1) % 2, 1.0, -1.0)
    if kind == "rotation":
        basis, _ = np.linalg.qr(rng.standard_normal((*shape, shape[-1])))
        return basis * np.exp(rng.uniform(-1.0, 1.0, shape))[..., None]
    return np.exp(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, SPREAD, shape))


def _derangements(rng: np.random.Generator, shape: tuple[int, ...]) -> Index:
    """A permutation without fixed points of the last axis, for every index of the others: a random cycle."""
    rows = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    order = np.empty(shape, np.int64)
    np.put_along_axis(order, rows, np.roll(rows, -1, axis=-1), axis=-1)
    return order
