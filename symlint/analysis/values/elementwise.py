"""The abstract value of an elementwise function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from symlint.analysis.values.lattice import Bases, Labels, Names, Value, alike, tidy, unit
from symlint.analysis.values.weights import Levels, Mask, Operand, Weight, absent
from symlint.model.clusters import ROUNDING, precision
from symlint.model.graph import Array, Shape
from symlint.program.functions import Parity
from symlint.program.numbers import compute
from symlint.program.steps import GRID, Pointwise

HALVES = ("float16", "bfloat16")
SLACK = 1e-6
"""Of numbers that cancel in part: what rounding makes of the sum, relative to each of them."""
LARGE = 1 << 14
"""Elements of a weight from which on what comes of it is worked out later."""


def elementwise(names: Names, step: Pointwise, values: list[Value]) -> Value:
    """The value of `step.out`: a number where all operands are, else a base that what it reads determines."""
    if all(v.bases is None for v in values):
        return _numbers(names, step, values)
    if len(values) == 1 or _of_one(step, values):
        return (_plain_function if values[0].plain else _unary)(names, step, *values)
    if (made := _plainly(names, step, values)) is not None:
        return made
    if step.known.sums:
        return _sum(names, step, values)
    if step.function == GRID:
        made = _any(names, step, values)
        return tidy(made.labels, np.where(_lifted(absent(values[0].slim), len(made.shape)), 0.0, made.slim))
    if step.law.kind == "product" and all(d is not None for d in step.law.degrees):
        return _product(names, step, values)
    if step.known.chooses and step.law.degrees[:1] == (None,):
        return _choice(names, values[0], values[1:])
    if step.law.kind == "product" and step.law.degrees[0] == 1:
        return _any(names, step, values, homogeneous=True)
    return _any(names, step, values)


def _of_one(step: Pointwise, values: list[Value]) -> bool:
    """Whether all operands but the first are a number that is known, its power."""
    x, power = values[0], values[-1]
    known = step.known.power and step.law.kind == "product" and power.bases is None and power.slim.size == 1
    return known and len(power.shape) <= len(x.shape)


def _plainly(names: Names, step: Pointwise, values: list[Value]) -> Value | None:
    """The value where one operand tells all elements apart: that of most steps. None where there is more to find."""
    x = next((v for v in values if v.plain), None)
    if x is not None and any(v.shape != x.shape for v in values):
        shape = np.broadcast_shapes(*(v.shape for v in values))
        x = next((v for v in values if v.plain and v.shape == shape), None)
    if x is None:
        return None
    does, law = step.known, step.law
    if does.sums:
        return _plain_sum(names, step, values, x)
    if step.function == GRID:
        return names.anew(x) if values[0].plain else None
    if law.kind == "product" and all(d is not None for d in law.degrees):
        return _plain_product(names, step, values, x)
    if does.chooses and law.degrees[:1] == (None,):
        return None
    if law.kind != "product" or law.degrees[0] != 1:
        return names.anew(x)
    return names.anew(x, _lifted(np.abs(values[0].slim), len(x.shape))) if values[0].plain else None


def _plain_function(names: Names, step: Pointwise, x: Value, *power: Value) -> Value:
    if step.known.passes:
        return x if not step.known.negates else Value(x.bases, -x.slim, x.shape, x.off, plain=True)
    _, scale = _through(step, x.slim, *power)
    return names.anew(x, scale, steady=True)


def _plain_sum(names: Names, step: Pointwise, values: list[Value], x: Value) -> Value | None:
    place = next(k for k, v in enumerate(values) if v.bases is not None)
    size = step.known.sign(place) / (len(values) if step.known.averages else 1)
    lead = _lifted(values[place].slim.astype(np.float64) * size, len(x.shape))
    others = [v for v in values if v is not x]
    if all(v.plain for v in others):
        # A difference of single elements may be that of one with itself.
        return None if step.known.negates and any(prod(v.shape) == 1 for v in values) else names.anew(x, lead)
    if len(values) > 2 or others[0].bases is not None:
        return None
    alone, made = np.asarray(_lifted(others[0].slim, len(x.shape)) == 0), names.anew(x, lead)
    if not alone.any():
        return made
    return Value(x.labels.where(alone, made.labels), lead, x.shape, plain=True)


def _plain_product(names: Names, step: Pointwise, values: list[Value], x: Value) -> Value | None:
    if any(not v.plain and v.bases is not None for v in values):
        return None
    scale, moving = unit(len(x.shape)), [k for k, v in enumerate(values) if v.plain]
    for v, degree in zip(values, step.law.degrees, strict=True):
        factor = _lifted(v.slim, len(x.shape))
        if degree != 1 and not factor.all():
            return None
        scale = scale * factor if degree == 1 else scale * (1 / factor)
    if absent(scale).any():
        return None
    if len(moving) == 1 and step.law.degrees[moving[0]] == 1:
        return Value(x.bases, scale, x.shape, plain=True)
    return names.anew(x, scale)


def _numbers(names: Names, step: Pointwise, values: list[Value]) -> Value:
    shape = np.broadcast_shapes(*(v.shape for v in values))
    if (later := _put_off(step, values, shape)) is not None:
        return later
    if not names.affords(prod(shape)):
        return names.fresh(shape)
    # A quantiser finds its axis by the sizes of what it is given.
    whole = step.known.quantises
    made = compute(step, [v.scale if whole else v.slim for v in values])
    if made is None:
        return names.fresh(shape)
    return Value(None, _lifted(made, len(shape)), shape)


def _put_off(step: Pointwise, values: list[Value], shape: Shape) -> Value | None:
    """What comes of the levels of a large weight, worked out when it is read: it is finite whatever they are."""
    place = max(range(len(values)), key=lambda k: prod(values[k].shape))
    weight, numbers = values[place].held, [v.slim for k, v in enumerate(values) if k != place]
    does = step.known
    # What quantisers do with levels, whose numbers stay finite.
    operation: Any = np.multiply if does.factor > 0 else np.subtract if does.sums and does.negates else None
    handed = operation is not None or (does.passes and not does.negates)
    if not handed or not isinstance(weight, Weight) or not weight.levels:
        return None
    small = all(n.size * 16 <= prod(shape) and np.isfinite(n.astype(np.float64)).all() for n in numbers)
    whole = step.function == step.node.op and all(n.dtype.kind in "biu" for n in numbers) and "int" in weight.dtype
    if not small or whole or weight.shape != shape or prod(shape) < LARGE:
        return None
    source: object = weight.read
    levels = source if isinstance(source, Levels) else Levels(weight.read, shape)
    for number in numbers:
        wide = _lifted(number.astype(np.float64), len(shape))
        levels = levels.then(Operand(operation, wide, behind=place == 0))
    key = (*weight.key, step.function, *(n.tobytes() for n in numbers))
    return Value(None, Weight(shape, "float64", levels, key, levels=True), shape)


def _lifted(array: Array, rank: int) -> Array:
    """An array with axes of size 1 before its own."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _unary(names: Names, step: Pointwise, x: Value, *power: Value) -> Value:
    """Homogeneous functions keep the scale and may tell the signs apart; others see label and scale."""
    scale = x.slim
    if step.known.passes:
        return x if not step.known.negates else Value(x.bases, -scale, x.shape, x.off)
    constant = x.labels.constant & np.ones(scale.shape, bool)
    numbers = [np.broadcast_to(scale, constant.shape)[constant], *(p.slim.reshape(1) for p in power)]
    made = compute(step, numbers) if constant.any() else None
    clear = constant if made is not None else None
    told, scale = _through(step, scale, *power)
    bases = names.derive(x.shape, [x.labels], map(alike, [told]), steady=True, clear=clear)
    if made is not None:
        scale = np.broadcast_to(scale, constant.shape).astype(np.float64)
        scale[constant] = made
    return tidy(bases, scale)


