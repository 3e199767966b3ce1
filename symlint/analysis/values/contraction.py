"""The abstract value of a contraction: rows of weights over the distinct bases that they read.

Arrays over the labels of a contraction: one axis per label, and back to the grouping of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod

import numpy as np

from symlint.analysis.values.lattice import Bases, Labels, Names, Value, alike, known, tidy
from symlint.analysis.values.rows import Columns, Matrix, Rows, Verdicts, combine
from symlint.analysis.values.rows import apart as apart_rows
from symlint.analysis.values.weights import Blockwise, Levels, Weight, absent
from symlint.model.clusters import ROUNDING, Off, precision
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Spec


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A value with one axis per label; an axis of size 1 stands for all its places."""

    bases: Bases
    scale: Array
    order: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """The size of each axis."""
        return self.bases.shape

    def size(self, label: str) -> int:
        """The places of a label."""
        return self.shape[self.order.index(label)]

    def turn(self, order: Sequence[str]) -> Grid:
        """The axes in another order."""
        if self.order == tuple(order):
            return self
        places = [self.order.index(label) for label in order]
        return Grid(self.bases.turn(places), self.scale.transpose(places), tuple(order))

    def align(self, order: Sequence[str]) -> Grid:
        """The axes in another order, of size 1 for a label that is new; one of size 1 may be left out."""
        if self.order == tuple(order):
            return self
        kept = [label for label in order if label in self.order]
        there = self.turn([*kept, *(label for label in self.order if label not in order)])
        cut = [kept.index(label) if label in kept else -1 for label in order]
        starts, scale = (
            a.reshape([1 if k < 0 else a.shape[k] for k in cut]) for a in (there.bases.starts, there.scale)
        )
        steps = tuple(0 if k < 0 else there.bases.steps[k] for k in cut)
        shape = tuple(1 if k < 0 else there.shape[k] for k in cut)
        return Grid(Bases(starts, steps, shape), scale, tuple(order))


def pieces(shape: Shape, spec: Spec, sizes: Mapping[str, int]) -> list[list[int]] | None:
    """Into which sizes each axis is cut, an axis of size 1 into such ones; None where it cannot be cut."""
    found: list[list[int]] = []
    for size, axis in zip(shape, spec, strict=True):
        parts = [sizes[label] for label in axis]
        full = parts[0] if len(parts) == 1 else prod(parts)
        if size == full:
            found.append(parts)
        elif size == 1:
            found.append([1] * len(parts))
        else:
            return None
    return found


def apart(array: Array, shape: Shape, spec: Spec, sizes: Mapping[str, int]) -> Array | None:
    """An array of a tensor's shape, or with size 1 along some of its axes, with one axis per label."""
    cuts = pieces(shape, spec, sizes)
    return None if cuts is None else cut_apart(array, cuts)


def cut_apart(array: Array, cuts: Sequence[Sequence[int]]) -> Array:
    """An array whose axes are cut, but for those of size 1, which become several of size 1."""
    if all(len(cut) == 1 for cut in cuts):
        return array
    return array.reshape(
        [m for n, cut in zip(array.shape, cuts, strict=True) for m in (cut if n > 1 else [1] * len(cut))]
    )


def grid(value: Value, spec: Spec, sizes: Mapping[str, int]) -> Grid | None:
    """A value with one axis per label; None where it cannot be cut."""
    cuts = pieces(value.shape, spec, sizes)
    if cuts is None:
        return None
    bases, steps = value.labels, list[int]()
    for step, cut in zip(bases.steps, cuts, strict=True):
        if len(cut) == 1:
            steps.append(step if cut[0] > 1 else 0)
            continue
        inner = [step * prod(cut[k + 1 :]) for k in range(len(cut))]
        steps += [s if n > 1 else 0 for s, n in zip(inner, cut, strict=True)]
    starts, scale = cut_apart(bases.starts, cuts), cut_apart(value.slim, cuts)
    shape = tuple(n for cut in cuts for n in cut)
    return Grid(Bases(starts, tuple(steps), shape), scale, tuple(label for axis in spec for label in axis))


