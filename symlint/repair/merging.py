"""Merging: of units or heads that are one function, one keeps the work of all; the others are read no more.

Folding: what constant units contribute to their readers goes into biases; the units are read no more.

Factoring: writers and readers of a linear space with the same product through as few units as its rank.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.rehearsal import Rehearsal, Unrehearsed, entered
from symlint.evidence.context import Context
from symlint.evidence.products import READS, WRITES, Factors, Product
from symlint.evidence.ranks import CLEAR, Matrix, Rank
from symlint.evidence.twins import twins
from symlint.model.clusters import median
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Mix, Program, Slice, rearranges
from symlint.symmetry.motion.action import scale, stands, transform
from symlint.symmetry.motion.membership import members
from symlint.symmetry.motion.motion import Weights, fresh_weights
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.element import changes

Place = tuple[str, int]
"""A weight of the program and one of its axes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A contraction of units with weights."""

    step: Einsum
    operand: str
    """The tensor that holds the units there."""
    places: tuple[Place, ...]
    """The weights that they are summed over with."""


def readings(structure: Structure, leaf: int, moving: Collection[str]) -> tuple[Reading, ...] | None:
    """Every place where units of a leaf leave the network's activations; None where that is not by stored weights only.

    Args:
        structure: of the network.
        leaf: whose units are asked for.
        moving: the tensors that depend on the input.
    """
    found: list[Reading] = []
    program, of, leaves = structure.program, structure.axes.of, structure.axes.factors.leaves
    held = structure.axes.factors.holders.get(leaf, set()) & of.keys()
    for step in program.reading(held):
        mine = [name for name in step.operands if name in held]
        if not mine:
            continue
        if any(leaf in leaves(of[name][k]) for name in mine for k in step.joint):
            return None
        if isinstance(step, Mix):
            if any(leaf in leaves(f) for k, f in enumerate(of[step.x]) if k not in step.sources):
                return None
        elif isinstance(step, Einsum) and (summed := set(_summed(structure, step, leaf))):
            reading = _reading(program, step, summed, moving)
            if reading is None:
                return None
            found.append(reading)
    ends = {id(reading.step) for reading in found}
    weights = {name for reading in found for name, _ in reading.places}
    if any(name in program.detached or not _only(program, name, ends, held) for name in weights):
        return None
    return tuple(found)


def _only(program: Program, name: str, ends: Collection[int], held: Set[str]) -> bool:
    """Whether all that is made of a weight, and holds the units, goes to these steps."""
    waiting = {name}
    while waiting:
        top = waiting.pop()
        for step in program.reading((top,)):
            if id(step) in ends:
                continue
            if not set(step.results) <= program.makers.keys():
                return False
            waiting.update(held & set(step.results))
    return True


def _summed(structure: Structure, step: Einsum, leaf: int) -> Iterator[tuple[int, int]]:
    """Operand and axis of every occurrence of a leaf that the result of a contraction lacks."""
    factors, of = structure.axes.factors, structure.axes.of
    made = step.kept
    for j, (name, spec) in enumerate(zip(step.operands, step.specs, strict=True)):
        for k, labels in enumerate(spec):
            rest = of[name][k]
            for n, label in enumerate(labels):
                part = rest
                if n < len(labels) - 1:
                    halves = factors.split(rest, step.sizes[label])
                    if halves is None:
                        return
                    part, rest = halves
                if label not in made and leaf in factors.leaves(part):
                    yield j, k


def _reading(
    program: Program, step: Einsum, summed: Collection[tuple[int, int]], moving: Collection[str]
) -> Reading | None:
    units = [step.operands[j] for j, _ in summed if step.operands[j] in moving]
    weights = [(step.operands[j], k) for j, k in summed if step.operands[j] not in moving]
    sources = [_source(program, name, axis) for name, axis in weights]
    if len(units) != 1 or not sources:
        return None
    places = tuple(place for place in sources if place is not None)
    return Reading(step, units[0], places) if len(places) == len(sources) else None


def _source(program: Program, name: str, axis: int) -> Place | None:
    """The floating weight and its axis of which an axis of a constant tensor is; None where it is not one alone."""
    while name not in program.weights:
        step = program.makers.get(name)
        if isinstance(step, Slice) and step.axis != axis:
            name = step.x
            continue
        if not rearranges(step):
            return None
        where = [k for k, labels in enumerate(step.specs[0]) if labels == step.result[axis]]
        if len(where) != 1:
            return None
        name, axis = step.operands[0], where[0]
    return (name, axis) if program.model.tensors[program.weights[name]].floating else None


SPREAD = 1e-5
"""How far the multiple of a unit may differ from place to place, relative."""
Group = Sequence[int]


def merge(context: Context, weights: Weights, space: str, groups: Sequence[Group]) -> tuple[int, ...]:
    """Let the first unit of each group do the work of the others; the units that are read no more.

    Args:
        context: the network.
        weights: change in place.
        space: its permutation tells where the units lie.
        groups: units, copy-major, that are multiples of their first wherever they are read.
    """
    action = context.structure.permutation(space)
    size = context.structure.axes.factors.size(action.leaf)
    found = _multiplied(context, action, groups)
    for reading, factor in found:
        shape = [*(context.structure.axes.factors.size(c) for c in action.copies), size, size]
        matrix = np.broadcast_to(np.eye(size), shape).reshape(-1, size, size).copy()
        for group in groups:
            copy, first = divmod(group[0], size)
            for unit in group[1:]:
                matrix[copy, first, unit % size] = factor[unit]
                matrix[copy, unit % size, unit % size] = 0.0
        for name, axis in reading.places:
            weights.put(name, _applied(context, action, weights.get(name), name, axis, matrix.reshape(shape)))
    return _others(groups) if found else ()


def mergeable(context: Context, space: str, groups: Sequence[Group]) -> tuple[int, ...]:
    """The units of which others can do the work, without a change; none where that is not possible."""
    found = _multiplied(context, context.structure.permutation(space), groups)
    return _others(groups) if found else ()


def _others(groups: Sequence[Group]) -> tuple[int, ...]:
    return tuple(sorted(unit for group in groups for unit in group[1:]))


def _multiplied(context: Context, action: Action, groups: Sequence[Group]) -> list[tuple[Reading, Mapping[int, float]]]:
    """The readings of units, with how many times its group's first unit each is there; empty where that fails."""
    found = readings(context.structure, action.leaf, context.moving)
    if not found:
        return []
    size = context.structure.axes.factors.size(action.leaf)
    ones = {unit: 1.0 for group in groups for unit in group}
    # Where a rule says that all units are one, they are equal though chance could have made them so.
    alike = ones if all(len(group) == size for group in groups) else None
    factors = [multiples(context, action, reading, groups) or alike for reading in found]
    told: list[tuple[Reading, Mapping[int, float]]] = [
        (reading, factor) for reading, factor in zip(found, factors, strict=True) if factor is not None
    ]
    return told if len(told) == len(found) and _agree(found, factors) else []