def _through(step: Pointwise, scale: Array, power: Value | None = None) -> tuple[Array, Array]:
    """What a function tells apart in the scale of its operand, and the scale of its result."""
    parity, told = step.known.passing(step.law.degrees), step.law.degrees[0] if step.law.kind == "product" else None
    degree = told if power is None else float(power.slim.reshape(()))
    size, sign, one = np.abs(scale), np.where(scale < 0, -1.0, 1.0), unit(scale.ndim)
    apart, left = {Parity.ODD: (one, sign), Parity.EVEN: (one, one)}.get(parity, (sign, one))
    if degree is None:
        return size * apart, left
    if degree != 1:
        size = np.where(size == 0, 1.0, size.astype(np.float64)) ** float(degree)
    return apart, left * size


def _sum(names: Names, step: Pointwise, values: list[Value]) -> Value:
    """Signed terms: the first that is no constant sets the scale."""
    signs = [float(step.known.sign(k)) for k in range(len(values))]
    divide = len(values) if step.known.averages else 1
    shape = np.broadcast_shapes(*(v.shape for v in values))
    rank = len(shape)
    scales = [_lifted(v.slim.astype(np.float64) * s / divide, rank) for v, s in zip(values, signs, strict=True)]
    moving = [k for k, v in enumerate(values) if v.bases is not None]
    parts = names.sums.apart(values[moving[0]]) if len(moving) == 1 else None
    if len(values) == 2 and len(moving) == 1 and parts is None and values[moving[0]].shape == shape:
        x, lead, fixed = values[moving[0]].labels, scales[moving[0]], scales[1 - moving[0]]
        if x.telling:
            return _offset(names, x, lead, fixed)
    still = [_lifted(v.labels.constant, rank) for v in values]
    fixed, slack = np.zeros((1,) * rank), np.zeros((1,) * rank)
    for v, numbers, where in zip(values, scales, still, strict=True):
        fixed = fixed + np.where(where, numbers, 0.0)
        if v.bases is None and v.dtype in HALVES:  # beside which what `alike` allows is less than a rounding
            slack = slack + ROUNDING * precision(v.dtype) * np.abs(numbers)
    if parts is not None:
        values[moving[0]], more = parts
        more = _lifted(more * signs[moving[0]] / divide, rank)
        slack = slack + SLACK * (np.abs(fixed) + np.abs(more))
        fixed = fixed + more
    only, lead, count = _leading([(values[k].labels.spread(shape), scales[k], still[k]) for k in moving])
    if (gone := _cancelled(step, values, rank)) is not None:
        count, still = np.where(gone, 0, count), [where | gone for where in still]
    nothing = count == 0
    safe = np.where(nothing, 1.0, lead) if nothing.any() else lead
    alone = (count == 1) & (fixed == 0)
    if alone.all():
        return tidy(only, lead)

    terms = _apart(values, signs, moving)

    def relative() -> Iterator[Labels]:
        yield from (alike(np.where(still[k], 0.0, scales[k]) / safe) for k in terms[1:])
        off = [v.off for v in values]
        noise = sum((_lifted(one, rank) for one in off if one is not None), slack)
        offset, wide = np.broadcast_arrays(fixed / safe, noise / np.abs(safe))
        yield alike(offset, wide if noise.any() else None)

    clear = nothing if nothing.any() else None
    made = names.derive(shape, [values[k].labels for k in terms], relative(), clear=clear)
    if alone.any():
        made = only.where(alone, made)
    if len(moving) == 1:
        flat = np.broadcast_arrays(made.written, only.written, fixed / safe)
        names.sums.add(*(column.reshape(-1) for column in flat))
    return tidy(made, np.where(nothing, fixed, lead) if nothing.any() else lead)


