"""Elements of translations: the numbers of a change, and of what takes it back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from math import prod

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.program.functions import dispatched
from symlint.program.numbers import Labelled, Numbers, multiply, regroup, ungroup
from symlint.program.steps import Einsum, Mix, Pointwise, Program, Slice, Step
from symlint.symmetry.translation.absorption import Back, Way, sources
from symlint.symmetry.translation.course import Nowhere, Translation, Visit
from symlint.symmetry.translation.null import Null, alone, direction, mass, total
from symlint.symmetry.translation.wave import Kind, Wave, same

SMALL = 2.0**-10
"""A gain that is smaller than this share of the largest takes nothing back."""


def changes(translation: Translation, numbers: Numbers, size: Array) -> Iterator[tuple[str, Array]]:
    """What to add to which weight of the program, given one number per class: shape of `translation.shape`."""
    for name, parts in factors(translation, numbers, size):
        yield name, reduce(np.multiply, parts)


def factors(translation: Translation, numbers: Numbers, size: Array) -> Iterator[tuple[str, tuple[Array, ...]]]:
    """The same changes, each as arrays whose product it is: a change along a null direction need not be written out."""
    made = _Element(translation, numbers).changes(size)
    return iter(_bearable(translation, numbers, size)) if translation.gained else made


def _bearable(translation: Translation, numbers: Numbers, size: Array) -> list[tuple[str, tuple[Array, ...]]]:
    """The same without those indices, along one axis, that gains of zero do not let anything take back."""

    def tried(part: Array) -> list[tuple[str, tuple[Array, ...]]] | None:
        made = list(_Element(translation, numbers).changes(part))
        return made if all(np.isfinite(array).all() for _, parts in made for array in parts) else None

    for axis in range(size.ndim):
        kept, todo = np.zeros_like(size), [np.arange(size.shape[axis])]
        while todo:
            some, part = todo.pop(), np.zeros_like(size)
            place = (slice(None),) * axis + (some,)
            part[place] = size[place]
            if tried(part) is not None:
                kept += part
            elif len(some) > 1:
                todo += np.array_split(some, 2)
        if kept.any() and (made := tried(kept)) is not None:
            return made
    return list(_Element(translation, numbers).changes(np.zeros_like(size)))


def brought_back(numbers: Numbers, last: Back, way: Way, array: Array) -> Array:
    """The change of a weight that makes the output of the `last` step of its way change by `array`."""
    return _Backwards(numbers).back(array, Way((last, *way.steps), way.weight, way.wave))


def steepness(translation: Translation, numbers: Numbers, size: Array) -> float:
    """How far what takes a bent change back is from nothing that could: the smallest share that a sum has of a length.

    The sum is that along the null of what is read, with the change; without it, it may be of the other sign.
    """
    element = _Element(translation, numbers)
    found: list[float] = []
    for _ in element.changes(size):
        pass
    for visit in translation.visits:
        if visit.bent is None:
            continue
        name = visit.step.operands[visit.entering[0]]
        along, before, more = element.sum(visit.bent, name)
        length = float(np.linalg.norm(along)) * (abs(before) + float(np.linalg.norm(element.arrays[name])))
        found.append(abs(before + more) / length if before * more >= 0 and length else 0.0)
    return min(found, default=1.0)


class _Backwards:
    """From a change of what a weight moves back to that of the weight."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.program: Program = numbers.program

    def back(self, array: Array, way: Way) -> Array:
        """The change of a weight that makes the first output of its way change by `array`."""
        for back in way.steps:
            array = self._undone(back, array)
        return array

    def _undone(self, back: Back, array: Array) -> Array:
        return self._before(back.step, back, array)

    @dispatched
    def _before(self, step: Step, back: Back, array: Array) -> Array:
        return array

    @_before.register
    def _(self, step: Pointwise, back: Back, array: Array) -> Array:
        return self._divided(step, back.operand, array, len(back.wave.taken))

    @_before.register
    def _(self, step: Einsum, back: Back, array: Array) -> Array:
        if step.product:
            return self._coefficients(back, step, array)
        return _rearranged(step, array, len(back.wave.taken))

    @_before.register
    def _(self, step: Slice, back: Back, array: Array) -> Array:
        shape, at = list(array.shape), len(back.wave.taken) + step.axis
        shape[at] = self.program.shapes[step.x][step.axis]
        made = np.zeros(shape)
        made[(*(slice(None),) * at, slice(step.start, step.stop))] = array
        return made

    @_before.register
    def _(self, step: Mix, back: Back, array: Array) -> Array:
        gone = tuple(a for a, source in enumerate(step.keep) if source is None)
        kept = [source for source in step.keep if source is not None]
        rank = len(self.program.shapes[step.x])
        array = array[tuple(0 if a in gone else slice(None) for a in range(array.ndim))].transpose(np.argsort(kept))
        return array.reshape([array.shape[sorted(kept).index(a)] if a in kept else 1 for a in range(rank)])

    def _divided(self, step: Pointwise, k: int, array: Array, lead: int) -> Array:
        shape = self.program.shapes[step.operands[k]]
        rank, known = array.ndim - lead, step.known
        if known.factor:
            gains = [self.numbers.value(name) for j, name in enumerate(step.operands) if j != k]
            array = _quotient(array, gains) if known.factor > 0 else reduce(np.multiply, gains, array)
        else:
            array = array * known.sign(k) * (len(step.operands) if known.averages else 1)
        for a in range(rank):
            if (a < rank - len(shape) or shape[a - rank + len(shape)] == 1) and array.shape[lead + a] > 1:
                array = array.take([0], axis=lead + a)
        return array.reshape((*array.shape[:lead], *array.shape[lead + rank - len(shape) :]))

    def _coefficients(self, back: Back, step: Einsum, array: Array) -> Array:
        """The weight of a contraction with the base, of a change that is linear in it."""
        wave = back.wave
        labels: list[tuple[str, ...]] = [(f"~{a}",) for a in sorted(wave.taken)]
        axes = [(f"={a}",) for a in range(array.ndim - len(labels))]
        part = Labelled(array, tuple(x for (x,) in (*labels, *axes)))
        where = dict(enumerate(wave.where))
        for maker in back.bases:
            if isinstance(maker, Mix):
                part, where = _narrowed(maker, part, where)
            else:
                part, where = _rebased(maker, part, where, self.numbers)
        if back.window is not None:
            part = _centred(back.window, part, self.program.shapes[back.window.out])
            places = {a: k for k, a in sources(back.window).items()}
            where = {k: None if a is None else places.get(a) for k, a in where.items()}
        j = 1 - back.operand
        seats = {a: axis[0] for a, axis in enumerate(step.specs[j]) if axis}
        names = {f"~{a}": label for a, label in seats.items()}
        names.update({f"={a}": axis[0] for a, axis in enumerate(step.result) if axis})
        spec = step.specs[back.operand]
        mine = {x for axis in spec for x in axis}
        part = Labelled(part.values, tuple(names.get(x, x) for x in part.labels))
        part = _first(part, {x for x in part.labels if x not in mine})
        for k, a in where.items():  # of an axis that goes along with one that is summed over, the diagonal
            if a is not None and (pair := (*step.result[k], seats[a])) != (seats[a],) * 2:
                unit = Labelled(np.eye(step.sizes[seats[a]]), pair)
                part = multiply([part, unit], {*part.labels, *pair}, step.sizes)
        return regroup(part, spec, step.sizes)