def _agree(found: Sequence[Reading], factors: Sequence[Mapping[int, float] | None]) -> bool:
    """Whether each weight that reads units in several places sees the same multiples everywhere."""
    seen: dict[str, dict[int, float]] = {}
    for reading, factor in zip(found, factors, strict=True):
        for name, _ in reading.places:
            for unit, number in (factor or {}).items():
                known = seen.setdefault(name, {}).setdefault(unit, number)
                if abs(known - number) > SPREAD * abs(known):
                    return False
    return True


def multiples(context: Context, action: Action, reading: Reading, groups: Sequence[Group]) -> dict[int, float] | None:
    """How many times its group's first unit each unit is, as one reading sees it; None where it is no multiple."""
    value = context.values.get(reading.operand)
    rows = None
    if value is not None:
        axes = context.structure.axes.of[reading.operand]
        rows = members(context.structure, context.plain(action), axes, value.shape)
    if value is None or rows is None or context.plain(action).copies != action.copies:
        return None
    labels, scale = value.numbers.reshape(-1)[rows], np.asarray(value.scale, np.float64).reshape(-1)[rows]
    found: dict[int, float] = {}
    for group in groups:
        first = group[0]
        for unit in group[1:]:
            if not np.array_equal(labels[first], labels[unit]) or not scale[first].all():
                return None
            ratio = scale[unit] / scale[first]
            middle = median(ratio)
            if not np.all(np.abs(ratio - middle) <= SPREAD * abs(middle)):
                return None
            found[unit] = middle
    return found