def _apart(values: Sequence[Value], signs: Sequence[float], places: Sequence[int]) -> list[int]:
    """The places of terms less those of the same ones: what is added several times tells no more than once.

    The first is as large as the scale of the sum wherever it moves, so how large it is tells nothing.
    """
    return list({(id(values[k]), signs[k]): k for k in places}.values())


def _leading(terms: Sequence[tuple[Bases, Array, Mask]]) -> tuple[Bases, Array, Labels]:
    """The base and the scale of the first term that is no constant, and how many there are."""
    (only, lead, still), *rest = terms
    count = (~still).astype(np.int64)
    lead = lead if count.all() else np.where(still, 1.0, lead)
    for bases, scale, where in rest:
        begins = ~where & (count == 0)
        lead = scale if begins.all() else np.where(begins, scale, lead)
        only = bases.where(begins, only)
        count = count + ~where
    return only, lead, count


def _offset(names: Names, x: Bases, lead: Array, fixed: Array) -> Value:
    """The sum of bases that all differ and known numbers: where these are zero a base stays what it was."""
    alone = np.asarray(fixed == 0)
    if alone.all():
        return tidy(x, lead)
    made = names.derive(x.shape, [x])
    return tidy(x.where(alone, made) if alone.any() else made, lead)


def _cancelled(step: Pointwise, values: list[Value], rank: int) -> Mask | None:
    """Where a difference is zero because both sides are one unknown number; None where nothing is."""
    if not step.known.negates or any(v.bases is None for v in values):
        return None
    (a, x), (b, y) = ((v.labels, v.slim) for v in values)
    if b.starts.size > 1 or any(b.steps) or not b.starts.all() or not (a.starts == b.starts.reshape(-1)[0]).any():
        return None
    same = _lifted(a.write(range(len(a.shape))).starts == b.starts.reshape(-1)[0], rank)
    return np.asarray(same & (_lifted(x, rank) == _lifted(y, rank)))