def together(names: Names, found: Grid, step: Einsum, shape: Shape) -> Value:
    """Axes per label, grouped as the result wants them; one without units is written out where its group has some."""
    wanted = [label for axis in step.result for label in axis]
    found = found.turn(wanted)
    bases, scale = found.bases, found.scale
    if bases.shape == shape and 0 not in shape and all(len(axis) == 1 for axis in step.result):
        steps = tuple(s if n > 1 else 0 for s, n in zip(bases.steps, shape, strict=True))
        return tidy(Bases(bases.starts, steps, shape), scale)
    plain = tuple(k for j, size in enumerate(shape) if size == 1 for k in _places(step.result, j) if found.shape[k] > 1)
    if plain:
        bases, scale = collapse(names, bases, scale, plain)
    full = [
        step.sizes[label] if size > 1 else 1 for axis, size in zip(step.result, shape, strict=True) for label in axis
    ]
    bases = names.apart(bases, tuple(max(a, b) for a, b in zip(full, bases.shape, strict=True)))
    return tidy(*_joined(bases, scale, step.result, shape))


def _joined(bases: Bases, scale: Array, result: Spec, shape: Shape) -> tuple[Bases, Array]:
    """Several axes as one, wherever the result has them so."""
    groups = [_places(result, j) for j in range(len(result))]
    steps: list[int] = []
    for group in groups:
        axes = [k for k in group if bases.shape[k] > 1]
        regular = all(bases.steps[a] == bases.steps[b] * bases.shape[b] for a, b in pairwise(axes))
        if not regular:
            bases = bases.write(axes)
        steps.append(bases.steps[axes[-1]] if axes else 0)
    return Bases(joined(bases.starts, bases.shape, groups), tuple(steps), shape), joined(scale, bases.shape, groups)


def joined(array: Array, shape: Shape, groups: Sequence[Sequence[int]]) -> Array:
    """An array with groups of neighbouring axes as one, of size 1 where all of them have size 1.

    Args:
        array: of the shape, or with size 1 along some axes.
        shape: in full.
        groups: the axes of each new one.
    """
    made: list[int] = []
    for group in groups:
        if len(group) > 1 and any(array.shape[k] > 1 for k in group):
            array = np.broadcast_to(array, [shape[k] if k in group else n for k, n in enumerate(array.shape)])
        made.append(prod(array.shape[k] for k in group))
    return array.reshape(made)


def collapse(names: Names, bases: Bases, scale: Array, axes: tuple[int, ...]) -> tuple[Bases, Array]:
    """One base for all elements along axes that no longer carry units: multiples of each other as a whole, or apart."""
    rest = tuple(1 if k in axes else n for k, n in enumerate(bases.shape))
    if prod(bases.shape[k] for k in axes) > 4096:
        fresh = names.fresh(rest)
        return fresh.labels, fresh.slim
    lead = first(scale, axes)
    safe = np.where(lead == 0, 1.0, lead)
    fixed = bases.constant.all(axis=axes, keepdims=True)
    start = scale[tuple(slice(0, 1) if k in axes else slice(None) for k in range(scale.ndim))]
    same = fixed & (scale == start).all(axis=axes, keepdims=True)
    made = gathered(names, bases, map(alike, [scale / safe]), axes, steady=True, clear=same)
    return made, np.where(same, start, safe)


def first(scale: Array, axes: tuple[int, ...]) -> Array:
    """Along some axes the first number that is not zero, else 0; the axes have size 1 then."""
    rest = tuple(1 if k in axes else n for k, n in enumerate(scale.shape))
    flat = np.moveaxis(scale, axes, range(len(axes))).reshape(
        -1, *(n for k, n in enumerate(scale.shape) if k not in axes)
    )
    if len(flat) == 1:
        return scale
    return np.asarray(np.take_along_axis(flat, (flat != 0).argmax(axis=0)[None], axis=0)[0].reshape(rest))