def _applied(context: Context, action: Action, values: Array, name: str, axis: int, matrix: Array) -> Array:
    """A weight whose units along one axis become the combinations that the rows of the matrix say."""
    structure = context.structure
    stood = [
        s for s in stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies) if s.axis == axis
    ]
    return transform(values, stood, matrix, {(s.axis, s.term, s.place): Fraction(1) for s in stood})


def gather(context: Context, weights: Weights, space: str) -> tuple[int, ...]:
    """Let the first of each group of twins contribute what all of it does; the units that are read no more.

    Args:
        context: the network.
        weights: change in place.
        space: its permutation tells where the units lie.
    """
    action = context.structure.permutation(space)
    found = readings(context.structure, action.leaf, context.moving)
    same = twins(context.structure, action, context.moving)
    if not found or same is None:
        return ()
    _settle(context, weights, action)
    factor = np.ones(context.structure.axes.factors.size(action.leaf))
    for group in same.groups:
        factor[list(group)] = 0.0
        factor[group[0]] = sum(same.multiples[unit] for unit in group)
    expansion, of = context.structure.expansion, context.structure.axes.of
    for name, axis in dict.fromkeys(place for reading in found for place in reading.places):
        stood = [s for s in stands(expansion, of[name], action.leaf, ()) if s.axis == axis]
        charge = {(s.axis, s.term, s.place): Fraction(1) for s in stood}
        weights.put(name, np.asarray(scale(weights.get(name), stood, factor, charge)))
    return tuple(sorted(unit for group in same.groups for unit in group[1:]))


def gatherable(context: Context, space: str) -> tuple[int, ...]:
    """The units of which a twin can do the work, without a change; none where that is not possible."""
    action = context.structure.permutation(space)
    same = twins(context.structure, action, context.moving)
    if not readings(context.structure, action.leaf, context.moving) or same is None:
        return ()
    return tuple(sorted(unit for group in same.groups for unit in group[1:]))


def _settle(context: Context, weights: Weights, action: Action) -> None:
    """Move what units add whatever the input is to where others take it over, as the bias of the output does.

    That is the bias of the values, and what these make of the shift of a normalisation before them.
    """
    structure = context.structure
    for moved in (action.translation for action in structure.shifts):
        if moved.nowhere is not None or not moved.absorbers:
            continue
        if moved.weight in structure.program.detached or len(moved.wave.classes) != 1:
            continue
        if not any(True for _ in stands(structure.expansion, structure.axes.of[moved.weight], action.leaf, ())):
            continue
        value = _still(context, weights, moved.weight)
        if value is None:
            continue
        # Where a change is the same for several elements their mean goes, and with it all that a change may be.
        (classes,) = moved.wave.classes
        size = -np.asarray([value[classes == k].mean() for k in np.unique(classes[classes >= 0])])
        for name, change in list(changes(moved, weights.numbers, size.reshape(moved.shape))):
            weights.put(name, weights.get(name) + change)


def _still(context: Context, weights: Weights, bias: str) -> Array | None:
    """What a bias is added up to where everything that comes in is zero; None where it is not simply added."""
    program = context.structure.program
    added = [s for s in program.steps if bias in s.operands]
    if len(added) != 1 or not added[0].known.sums:
        return None
    (out,) = added[0].results
    inside = {n for n in (*added[0].operands, out) if n in context.moving}
    now = {n: weights.get(n) for n, stored in program.weights.items() if stored in weights.now}
    try:
        part = entered(program, inside, context.moving)
        value = Rehearsal(program, part, 0, given=now, size=0.0).value(out)
    except Unrehearsed:
        return None
    shape = program.shapes[bias]
    first = value[(0,) * (value.ndim - len(shape))]
    return np.asarray(first[tuple(slice(0, n) for n in shape)])


PLAIN = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
SHIFTED = (*PLAIN, "com.microsoft.FusedConv", "com.microsoft.FusedGemm")
"""Operators whose result can be given a bias."""
SLOTS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "FusedConv": 2, "FusedGemm": 2}
"""Operator -> the operand that is its bias."""
BORDER = "padding or a quantiser tells them from a bias"
UNREADABLE = "their readers are no plain weights, which could be added up to a bias"


@dataclass(frozen=True, slots=True)
class Offset:
    """What to add to the contraction that a node makes: an array that broadcasts against its result."""

    step: Einsum
    values: Array