def _quotient(array: Array, gains: Sequence[Array]) -> Array:
    """An array over gains; infinite where one is too small beside others to take anything back."""
    for gain in gains:
        size = np.abs(gain)
        held = np.where(size < SMALL * size.max(initial=0.0), 0.0, gain)
        with np.errstate(divide="ignore", invalid="ignore"):
            array = np.where(array == 0, 0.0, array / held)
    return array


def unseen(nowhere: Nowhere, numbers: Numbers) -> Array | None:
    """The direction along one axis of a weight that nothing sees, of its rank; None where it is no such array."""
    step, size = nowhere.step, nowhere.step.sizes
    k = step.operands.index(nowhere.tensor)
    (label,) = alone(step.specs[k][nowhere.axis], size)
    spec = step.specs[1 - k]
    if any(len(axis) > 1 for axis in spec) or not _rearranged_alone(nowhere):
        return None
    return _Backwards(numbers).back(_expanded(direction(nowhere.null, numbers, size[label]), spec, label), nowhere.way)


def _rearranged_alone(nowhere: Nowhere) -> bool:
    """Whether from a weight to where it is read no more than the order of its elements changes."""
    ways = [back.step for back in nowhere.way.steps]
    return all(isinstance(way, Einsum) and len(way.operands) == 1 for way in ways)


