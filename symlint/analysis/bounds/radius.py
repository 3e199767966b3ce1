"""The length of what a written-out normalisation makes: at most this, whatever it gets.

A recognised normalisation is a vector, less its mean or not, times a function of its own length alone. Where that
function is made of roots, quotients and an epsilon, the length of the output grows with that of the input up to a
limit, which is read off at the largest one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch

import numpy as np

from symlint.model.graph import Array
from symlint.program.numbers import NORMS, compute, contract
from symlint.program.steps import Einsum, Fold, Normalise, Pointwise, Program, Step, rearranges
from symlint.program.translate import lowered

LENGTHS = 10.0 ** np.arange(-12, 13)
SETTLED = 1.001
"""How little the length of the output may still grow over the last half of the scales."""
PARTS = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Pow", "Abs", "Identity", "Max", "Clip", "Neg"})
"""Functions of which a normalisation is made."""
LONGEST = 64
"""Steps that one is made of."""


def radii(program: Program) -> dict[str, float]:
    """Output of each written-out normalisation -> the length that it does not exceed; absent where none is known."""
    written = [step for step in program.norms if step.node.op not in NORMS]
    written = [s for s in written if s.function in ("rms", "standardise", "l2")]
    if not written:
        return {}
    lowering = lowered(program)
    raw, known = lowering.program, lowering.lengths
    for step in written:
        if step.out not in known:
            # A gain and a bias that were taken in come after it under the name of what the file has.
            whole = step.out if step.out in raw.producers else step.out.rpartition("#")[0]
            known[step.out] = _radius(step, whole, raw, raw.producers)
    return {step.out: radius for step in written if (radius := known[step.out]) is not None}


def _radius(step: Normalise, out: str, raw: Program, makers: Mapping[str, Step]) -> float | None:
    chain = _chain(step.x, out, makers)
    if chain is None or step.x not in raw.shapes:
        return None
    shape = [n if k in step.axes else 1 for k, n in enumerate(raw.shapes[step.x])]
    rng = np.random.default_rng(7)
    vectors = np.stack([rng.standard_normal(shape), np.eye(1, int(np.prod(shape))).reshape(shape)])
    given = (vectors[:, None] * LENGTHS.reshape(-1, *(1 for _ in shape))).reshape(-1, *shape)
    made = _run(chain, raw, {step.x: given}, out)
    if made is None or len(made) != len(given) or not np.isfinite(made).all():
        return None
    half = len(LENGTHS) // 2 + 3
    rows = np.sqrt((made.reshape(len(given), -1) ** 2).sum(axis=1)).reshape(len(vectors), -1)
    return float(rows.max()) if rows.max() <= SETTLED * rows[:, :half].max() else None


def _chain(source: str, out: str, makers: Mapping[str, Step]) -> list[Step] | None:
    """The steps from a tensor to another in order; None where one is no part of a normalisation."""
    found: dict[int, Step] = {}
    order: list[Step] = []

    def reaches(name: str, depth: int) -> bool:
        if name == source:
            return True
        step = makers.get(name)
        if step is None or depth > LONGEST:
            return False
        if id(step) in found:
            return True
        reached = [reaches(read, depth + 1) for read in step.operands]
        if not any(reached):
            return False
        found[id(step)] = step
        order.append(step)
        return True

    if not reaches(out, 0) or len(order) > LONGEST:
        return None
    return order if all(map(_sound, order)) else None


def _sound(step: Step) -> bool:
    """Whether a step may be part of a normalisation: a square is, other products are not."""
    if rearranges(step) or step.function in PARTS or step.function in _FOLDS:
        return True
    return step.product and step.operands[0] == step.operands[-1]


def _run(chain: list[Step], raw: Program, values: dict[str, Array], out: str) -> Array | None:
    """What a chain makes in float64 of many vectors, along the first axis, gains being one and biases nothing."""
    for step in chain:
        made = _made(step, [values[n] if n in values else _stranger(step, n, raw)[None] for n in step.operands])
        if made is None:
            return None
        values[step.results[0]] = made
    return values.get(out)


@singledispatch
def _made(step: Step, given: list[Array]) -> Array | None:
    raise NotImplementedError(type(step))


@_made.register
def _(step: Einsum, given: list[Array]) -> Array | None:
    return contract(step, given, [1] * len(given))


@_made.register
def _(step: Fold, given: list[Array]) -> Array | None:
    return _FOLDS[step.function](given[0], tuple(k + 1 for k in step.axes))


@_made.register
def _(step: Pointwise, given: list[Array]) -> Array | None:
    rank = max(x.ndim for x in given)
    return compute(step, [x.reshape(x.shape[:1] + (1,) * (rank - x.ndim) + x.shape[1:]) for x in given])


def _stranger(step: Step, name: str, raw: Program) -> Array:
    """An operand that is no part of the normalisation: a table is itself, a gain is one and a bias nothing."""
    if name in raw.tables:
        return raw.tables[name].astype(np.float64)
    neutral = 1.0 if step.function in ("Mul", "Div") else 0.0
    return np.full((1,) * len(raw.shapes[name]), neutral)


_FOLDS: Mapping[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "ReduceL2": lambda x, axes: np.sqrt((x**2).sum(axis=axes)),
    "ReduceSumSquare": lambda x, axes: (x**2).sum(axis=axes),
    "ReduceL1": lambda x, axes: np.abs(x).sum(axis=axes),
}