@dataclass(frozen=True, slots=True)
class Fold:
    """Units that go into biases, and groups of which one unit does the work because a border tells them from biases."""

    units: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    reason: str = ""
    """Why there are none."""

    @property
    def spare(self) -> tuple[int, ...]:
        """The units that are read no more once this is done."""
        return tuple(sorted((*self.units, *(unit for group in self.groups for unit in group[1:]))))


def foldable(context: Context, space: str, units: Sequence[int]) -> Fold:
    """What can become of constant units."""
    action = context.structure.permutation(space)
    found = readings(context.structure, action.leaf, context.moving)
    if not found:
        return Fold((), (), UNREADABLE)
    constants = [_constants(context, action, r) if r.step.node.op in SHIFTED else None for r in found]
    plain = tuple(u for u in units if all(c is not None and u in c.units for c in constants))
    size = context.structure.axes.factors.size(action.leaf)
    groups: list[list[int]] = []
    for unit in units:
        if unit in plain:
            continue
        for group in groups:
            if group[0] // size == unit // size and all(
                multiples(context, action, r, [(group[0], unit)]) for r in found
            ):
                group.append(unit)
                break
        else:
            groups.append([unit])
    fixed = next((r.step.node for r in found if r.step.node.op not in SHIFTED), None)
    why = BORDER if fixed is None else f"{fixed.op} {fixed.name or fixed.outputs[0]!r} can be given no bias"
    return Fold(plain, tuple(tuple(g) for g in groups if len(g) > 1), why)


def fold(context: Context, weights: Weights, space: str, units: Sequence[int]) -> Iterator[Offset]:
    """Take constant units out of their readers; what they contributed has to be added.

    Args:
        context: the network.
        weights: change in place.
        space: of the units.
        units: copy-major, as `foldable` tells them.
    """
    structure = context.structure
    action = structure.permutation(space)
    factors = structure.axes.factors
    shape = [*(factors.size(c) for c in action.copies), factors.size(action.leaf)]
    found = readings(structure, action.leaf, context.moving) or ()
    stay = np.ones(shape)
    stay.reshape(-1)[list(units)] = 0.0
    # One weight may read them in several places: all see it as it was.
    for reading in found:
        constants = _constants(context, action, reading)
        assert constants is not None  # such units are not chosen
        made = weights.numbers.apply(reading.step, {reading.operand: constants.of(units)})[reading.step.out]
        yield Offset(reading.step, made)
    for name, axis in dict.fromkeys(place for reading in found for place in reading.places):
        weights.put(name, _scaled(context, action, structure.axes.of[name], weights.get(name), stay, axis))


def _scaled(
    context: Context, action: Action, axes: Sequence[int], values: Array, factor: Array, axis: int | None = None
) -> Array:
    """Values with every unit times its factor, where they lie along one axis if one is named."""
    stood = [s for s in stands(context.structure.expansion, axes, action.leaf, action.copies) if axis in (None, s.axis)]
    return np.asarray(scale(values, stood, factor, {(s.axis, s.term, s.place): Fraction(1) for s in stood}))


@dataclass(frozen=True, slots=True, eq=False)
class _Constants:
    """The units that are known numbers where they are read: one, or one for each of the places that they have."""

    values: Array
    """What is read, with size 1 along axes along which it is the same."""
    rows: NDArray[np.int64]
    """For every unit, where in it that stands."""
    units: frozenset[int]
    """The units that are."""

    def of(self, units: Sequence[int]) -> Array:
        """Of some units, and zero of all that stands beside them."""
        filled, chosen = np.zeros(self.values.shape), self.rows[list(units)]
        filled.reshape(-1)[chosen] = self.values.reshape(-1)[chosen]
        return filled


def _constants(context: Context, action: Action, reading: Reading) -> _Constants | None:
    value, axes = context.values.get(reading.operand), context.structure.axes.of[reading.operand]
    if value is None or context.plain(action).copies != action.copies:
        return None
    leaves, involved = context.structure.axes.factors.leaves, {action.leaf, *action.copies}
    shape = tuple(n if involved.intersection(leaves(f)) else 1 for f, n in zip(axes, value.shape, strict=True))
    first = tuple(slice(0, n) for n in shape)
    numbers = np.array(value.scale[first], np.float64)
    alike = (value.constant & (value.scale == numbers)).all(
        axis=tuple(k for k, n in enumerate(shape) if n == 1), keepdims=True
    )
    rows = members(context.structure, action, axes, shape)
    if rows is None:
        return None
    return _Constants(numbers, rows, frozenset(np.flatnonzero(alike.reshape(-1)[rows].all(axis=1)).tolist()))