def gathered(
    names: Names,
    bases: Bases,
    codes: Iterable[Labels],
    axes: tuple[int, ...],
    *,
    steady: bool = False,
    clear: Array | None = None,
) -> Bases:
    """New bases that everything along some axes determines together; these axes have size 1 then."""
    rest = tuple(1 if k in axes else n for k, n in enumerate(bases.shape))
    steps = tuple(0 if k in axes else step for k, step in enumerate(bases.steps))
    columns = [Bases(part, steps, rest) for part in _lines(bases.starts, axes)]
    told = (part for code in codes for part in _lines(code, axes))
    return names.derive(rest, columns, told, steady=steady, clear=clear)


def _lines(array: Array, axes: tuple[int, ...]) -> list[Array]:
    """What stands at each place along some axes, which have size 1 then."""
    rest = [1 if k in axes else n for k, n in enumerate(array.shape)]
    return list(np.moveaxis(array, axes, range(len(axes))).reshape(-1, *rest))


def _places(result: Spec, axis: int) -> range:
    before = sum(len(a) for a in result[:axis])
    return range(before, before + len(result[axis]))


LIMIT = 1 << 25
DRAWN = 8
"""Random numbers of which a multiple is not met by chance."""
ORDINARY = 1e8
"""A scale up to which, and down to its inverse, what is no nothing beside other weights stays that."""


def contract(names: Names, step: Einsum, values: Sequence[Value], shape: Shape, verdicts: Verdicts) -> Value:
    """The value of `step.out`, in the given shape; operands broadcast along labels that they do not carry."""
    if len(values) == 1:
        return _single(names, step, values[0], shape)
    numeric = [v.bases is None for v in values]
    if len(values) == 2 and any(numeric):
        if all(numeric):
            return _numbers(names, step, values, shape)
        x, w = (0, 1) if numeric[1] else (1, 0)
        return _linear(names, step, (values[x], step.specs[x]), (values[w], step.specs[w]), shape, verdicts)
    return _products(names, step, values, shape)


def _single(names: Names, step: Einsum, value: Value, shape: Shape) -> Value:
    """A rearrangement, a repetition, or a sum over axes."""
    if value.plain and (moved := _moved(names, step, value, shape)) is not None:
        return moved
    sizes = dict(step.sizes)
    if value.bases is None and isinstance(value.held, Weight) and (turned := _turned(step, value)) is not None:
        return turned
    cut = grid(value, step.specs[0], sizes)
    if cut is None:
        return names.fresh(shape)
    gone = [label for label in cut.order if not any(label in axis for axis in step.result)]
    wild = {label for label, n in zip(cut.order, cut.shape, strict=True) if n == 1 and sizes[label] > 1}
    if value.bases is not None and _seats(step.specs[0], wild) != _seats(step.result, wild):
        cut = Grid(names.moved(cut.bases), cut.scale, cut.order)
    repeated = [(x, n) for axis, n in zip(step.result, shape, strict=True) for x in axis if x not in cut.order]
    for label, n in repeated:
        bases = cut.bases
        size = sizes[label] if n > 1 else 1
        bases = Bases(bases.starts[..., None], (*bases.steps, 0), (*bases.shape, size))
        cut = Grid(bases, cut.scale[..., None], (*cut.order, label))
    if value.bases is None:
        full, order = cut.scale, list(cut.order)
        for label in gone:
            k = order.index(label)
            full = full.sum(axis=k, dtype=np.float64) * (sizes[label] / full.shape[k])
            order.remove(label)
        numbers = _grouped(names, step, full, order, shape)
        if (off := value.off) is None or gone or numbers.bases is not None:
            return numbers
        noise = apart(off, value.shape, step.specs[0], sizes)
        assert noise is not None
        noise = noise.reshape((*noise.shape, *(1 for _ in repeated)))
        return known(numbers.scale, _grouped(names, step, noise, order, shape).scale)
    if gone:
        cut = _summed(names, cut, gone, sizes)
    return together(names, cut, step, shape)