def _expanded(values: Array, spec: Sequence[tuple[str, ...]], label: str) -> Array:
    """Values along a label, of size 1 along all other axes."""
    return np.expand_dims(values, tuple(a for a, axis in enumerate(spec) if axis != (label,)))


class _Element(_Backwards):
    def __init__(self, translation: Translation, numbers: Numbers) -> None:
        super().__init__(numbers)
        self.translation = translation
        self.arrays: dict[str, Array] = {}
        self.waves: dict[str, Wave] = {}
        self.done: set[str] = set()

    def changes(self, size: Array) -> Iterator[tuple[str, tuple[Array, ...]]]:
        translation = self.translation
        source = written(size, translation.wave)
        if translation.nowhere is not None:
            yield translation.weight, self._directed(translation.nowhere, source)
        else:
            self.arrays[translation.weight], self.waves[translation.weight] = source, translation.wave
            yield translation.weight, (source,)
        for visit in translation.visits:
            for name, change in self._visit(visit):
                yield name, (change,)

    def _directed(self, nowhere: Nowhere, source: Array) -> tuple[Array, ...]:
        """A change along the null of what the weight is read with, and the number that it contributes."""
        step, null = nowhere.step, nowhere.null
        k = step.operands.index(nowhere.tensor)
        (label,) = alone(step.specs[k][nowhere.axis], step.sizes)
        n = step.sizes[label]
        for back in reversed(nowhere.way.steps):
            source = self.numbers.apply(back.step, {back.step.operands[back.operand]: source})[back.step.out]  # type: ignore[union-attr]
        spec = step.specs[1 - k]
        part = ungroup(source, spec, step.sizes)
        along = Labelled(direction(null, self.numbers, n), (label,))
        if not null.vanishes:
            flat = Labelled(part.values.take([0], axis=part.labels.index(label)), part.labels)
            kept = step.kept
            made = multiply(
                [Labelled(flat.values.squeeze(flat.labels.index(label)), tuple(x for x in flat.labels if x != label))],
                kept,
                step.sizes,
            )
            for use in (step, *nowhere.others):
                self.arrays[use.out] = regroup(made, step.result, step.sizes) * total(null, self.numbers, n)
                self.waves[use.out] = Wave(Kind.CONSTANT, tuple(map(same, self.program.shapes[use.out])))
        if part.values.shape[part.labels.index(label)] == 1 and all(len(axis) == 1 for axis in spec):
            apart = _expanded(along.values, spec, label)
            if _rearranged_alone(nowhere):  # each may be turned alone
                return self.back(regroup(part, spec, step.sizes), nowhere.way), self.back(apart, nowhere.way)
        made = multiply([part, along], part.labels, step.sizes)
        return (self.back(regroup(made, spec, step.sizes), nowhere.way),)

    def _visit(self, visit: Visit) -> Iterator[tuple[str, Array]]:
        step = visit.step
        names = [step.operands[k] for k in visit.entering]
        after = next(iter(visit.made.values()), None)
        if after is None or after.kind is Kind.ANY or any(n not in self.arrays for n in names):
            return
        lead = len(self.waves[names[0]].taken)
        if isinstance(step, Einsum):
            made = {step.out: self._contracted(step, visit.entering[0], after, visit.average)}
        elif step.elementwise and visit.average is not None:
            made = self._averaged(step.results[0], names[0], next(iter(visit.made)), lead)
        elif (
            step.elementwise and after.kind is not self.waves[names[0]].kind
        ):  # it is the coefficient of the other factor
            made = {step.results[0]: self._ranked(names[0], step.results[0], lead)}
        elif step.elementwise:
            made = self.numbers.apply(step, {n: self._ranked(n, step.results[0], lead) for n in names}, lead)
        else:
            made = self.numbers.apply(step, {n: self.arrays[n] for n in names}, lead)
        if visit.bent is not None:
            yield visit.bent.way.weight, -self._taken(visit.bent, names[0], made[visit.bent.step.out])
            return
        for out, array in made.items():
            if out not in visit.made:
                continue
            if out in visit.onward:
                self.arrays[out], self.waves[out] = array, visit.made[out]
                continue
            for k, way in visit.ways:
                path = (Back(step, k, after), *way.steps)
                ends = (step.operands[k], *([way.weight] if path[-1].step.elementwise else ()))
                shared = {name for name in ends if self.program.reads[name] > 1}
                if self.done.isdisjoint(shared):
                    yield way.weight, -self.back(array, Way(path, way.weight, way.wave))
                self.done |= shared

    def sum(self, bent: Nowhere, name: str) -> tuple[Array, float, float]:
        """The null of what is read, the sum along it, and what the change of it adds to that."""
        null, shape = bent.null, self.program.shapes[name]
        n = shape[bent.axis]
        along = direction(null, self.numbers, n)
        moved = np.broadcast_to(self.arrays[name], [n if a == bent.axis else 1 for a in range(len(shape))])
        return along, total(null, self.numbers, n), float(along @ moved.reshape(-1))

    def _taken(self, bent: Nowhere, name: str, made: Array) -> Array:
        """The change of the weight that makes of what it reads as much as another change of that does."""
        step, k = bent.step, bent.step.operands.index(name)
        along, before, more = self.sum(bent, name)
        (label,) = alone(step.specs[k][bent.axis], step.sizes)
        spec = step.specs[1 - k]
        held = {x for axis in spec for x in axis}
        part = ungroup(made, step.result, step.sizes)
        part = _first(part, {x for x in part.labels if x not in held})
        whole = multiply([part, Labelled(along / (before + more), (label,))], held, step.sizes)
        return self.back(regroup(whole, spec, step.sizes), bent.way)

    def _ranked(self, name: str, out: str, lead: int) -> Array:
        """A change with as many axes behind the leading ones as the output has."""
        x, rank = self.arrays[name], len(self.program.shapes[out])
        return x.reshape((*x.shape[:lead], *[1] * (rank + lead - x.ndim), *x.shape[lead:]))

    def _averaged(self, product: str, name: str, out: str, lead: int) -> dict[str, Array]:
        """What a sum makes of a product in which the other factor sums to one."""
        shapes, total = self.program.shapes, self.program.producers[out]
        places = prod(shapes[product]) // prod(shapes[out])
        made = self.numbers.apply(total, {product: self._ranked(name, product, lead)}, lead)
        return {out: made[out] / places}

    def _contracted(self, step: Einsum, k: int, after: Wave, average: Null | None) -> Array:
        """A contraction; the axes of the base that are summed over stay, in front."""
        before = self.waves[step.operands[k]]
        front = tuple((f"~{a}",) for a in sorted(before.taken))
        spec = step.specs[k]
        mine = ungroup(self.arrays[step.operands[k]], (*front, *spec), step.sizes)
        fixed = self.numbers.program.fixed
        parts = [mine]
        for j, name in enumerate(step.operands):
            if j != k and name in fixed:
                parts.append(ungroup(self.numbers.value(name), step.specs[j], step.sizes))
        named: dict[str, str] = {}
        if after.kind is Kind.LINEAR and before.kind is Kind.CONSTANT:
            j = step.operands.index(after.base)
            named = {axis[0]: f"~{a}" for a, axis in enumerate(step.specs[j]) if axis and a in after.taken}
        elif after.kind is Kind.LINEAR:
            named = {
                axis[0]: f"~{before.where[a]}"
                for a, axis in enumerate(spec)
                if len(axis) == 1 and before.where[a] in after.taken
            }
        if average is not None:
            j = next(j for j, n in enumerate(step.operands) if j != k and n not in fixed)
            summed = {x for axis in step.specs[j] for x in axis} - step.kept
            if average.mixed:
                parts.append(ungroup(mass(average, self.numbers), step.specs[j], step.sizes))
            parts = [_squeezed(part, summed) for part in parts]
        parts = [Labelled(p.values, tuple(named.get(x, x) for x in p.labels)) for p in parts]
        result = (*((f"~{a}",) for a in sorted(after.taken)), *step.result)
        return regroup(multiply(parts, {x for axis in result for x in axis}, step.sizes), result, step.sizes)