def _product(names: Names, step: Pointwise, values: list[Value]) -> Value:
    """Numbers multiply the scale; bases multiply to a new base, whatever their order."""
    shape = np.broadcast_shapes(*(v.shape for v in values))
    rank = len(shape)
    inverted = [d != 1 for d in step.law.degrees]
    scale = np.ones((1,) * rank)
    count, only, plain = np.zeros((1,) * rank, np.int64), None, np.ones((1,) * rank, bool)
    for v, flip in zip(values, inverted, strict=True):
        factor = v.slim
        if flip:
            with np.errstate(divide="ignore"):
                factor = np.where(factor == 0, 0, 1 / np.where(factor == 0, 1, factor))
        scale = scale * _lifted(factor, rank)
        if v.bases is None:
            continue
        moving = ~_lifted(v.bases.constant, rank)
        begins = moving & (count == 0)
        bases = v.bases.spread(shape)
        only = bases if only is None else bases.where(begins, only)
        plain = np.where(begins, not flip, plain)
        count = count + moving
    assert only is not None
    plain = plain & (count == 1)
    nothing = count == 0
    if (plain | nothing).all():
        return tidy(only, scale)
    moved = [v.bases.spread(shape) for v in values if v.bases is not None]
    if len(moved) > 1 and not any(inverted):
        moved = _sorted(moved)
    made = names.derive(shape, moved, clear=nothing if nothing.any() else None)
    return tidy(only.where(plain, made) if plain.any() else made, scale)


def _sorted(several: list[Bases]) -> list[Bases]:
    """Bases in an order that does not depend on which operand comes first."""
    steps = {b.steps for b in several}
    if len(steps) > 1:
        apart = [k for k in range(len(several[0].shape)) if len({b.steps[k] for b in several}) > 1]
        if any(b.telling for b in several) or not apart:
            return several
        several = [b.write(apart) for b in several]
    ordered = np.sort(np.stack(np.broadcast_arrays(*(b.starts for b in several))), axis=0)
    return [Bases(line, several[0].steps, several[0].shape) for line in ordered]


def _any(names: Names, step: Pointwise, values: list[Value], *, homogeneous: bool = False) -> Value:
    """Any other function: equal where everything it reads is equal, a number where everything is.

    A `homogeneous` one keeps the size of its first operand's scale.
    """
    shape = np.broadcast_shapes(*(v.shape for v in values))
    rank = len(shape)
    first, size = values[0], np.ones((1,) * rank)
    if homogeneous:
        signed = np.where(np.signbit(first.slim), -1.0, 1.0)
        size = _lifted(np.abs(first.slim), rank)
        values = [Value(first.bases, signed, first.shape), *values[1:]]
    constant = np.ones((1,) * rank, bool)
    for v in values:
        constant = constant & _lifted(v.labels.constant, rank)
    result = None
    if constant.any():
        scales = [first.slim if homogeneous and not k else v.slim for k, v in enumerate(values)]
        constant = np.broadcast_to(constant, np.broadcast_shapes(constant.shape, *(s.shape for s in scales)))
        result = compute(step, [np.broadcast_to(s, constant.shape)[constant] for s in scales])
    made = alike_in_all(names, values, clear=None if result is None else constant)
    scale = size
    if result is not None:
        scale = np.broadcast_to(size, np.broadcast_shapes(size.shape, constant.shape)).astype(np.float64)
        scale[np.broadcast_to(constant, scale.shape)] = result
    return tidy(made.labels, scale)


def _choice(names: Names, condition: Value, values: list[Value]) -> Value:
    """One of several values or their sum, by a condition: of the scale of the first that is not zero."""
    shape = np.broadcast_shapes(condition.shape, *(v.shape for v in values))
    rank = len(shape)
    scales = [_lifted(v.slim, rank).astype(np.float64) for v in values]
    there = [~absent(s) for s in scales]
    lead, found = np.zeros((1,) * rank), np.zeros((1,) * rank, bool)
    for s, here in zip(scales, there, strict=True):
        lead, found = np.where(here & ~found, s, lead), found | here
    safe = np.where(found, lead, 1.0)
    relative = np.broadcast_arrays(*(np.where(here, s, 0.0) / safe for s, here in zip(scales, there, strict=True)))
    codes = [*alike(np.stack(relative))] if relative[0].size else []
    told = _lifted(alike(condition.slim), rank)
    bases = names.derive(
        shape,
        [condition.labels, *(v.labels for v in values)],
        [told, *codes],
        clear=~found if not found.all() else None,
    )
    return tidy(bases, lead)


def alike_in_all(names: Names, values: list[Value], clear: Mask | None = None) -> Value:
    """Equal where all of `values` are, and of them nothing else is known."""
    shape = np.broadcast_shapes(*(v.shape for v in values))
    bases = names.derive(shape, [v.labels for v in values], (alike(v.slim) for v in values), clear=clear)
    return Value(bases, np.ones((1,) * len(shape)), shape)
