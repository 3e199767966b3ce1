"""The abstract value of a contraction: rows of weights over the distinct bases that they read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.clusters import ABSENT, ROUNDING, precision
from symlint.graph import Array, Shape
from symlint.program import Einsum, Spec
from symlint.regrouping import apart, together
from symlint.rows import combine
from symlint.values import Labels, Names, Value, alike, known

LIMIT = 1 << 25


def contract(names: Names, step: Einsum, values: Sequence[Value], shape: Shape) -> Value:
    """The value of `step.out`, in the given shape; operands broadcast along labels that they do not carry."""
    if len(values) == 1:
        return _single(names, step, values[0], shape)
    numeric = [v.labels is None for v in values]
    if len(values) == 2 and any(numeric):
        if all(numeric):
            return _numbers(names, step, values, shape)
        x, w = (0, 1) if numeric[1] else (1, 0)
        return _linear(names, step, (values[x], step.specs[x]), (values[w], step.specs[w]), shape)
    return _products(names, step, values, shape)


def _single(names: Names, step: Einsum, value: Value, shape: Shape) -> Value:
    """A rearrangement, a repetition, or a sum over axes."""
    sizes = dict(step.sizes)
    cut = apart(value.scale, step.specs[0], sizes)
    if cut is None:
        return names.fresh(shape)
    scale, order = cut
    labels = value.numbers.reshape(scale.shape)
    gone = [label for label in order if not any(label in axis for axis in step.result)]
    wild = {label for label, n in zip(order, scale.shape, strict=True) if n == 1 and sizes[label] > 1}
    if value.labels is not None and _seats(step.specs[0], wild) != _seats(step.result, wild):
        labels = np.where(labels == 0, 0, names.derive(labels, steady=True))
    repeated = [(x, n) for axis, n in zip(step.result, shape, strict=True) for x in axis if x not in order]
    for label, n in repeated:
        order.append(label)
        full_shape = (*scale.shape, sizes[label] if n > 1 else 1)
        scale, labels = (np.broadcast_to(a[..., None], full_shape) for a in (scale, labels))
    if value.labels is None:
        full = scale
        for label in gone:
            k = order.index(label)
            full = full.sum(axis=k, dtype=np.float64) * (sizes[label] / full.shape[k])
            order.remove(label)
        numbers = _grouped(names, step, full, order, shape)
        if value.noise is None or gone or numbers.labels is not None:
            return numbers
        return known(numbers.scale, _grouped(names, step, value.noise.reshape(scale.shape), order, shape).scale)
    axes = tuple(order.index(label) for label in gone)
    if axes:
        kept = [label for label in order if label not in gone]
        rest = tuple(n for k, n in enumerate(scale.shape) if k not in axes)
        moved = [np.moveaxis(a, axes, range(len(axes))).reshape(-1, *rest) for a in (labels, scale)]
        if len(moved[0]) == 1:
            wide = int(np.prod([sizes[label] for label in gone], dtype=np.int64))
            fixed = moved[0][0] == 0
            labels = np.where(fixed, 0, names.derive(moved[0][0], steady=True))
            scale = np.where(fixed, moved[1][0] * wide, moved[1][0])
        else:
            zero = (np.abs(moved[1]) < ABSENT).all(axis=0)
            fixed = (moved[0] == 0).all(axis=0)
            columns = [*moved[0], *alike(moved[1])] if len(moved[0]) <= 2048 else None
            made = names.derive(*columns) if columns else names.fresh(rest).numbers
            labels = np.where(fixed, 0, made)
            scale = np.where(fixed, moved[1].sum(axis=0), np.where(zero, 0.0, 1.0))
        order = kept
    return together(names, labels, scale, order, step, shape)


def _seats(spec: Spec, wild: set[str]) -> list[tuple[int, str]]:
    """Where the places that carry no units stand, counted from the last axis: a base is a function of them."""
    return [(len(spec) - k, label) for k, axis in enumerate(spec) for label in axis if label in wild]


def _grouped(names: Names, step: Einsum, full: Array, order: list[str], shape: Shape) -> Value:
    """Known numbers in the grouping of the result, written out in full where that is small."""
    wanted = [label for axis in step.result for label in axis]
    full = full.transpose([order.index(label) for label in wanted])
    whole = tuple(step.sizes[label] for label in wanted)
    made = tuple(int(np.prod([step.sizes[x] for x in axis], dtype=np.int64)) for axis in step.result)
    if np.prod(whole, dtype=np.int64) > LIMIT:
        return names.fresh(shape)
    return known(np.broadcast_to(full, whole).reshape(made))


def _numbers(names: Names, step: Einsum, values: Sequence[Value], shape: Shape) -> Value:
    """A product of known numbers."""
    cuts = [apart(v.scale, spec, dict(step.sizes)) for v, spec in zip(values, step.specs, strict=True)]
    if any(c is None for c in cuts) or sum(v.scale.size for v in values) > LIMIT:
        return names.fresh(shape)
    letter = {label: chr(97 + k) if k < 26 else chr(39 + k) for k, label in enumerate(step.sizes)}
    full = [np.broadcast_to(c[0], [step.sizes[x] for x in c[1]]).astype(np.float64) for c in cuts if c is not None]
    sides = ["".join(letter[x] for x in c[1]) for c in cuts if c is not None]
    made = "".join(letter[x] for axis in step.result for x in axis)
    product = np.einsum(f"{','.join(sides)}->{made}", *full, optimize=True)
    order = [x for axis in step.result for x in axis]
    return _grouped(names, step, product, order, shape)


def _linear(names: Names, step: Einsum, x: tuple[Value, Spec], w: tuple[Value, Spec], shape: Shape) -> Value:
    """Known weights times unknown bases: an output is its row of weights over the distinct bases."""
    sizes = dict(step.sizes)
    cut, weights = apart(x[0].scale, x[1], sizes), apart(w[0].scale, w[1], sizes)
    if cut is None or weights is None:
        return names.fresh(shape)
    scale, order = cut
    labels = x[0].numbers.reshape(scale.shape)
    values, wide = weights
    made = [label for axis in step.result for label in axis]
    units = [label for k, label in enumerate(order) if scale.shape[k] == sizes[label]]
    batch = [label for label in made if label in wide and label in units]
    out = [label for label in made if label in wide and label not in order]
    passing = [label for label in made if label not in wide and label in units]
    read = [label for label in wide if label not in made and label in units]
    along = [label for label in wide if label not in made and label in order and label not in units]
    alone = [label for label in wide if label not in made and label not in order]
    lost = [label for label in units if label not in made and label not in wide]
    varying = [label for label in made if label in wide and label in order and label not in units]
    if lost or alone or varying:
        return names.fresh(shape)
    columns = values.transpose([wide.index(label) for label in (*batch, *out, *read, *along)])
    count = [int(np.prod([sizes[label] for label in part], dtype=np.int64)) for part in (batch, out, read, along)]
    columns = columns.reshape(count)
    wild = [k for k, label in enumerate(order) if label not in (*batch, *passing, *read)]
    narrow = [order[k] for k in range(len(order)) if k not in wild]
    place = [narrow.index(label) for label in (*batch, *passing, *read)]
    many = int(np.prod([sizes[label] for label in passing], dtype=np.int64))
    bases = [a.reshape([n for k, n in enumerate(a.shape) if k not in wild]).transpose(place) for a in (labels, scale)]
    bases = [a.reshape(count[0], many, count[2]) for a in bases]
    tolerance = ROUNDING * precision(str(w[0].scale.dtype))
    found, sizes_of = combine(names, bases[0], bases[1], columns, tolerance)
    result = [*batch, *passing, *out]
    dims = [sizes[label] for label in result]
    for label in made:
        if label not in result:
            result.append(label)
            dims.append(1)
    return together(names, found.reshape(dims), sizes_of.reshape(dims), result, step, shape)


def _products(names: Names, step: Einsum, values: Sequence[Value], shape: Shape) -> Value:
    """Products of unknown bases: equal where all factors are equal, in order; zero where every product is."""
    sizes = dict(step.sizes)
    cuts = [apart(v.scale, spec, sizes) for v, spec in zip(values, step.specs, strict=True)]
    if any(c is None for c in cuts):
        return names.fresh(shape)
    every = list(dict.fromkeys(label for c in cuts if c is not None for label in c[1]))
    gone = [label for label in every if not any(label in axis for axis in step.result)]
    kept = [label for label in every if label not in gone]
    order = [*gone, *kept]
    grids: list[tuple[Labels, Array]] = []
    for value, c in zip(values, cuts, strict=True):
        if c is None:
            continue
        scale, mine = c
        place = [mine.index(label) for label in order if label in mine]
        target = [scale.shape[mine.index(label)] if label in mine else 1 for label in order]
        labels = value.numbers.reshape(scale.shape)
        grids.append((labels.transpose(place).reshape(target), scale.transpose(place).reshape(target)))
    wide = np.broadcast_shapes(*(g[0].shape for g in grids))
    if np.prod(wide, dtype=np.int64) > LIMIT // 8:
        return names.fresh(shape)
    scale = np.ones(wide)
    for _, s in grids:
        scale = scale * s
    zero = np.abs(scale) < ABSENT
    labels = names.derive(*(np.broadcast_to(n, wide) for n, _ in grids))
    rest = wide[len(gone) :]
    labels = np.where(zero, 0, labels).reshape(-1, *rest)
    flat = np.where(zero, 0.0, scale).reshape(-1, *rest)
    if len(labels) > 2048:
        return names.fresh(shape)
    lead = np.take_along_axis(flat, (flat != 0).argmax(axis=0)[None], axis=0)[0]
    safe = np.where(lead == 0, 1.0, lead)
    made = names.derive(*labels, *alike(flat / safe))
    return together(names, np.where(lead == 0, 0, made), lead, kept, step, shape)