def _moved(names: Names, step: Einsum, value: Value, shape: Shape) -> Value | None:
    """A plain value of which only the axes are in another order, cut or joined; None where it is more than that."""
    assert value.bases is not None
    spec, result, sizes = step.specs[0], step.result, step.sizes
    cuts = pieces(value.shape, spec, sizes)
    along: dict[str, tuple[int, int]] = {}
    for axis, cut, stride in zip(spec, cuts or (), value.bases.steps, strict=bool(cuts)):
        for k, (label, n) in enumerate(zip(axis, cut, strict=True)):
            along[label] = n, stride * prod(cut[k + 1 :]) if n > 1 else 0
    if along.keys() != {label for axis in result for label in axis}:
        return None
    steps: list[int] = []
    for axis, size in zip(result, shape, strict=True):
        parts = [along[label] for label in axis if along[label][0] > 1]
        if prod(n for n, _ in parts) != size or any(a != b * n for (_, a), (n, b) in pairwise(parts)):
            return None
        steps.append(parts[-1][1] if parts else 0)
    wild = {label for label, (n, _) in along.items() if n < sizes[label]}
    if wild and _seats(spec, wild) != _seats(result, wild):
        value = names.anew(value, value.slim, steady=True)
    order, wanted = list(along), [label for axis in result for label in axis]
    ends = np.cumsum([len(axis) for axis in result]).tolist()
    groups = [range(end - len(axis), end) for end, axis in zip(ends, result, strict=True)]
    inner, turn = tuple(along[label][0] for label in wanted), [order.index(label) for label in wanted]

    def turned(array: Array) -> Array:
        if array.size == 1:
            return array.reshape((1,) * len(shape))
        return joined(cut_apart(array, cuts or []).transpose(turn), inner, groups)

    return Value(Bases(turned(value.labels.starts), tuple(steps), shape), turned(value.slim), shape, plain=True)


def _summed(names: Names, cut: Grid, gone: list[str], sizes: dict[str, int]) -> Grid:
    """The sum along some labels."""
    kept = [label for label in cut.order if label not in gone]
    cut = cut.turn([*gone, *kept])
    axes = tuple(range(len(gone)))
    bases, scale = cut.bases, cut.scale
    fixed = np.asarray(bases.constant.all(axis=axes, keepdims=True))
    many = prod(cut.shape[k] for k in axes)
    if many == 1:
        wide = prod(sizes[label] for label in gone)
        made = names.derive(bases.shape, [bases], steady=True, clear=fixed)
        size = np.where(fixed, scale * wide, scale)
    else:
        total = _total(scale, cut.shape, axes)
        lead = first(np.where(absent(scale), 0.0, scale), axes)
        rest = (*(1 for _ in axes), *cut.shape[len(axes) :])
        if many <= 2048:
            made = gathered(
                names, bases, map(alike, [scale / np.where(lead == 0, 1.0, lead)]), axes, steady=True, clear=fixed
            )
        else:
            made, lead = names.fresh(rest).labels.clear(fixed), np.where(lead == 0, 0.0, 1.0)
        size = np.where(fixed, total, lead)
    shape = made.shape[len(axes) :]
    starts = made.starts.reshape(made.starts.shape[len(axes) :])
    return Grid(Bases(starts, made.steps[len(axes) :], shape), size.reshape(size.shape[len(axes) :]), tuple(kept))


def _total(scale: Array, shape: Shape, axes: tuple[int, ...]) -> Array:
    """The sum along some axes of numbers that may have size 1 along them."""
    repeated = prod(shape[k] for k in axes if scale.shape[k] == 1)
    return np.asarray(scale.sum(axis=axes, keepdims=True) * repeated)


def _seats(spec: Spec, wild: set[str]) -> list[tuple[int, str]]:
    """Where the places that carry no units stand, counted from the last axis: a base is a function of them."""
    return [(len(spec) - k, label) for k, axis in enumerate(spec) for label in axis if label in wild]