def _rebased(
    maker: Einsum, part: Labelled, where: dict[int, int | None], numbers: Numbers
) -> tuple[Labelled, dict[int, int | None]]:
    """Coefficients for what `maker` makes, as coefficients for what it reads."""
    j = next(j for j, n in enumerate(maker.operands) if n not in numbers.program.fixed)
    seats = {axis[0]: a for a, axis in enumerate(maker.specs[j]) if axis}
    made = [axis[0] if axis else "" for axis in maker.result]
    along = {label: f"~{a}" for label, a in seats.items() if label not in made}
    for a, label in enumerate(made):
        out = [k for k, w in where.items() if w == a]
        along[label] = f"={out[0]}" if out else f"~{seats[label]}" if label in seats else f"sum {label}"
    labels = tuple(along[made[int(x[1:])]] if x.startswith("~") else x for x in part.labels)
    factors = [Labelled(part.values, labels)]
    for k, name in enumerate(maker.operands):
        if k != j:
            whole = ungroup(numbers.value(name), maker.specs[k], maker.sizes)
            factors.append(Labelled(whole.values, tuple(along[x] for x in whole.labels)))
    sizes = {new: maker.sizes[old] for old, new in along.items() if old in maker.sizes}
    kept = {x for f in factors for x in f.labels if not x.startswith("sum ")}
    after = {k: seats.get(made[w]) if w is not None else None for k, w in where.items()}
    return multiply(factors, kept, sizes), after