Pairs = list[tuple[Matrix, Matrix]]


def narrowest(context: Context, product: Product) -> int | None:
    """With how many units every copy can carry a product that is low in rank in some copy; None where none can go."""
    return _width(product, _pairs(context, fresh_weights(context.structure), product)[0])


def factor(context: Context, weights: Weights, product: Product) -> int | None:
    """Let the first units of every copy carry the product; how many they are, or None where none can go.

    With a singular value decomposition U S V' of the product of readers B and writers A, each row of these brought to
    one size, G = S^-1/2 U' B and H = A V S^-1/2 have G H = 1 and B H G A = B A: the new writers are G A, the new
    readers B H, which are balanced.

    Args:
        context: the network.
        weights: change in place.
        product: of one space, low in rank in some copy.
    """
    structure = context.structure
    action = structure.actions[product.generator]
    found, factors = _pairs(context, weights, product)
    width = _width(product, found)
    if width is None:
        return None
    names = {o.tensor for o in factors.charge}
    n = product.width
    outer = [structure.axes.factors.size(c) for c in action.copies]
    matrices = np.zeros((2, len(found), n, n))
    for k, (g, h) in enumerate(found):
        matrices[0, k, : len(g)], matrices[1, k, : len(g)] = g, h.T
    for side, matrix in ((WRITES, matrices[0]), (READS, matrices[1])):
        for name in names:
            mine = {
                (o.axis, o.term, o.place): Fraction(1)
                for o, c in factors.charge.items()
                if o.tensor == name and c == side
            }
            if mine:
                stood = list(stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies))
                weights.put(name, transform(weights.get(name), stood, matrix.reshape(*outer, n, n), mine))
    return width


def _pairs(context: Context, weights: Weights, product: Product) -> tuple[Pairs, Factors]:
    """Copy by copy what the writers and the readers of a product are multiplied with."""
    factors = Factors(context.structure, context.structure.actions[product.generator], frozenset())
    counted = {name: _seen(context, name, weights.get(name)) for name in {o.tensor for o in factors.charge}}
    writers, readers = factors.rows(counted, WRITES), factors.rows(counted, READS)
    return [
        _pair(a, b, product.low.get(k), product.width, factors.unit)
        for k, (a, b) in enumerate(zip(writers, readers, strict=True))
    ], factors


def _width(product: Product, found: Pairs) -> int | None:
    width = max(1, *(len(g) for g, _ in found))
    return width if width < product.width else None


def _seen(context: Context, name: str, values: Array) -> Array:
    """A weight without the elements that may be any number, such as the bias of keys."""
    for moved in (action.translation for action in context.structure.shifts):
        if moved.weight == name and moved.free and not moved.absorbers and not moved.sinks:
            there = np.ix_(*(np.flatnonzero(classes >= 0) for classes in moved.wave.classes))
            values = values.copy()
            values[there] = 0.0
    return values


def _pair(writers: Array, readers: Array, rank: Rank | None, width: int, unit: float) -> tuple[Matrix, Matrix]:
    """G (r, n) and H (n, r) of one copy. A bias that others could take over counts here, though not in the rank."""
    left, right = _triangle(readers), _triangle(writers)
    u, s, vt = np.linalg.svd(left @ right.T)
    count = rank.rank if rank else width
    if rank and rank.rank:
        noise = CLEAR * max(rank.tolerance, 1e-12) * float(s.max(initial=0.0))
    else:  # the largest is no measure where it may be noise itself
        noise = CLEAR * unit * float(np.linalg.norm(left) * np.linalg.norm(right))
    while count < len(s) and s[count] > noise:
        count += 1
    count = min(count, int(np.count_nonzero(s > 0)))
    root = s[:count] ** -0.5
    return (root[:, None] * (u[:, :count].T @ left)), (right.T @ vt[:count].T) * root


def _triangle(rows: Array) -> Matrix:
    """A matrix with the inner products of the columns of the rows, each row of size one."""
    wide = rows.astype(np.float64)
    size = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return np.asarray(np.linalg.qr(wide[size > 0] / size[size > 0, None], mode="r"))