def _turned(step: Einsum, value: Value) -> Value | None:
    """A weight with its axes in another order, cut or joined; None where it is more than a view."""
    assert isinstance(value.held, Weight)
    order = [label for axis in step.specs[0] for label in axis]
    wanted = [label for axis in step.result for label in axis]
    cuts = pieces(value.shape, step.specs[0], step.sizes)
    if cuts is None or sorted(order) != sorted(wanted) or value.noise is not None:
        return None
    made = tuple(prod(step.sizes[x] for x in axis) for axis in step.result)
    inner = tuple(step.sizes[x] for x in order)
    if prod(value.shape) != prod(made) or prod(made) > LIMIT:
        return None
    places = tuple(order.index(label) for label in wanted)

    def turn(array: Array) -> Array:
        return array.reshape(inner).transpose(places).reshape(made)

    return Value(None, value.held.view(made, (inner, places, made), turn), made)


def _grouped(names: Names, step: Einsum, full: Array, order: list[str], shape: Shape) -> Value:
    """Known numbers in the grouping of the result, written out in full where that is small."""
    wanted = [label for axis in step.result for label in axis]
    full = full.transpose([order.index(label) for label in wanted])
    whole = tuple(step.sizes[label] for label in wanted)
    made = tuple(prod(step.sizes[x] for x in axis) for axis in step.result)
    if prod(whole) > LIMIT:
        return names.fresh(shape)
    return known(np.broadcast_to(full, whole).reshape(made))


def _numbers(names: Names, step: Einsum, values: Sequence[Value], shape: Shape) -> Value:
    """A product of known numbers."""
    sizes = dict(step.sizes)
    if sum(prod(v.shape) for v in values) > LIMIT:
        return names.fresh(shape)
    cuts = [grid(v, spec, sizes) for v, spec in zip(values, step.specs, strict=True)]
    if any(c is None for c in cuts):
        return names.fresh(shape)
    letter = {label: chr(97 + k) if k < 26 else chr(39 + k) for k, label in enumerate(step.sizes)}
    full = [np.broadcast_to(c.scale, [sizes[x] for x in c.order]).astype(np.float64) for c in cuts if c is not None]
    sides = ["".join(letter[x] for x in c.order) for c in cuts if c is not None]
    made = "".join(letter[x] for axis in step.result for x in axis)
    pattern = f"{','.join(sides)}->{made}"
    product = np.einsum(pattern, *full, optimize=True)
    if len(set("".join(sides))) > len(made) and all("float" in v.dtype for v in values):
        # What cancels to the rounding of the weights is nothing: in another gauge it is another such number.
        terms = np.einsum(pattern, *map(np.abs, full), optimize=True)
        rounding = ROUNDING * max(precision(v.dtype) for v in values)
        product = np.where(np.abs(product) <= rounding * terms, 0.0, product)
    order = [x for axis in step.result for x in axis]
    return _grouped(names, step, product, order, shape)