def _narrowed(window: Mix, part: Labelled, where: dict[int, int | None]) -> tuple[Labelled, dict[int, int | None]]:
    """Coefficients for windows of one place, as coefficients for what they see."""
    seats = sources(window)
    part = _first(part, {f"~{middle.kernel}" for middle in window.centre})
    names = {f"~{k}": f"~{a}" for k, a in seats.items()}
    after = {k: None if w is None else seats.get(w) for k, w in where.items()}
    return Labelled(part.values, tuple(names.get(x, x) for x in part.labels)), after


def _centred(window: Mix, part: Labelled, shape: Shape) -> Labelled:
    """Coefficients for what a window reads, as coefficients for the window: zero but in its middle."""
    names = {f"~{a}": f"~{k}" for k, a in sources(window).items()}
    values, labels = part.values, [names.get(x, x) for x in part.labels]
    for middle in window.centre:
        values = np.multiply.outer(np.arange(shape[middle.kernel]) == middle.at, values)
        labels.insert(0, f"~{middle.kernel}")
    return Labelled(values, tuple(labels))


def written(size: Array, wave: Wave) -> Array:
    """An array with one number per class, size 1 along axes of a single one; 0 where nothing changes."""
    for axis, classes in enumerate(wave.classes):
        if (classes == 0).all() or np.array_equal(classes, np.arange(size.shape[axis])):
            continue
        size = np.where(
            np.expand_dims(classes >= 0, tuple(range(1, size.ndim - axis))), size.take(classes, axis=axis), 0.0
        )
    return size


def averaged(array: Array, wave: Wave) -> Array:
    """The number of each class that is nearest to an array: what `written` writes out, as far as that can be."""
    for axis, classes in enumerate(wave.classes):
        there = np.flatnonzero(classes >= 0)
        _, ranks, counts = np.unique(classes[there], return_inverse=True, return_counts=True)
        if len(counts) < len(classes):
            shares = np.equal.outer(np.arange(len(counts)), ranks) / counts[:, None]
            array = np.moveaxis(np.tensordot(shares, array.take(there, axis=axis), (1, axis)), 0, axis)
    return array


def _rearranged(step: Einsum, array: Array, lead: int) -> Array:
    front = tuple((f"~{a}",) for a in range(lead))
    part = ungroup(array, (*front, *step.result), step.sizes)
    held = {x for axis in step.specs[0] for x in axis} | {x for (x,) in front}
    part = _first(part, {x for x in part.labels if x not in held})
    return regroup(part, (*front, *step.specs[0]), step.sizes)


def _first(part: Labelled, labels: set[str]) -> Labelled:
    """The array without axes along which it is the same."""
    cut = tuple(0 if x in labels else slice(None) for x in part.labels)
    return Labelled(part.values[cut], tuple(x for x in part.labels if x not in labels))


def _squeezed(part: Labelled, labels: set[str]) -> Labelled:
    """An average along axes along which the array is the same."""
    return _first(part, {x for x in part.labels if x in labels})