def _linear(
    names: Names, step: Einsum, x: tuple[Value, Spec], w: tuple[Value, Spec], shape: Shape, verdicts: Verdicts
) -> Value:
    """Known weights times unknown bases: an output is its row of weights over the distinct bases."""
    sizes = dict(step.sizes)
    wide, made = ([label for axis in spec for label in axis] for spec in (w[1], step.result))
    cut, whole = _met(names, step, x, wide, shape), pieces(w[0].shape, w[1], sizes)
    roles = None if cut is None or whole is None else _roles(cut, wide, made, sizes)
    if cut is None or roles is None:
        return names.fresh(shape)
    passing, batch, out, read, along = roles
    parts = (batch, out, read, along)
    count = [prod(sizes[label] for label in part) for part in parts]
    places = [tuple(wide.index(label) for label in part) for part in parts]

    def layout(values: Array) -> Array:
        labelled = apart(values, w[0].shape, w[1], sizes)
        assert labelled is not None
        full = np.broadcast_to(labelled, [sizes[label] for label in wide])
        return full.transpose([k for part in places for k in part]).reshape(count)

    stored = w[0].held
    key = (stored.key, *places, *(sizes[label] for label in wide)) if isinstance(stored, Weight) else None
    matrix = _matrix(stored, w[1], places, layout, count) if isinstance(stored, Weight) else None
    off = stored.off.then(layout) if isinstance(stored, Weight) and stored.off is not None else None
    weights = Columns(lambda: layout(w[0].slim), count[1], count[3], verdicts, key, matrix, off)
    tolerance = ROUNDING * precision(w[0].dtype)
    if x[0].plain and isinstance(stored, Weight) and (count[2] > 1 or _ordinary(x[0].slim, off)):
        quiet = names.still(x[0].labels.starts)
        same = quiet.all() or not quiet.any()
        if same and (_drawn_apart(stored, count) or apart_rows(weights, count[0], count[2], tolerance)):
            told = names.fresh(shape)
            names.settle(told.labels, None if quiet.all() else quiet)
            return told
    cut = cut.align([*batch, *passing, *read])
    # What is the same at every place, or differs from place to place in a regular way, is looked at once.
    free = [k + len(batch) for k, label in enumerate(passing) if _once(cut, label)]
    bases = cut.bases.write(k for k in range(len(cut.order)) if k not in free)
    dims = [1 if k in free else n for k, n in enumerate(cut.shape)]
    many = prod(dims[len(batch) : len(batch) + len(passing)])
    starts, scale = (np.broadcast_to(a, dims).reshape(count[0], many, count[2]) for a in (bases.starts, cut.scale))
    rows = combine(names, starts, scale, weights, tolerance)
    shared = (*cut.shape[: len(batch) + len(passing)], *(sizes[label] for label in out))
    within = (*dims[: len(batch) + len(passing)], *shared[len(batch) + len(passing) :])
    found = _named(names, rows, within, shared, [k for k in free if bases.steps[k]])
    scale = np.ones((1,) * len(within)) if (rows.scale == 1).all() else rows.scale.reshape(within)
    done = Grid(found, scale, (*batch, *passing, *out))
    missing = tuple(label for label in made if label not in done.order)
    return together(names, done.align([*done.order, *missing]), step, shape)


def _met(names: Names, step: Einsum, x: tuple[Value, Spec], wide: Sequence[str], shape: Shape) -> Grid | None:
    """What weights read; along units that they have and it has not it is another function at each place."""
    cut = grid(*x, step.sizes)
    if cut is None:
        return None
    units = {label for axis, n in zip(step.result, shape, strict=True) for label in axis if n > 1 and label in wide}
    full = (step.sizes[label] if label in units else n for label, n in zip(cut.order, cut.shape, strict=True))
    return Grid(names.apart(cut.bases, tuple(full)), cut.scale, cut.order)


def _drawn_apart(stored: Weight, count: Sequence[int]) -> bool:
    """Whether each row, of the shape (batch, rows, units, rest), has numbers of its own, too many for two to agree."""
    return stored.random and prod(stored.shape) == prod(count) and count[2] * count[3] >= DRAWN


def _ordinary(scale: Array, off: Off | None) -> bool:
    """Whether scales change nothing of what is found of the rows that each of them multiplies."""
    if scale.size == 1 and scale.reshape(-1)[0] == 1:
        return True
    size = np.abs(scale)
    return off is None and bool((size > 1 / ORDINARY).all() and (size < ORDINARY).all())


def _roles(cut: Grid, wide: list[str], made: list[str], sizes: Mapping[str, int]) -> tuple[list[str], ...] | None:
    """The labels of a contraction with weights: those that pass them, the batch, those of outputs, units, and others.

    None where an axis without units, or one that is summed, cannot be told by the weights.
    """
    units = [label for label in cut.order if cut.size(label) == sizes[label]]
    batch = [label for label in made if label in wide and label in units]
    out = [label for label in made if label in wide and label not in cut.order]
    passing = [label for label in made if label not in wide and label in units]
    read = [label for label in wide if label not in made and label in units]
    along = [label for label in wide if label not in made and label in cut.order and label not in units]
    alone = [label for label in wide if label not in made and label not in cut.order]
    lost = [label for label in units if label not in made and label not in wide]
    varying = [label for label in made if label in wide and label in cut.order and label not in units]
    return None if lost or alone or varying else (passing, batch, out, read, along)


def _named(names: Names, rows: Rows, within: Shape, shape: Shape, free: Sequence[int]) -> Bases:
    """New bases for rows that were looked at once for all places of the axes `free`.

    Args:
        names: gives them their numbers.
        rows: what was found.
        within: their shape, with size 1 along axes that were not written out.
        shape: in full.
        free: axes along which each place makes a base of its own.
    """
    many = prod(shape[k] for k in free)
    steps, size = [0] * len(shape), 1
    for k in reversed(free):
        steps[k], size = size, size * shape[k]
    order = rows.base.reshape(-1)
    apart = order.size > 1 and not rows.still.any() and bool((order == np.arange(order.size)).all())
    if apart:  # every row makes a base of its own, so that their labels are in steps
        size, start = many, np.full((1,) * len(shape), names.count)
        for k in reversed(range(len(shape))):
            if within[k] > 1:
                steps[k], size = size, size * within[k]
        found = Bases(start, tuple(steps), shape)
    else:
        found = Bases((rows.base * many + names.count).reshape(within), tuple(steps), shape)
    names.count += (int(rows.base.max(initial=-1)) + 1) * many
    quiet = (rows.steady & ~rows.still).reshape(within)
    if quiet.any():
        names.settle(found, None if quiet.all() else quiet)
    return found if apart else Bases(np.where(rows.still.reshape(within), 0, found.starts), found.steps, found.shape)


def _matrix(
    stored: Weight,
    spec: Spec,
    places: Sequence[tuple[int, ...]],
    layout: Callable[[Array], Array],
    count: Sequence[int],
) -> Matrix | None:
    """A weight that is worked out in blocks, as rows and columns; None where it is no such matrix."""
    worked_out: object = stored.read
    batch, out, read, along = places
    if isinstance(worked_out, Levels) and not batch:
        table = count[1], count[2] * count[3]
        return Matrix(worked_out.view(table, lambda values: layout(values).reshape(table)))
    if not isinstance(worked_out, Blockwise) or len(spec) != 2 or batch or along:
        return None
    first, second = tuple(range(len(spec[0]))), tuple(range(len(spec[0]), len(spec[0]) + len(spec[1])))
    if (out, read) == (first, second):
        return Matrix(worked_out)
    if (read, out) == (first, second):
        return Matrix(worked_out, turned=True)
    return None


def _once(cut: Grid, label: str) -> bool:
    """Whether neither scales nor labels have numbers of their own along a label."""
    k = cut.order.index(label)
    return bool(cut.scale.shape[k] == 1 and cut.bases.starts.shape[k] == 1)


def _products(names: Names, step: Einsum, values: Sequence[Value], shape: Shape) -> Value:
    """Products of unknown bases: equal where all factors are equal, in order; zero where every product is."""
    sizes = dict(step.sizes)
    cuts = [grid(v, spec, sizes) for v, spec in zip(values, step.specs, strict=True)]
    if any(c is None for c in cuts):
        return names.fresh(shape)
    every = list(dict.fromkeys(label for c in cuts if c is not None for label in c.order))
    gone = [label for label in every if not any(label in axis for axis in step.result)]
    kept = [label for label in every if label not in gone]
    grids = [c.align([*gone, *kept]) for c in cuts if c is not None]
    wide = np.broadcast_shapes(*(g.shape for g in grids))
    if prod(wide) > LIMIT // 8 or prod(wide[: len(gone)]) > 2048:
        return names.fresh(shape)
    scale = np.ones((1,) * len(wide))
    for g in grids:
        scale = scale * g.scale
    zero = absent(scale)
    bases = names.derive(wide, [g.bases for g in grids], steady=True, clear=zero)
    flat = np.where(zero, 0.0, scale)
    axes = tuple(range(len(gone)))
    lead = first(flat, axes)
    nothing = lead == 0
    made = gathered(names, bases, map(alike, [flat / np.where(nothing, 1.0, lead)]), axes, steady=True, clear=nothing)
    starts = made.starts.reshape(made.starts.shape[len(gone) :])
    made = Bases(starts, made.steps[len(gone) :], made.shape[len(gone) :])
    return together(names, Grid(made, lead.reshape(lead.shape[len(gone) :]), tuple(kept)), step, shape)
