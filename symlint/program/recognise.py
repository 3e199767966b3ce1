"""Recognition: normalisations that an exporter wrote out become one step, by what they compute.

A tensor times a function of its own mean square is a normalisation, and so is a tensor less its mean times a function
of its variance, however mean, square and root were spelled. A gain or bias that was taken in before the normalisation
was whole comes after it.

Views: what a tensor is relative to another one, its source, and where several such tensors meet.

Each element is an expression in the source's element, in sums of the source along some of its axes, and in functions of
its mean square or of its variance. A tensor may be seen relative to several sources.

Lengths: weights that are stored as directions and lengths, and put together by the network.

A weight ``g v / |v|`` (weight normalisation) can be brought to any numbers by its direction v and its length g, which
nothing else reads: whatever acts on weights acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import nan, prod

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.polynomial import ONE, Expression, Norm, combined, scaled, spread, square, stranger, summed
from symlint.program.steps import (
    CONSTANT,
    NONE,
    SAME,
    SUM,
    Einsum,
    Fold,
    Law,
    Normalise,
    Pointwise,
    Program,
    Spec,
    Step,
    rearranges,
)

VIEWS = 4
"""Views of one tensor that are followed."""

Axes = tuple[int, ...]
Places = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What a tensor is relative to a source; a number has no source."""

    source: str
    axes: Axes
    """The axes of the source that the sums run along; none so long as there are no sums."""
    places: Places
    """Axis by axis, the axis of the source that it is; None where the tensor is constant along it."""
    content: Expression


@dataclass(frozen=True, slots=True)
class Meeting:
    """What the operands of a step are relative to one source, and what the axes are where they meet."""

    source: str
    axes: Axes
    places: Places
    contents: tuple[Expression, ...]


class Views:
    """The views of the tensors of a program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.seen: dict[str, tuple[View, ...]] = {name: _number(value) for name, value in program.tables.items()}

    def enter(self, name: str, views: Iterable[View]) -> None:
        """Remember the views of a tensor, in the order of preference."""
        made: dict[tuple[str, Axes], View] = {}
        for view in views:
            made.setdefault((view.source, view.axes), view)
        self.seen[name] = self._and_itself(name, tuple(made.values())[: VIEWS - 1])

    def _and_itself(self, name: str, views: tuple[View, ...]) -> tuple[View, ...]:
        """Views of a tensor and as its own source: the last one, but the first where it is a multiple of another."""
        shape = self.program.shapes[name]
        own = View(name, (), tuple(k if n > 1 else None for k, n in enumerate(shape)), Expression({"x": 1.0}))
        whole = [v.content for v in views if not v.source or self.covers(v, shape)]
        if any(c == own.content or c.number for c in whole):
            return views
        multiple = any(c.plain and c.polynomial.keys() == {"x"} for c in whole)
        return (own, *views) if multiple else (*views, own)

    def of(self, name: str) -> tuple[View, ...]:
        """The views of one tensor, the preferred source first; a table that is no number has none."""
        if name not in self.seen:
            self.seen[name] = self._and_itself(name, ())
        return self.seen[name]

    def number(self, name: str) -> bool:
        """Whether a tensor has one value, whatever the input and the weights are."""
        return any(v.content.number for v in self.of(name))

    def covers(self, view: View, shape: Shape) -> bool:
        """Whether a tensor of this shape has the elements of the source in their order."""
        whole = all(n == 1 or k == place for k, (n, place) in enumerate(zip(shape, view.places, strict=True)))
        return whole and self.program.shapes[view.source] == shape

    def count(self, view: View | Meeting) -> int:
        """The number of elements that the sums of a view add up."""
        return prod(self.program.shapes[view.source][k] for k in view.axes)

    def normalised(self, view: View) -> bool:
        """Whether a view is of a whole normalisation."""
        return view.content.normalised(self.count(view))

    def meetings(self, options: Sequence[Sequence[View]], slots: Sequence[Places]) -> Iterator[Meeting]:
        """Views of operands that share a source; `slots` says which axis of each stands at each place."""
        for choice in product(*options):
            sources, axes = {v.source for v in choice if v.source}, {v.axes for v in choice if v.axes}
            rows = [[None if k is None else v.places[k] for k in s] for v, s in zip(choice, slots, strict=True)]
            met = [{k for k in column if k is not None} for column in zip(*rows, strict=True)]
            places = [k for column in met for k in column]
            # One axis of the source at two places is an outer product.
            if len(sources) < 2 and len(axes) < 2 and len(places) == len(set(places)) == sum(map(bool, met)):
                at = tuple(next(iter(column), None) for column in met)
                yield Meeting("".join(sources), next(iter(axes), ()), at, tuple(v.content for v in choice))


def _number(value: Array) -> tuple[View, ...]:
    """A table of one value, broadcast or not; others have no view."""
    # The kind of bfloat16 is V.
    if not value.size or value.dtype.kind not in "fiuV" or (value != value.reshape(-1)[0]).any():
        return ()
    number = float(value.reshape(-1)[0])
    return (View("", (), (None,) * value.ndim, Expression({"": number} if number else {})),)


# Moments: what the steps of a program make of views, from an element to a function of its mean square or variance.

MOST = 4
"""Operands of a step whose views are combined."""


class Moments(Views):
    """The views of the tensors of a program, by forward dataflow."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        for step in program.steps:
            made = list(self.step(step))
            for name in step.results:
                self.enter(name, made)

    @dispatched
    def step(self, step: Step) -> Iterator[View]:
        """The views of what a step makes, other than as its own source."""
        yield from ()

    @step.register
    def _(self, step: Pointwise) -> Iterator[View]:
        if len(step.operands) > MOST:
            return
        rank = len(self.program.shapes[step.out])
        ranks = [len(self.program.shapes[name]) for name in step.operands]
        slots = [(*[None] * (rank - r), *range(r)) for r in ranks]
        options = [self.of(name) for name in step.operands]
        for chosen in (options, *self._with_strangers(step, options)):
            for met in self.meetings(chosen, slots):
                made = self._computed(step, met)
                if made is not None:
                    yield View(met.source, met.axes, met.places, made)

    def _with_strangers(self, step: Pointwise, options: Sequence[Sequence[View]]) -> Iterator[Sequence[Sequence[View]]]:
        """One operand as a gain or bias that the other one, part of a normalisation, takes in before that is whole."""
        for k, name in enumerate(step.operands):
            taken = stranger(name, step.function, k)
            if taken is None or len(options) != 2 or self.number(name):
                continue
            alone = [View("", (), (None,) * len(self.program.shapes[name]), taken)]
            parts = [v for v in options[1 - k] if v.axes and not self.normalised(v)]
            parts = [v for v in parts if v.content.norm or not taken.rest]
            yield [alone, parts] if k == 0 else [parts, alone]

    def _computed(self, step: Pointwise, met: Meeting) -> Expression | None:
        """What an elementwise function makes of expressions."""
        contents = met.contents
        made = combined(step.function, contents)
        if made is not None:
            return made
        norms = [self._norm(met, c, name) for c, name in zip(contents, step.operands, strict=True)]
        made = combined(step.function, [Expression(ONE, n) if n else c for c, n in zip(contents, norms, strict=True)])
        if made is not None or any(n is None and not c.number for c, n in zip(contents, norms, strict=True)):
            return made
        known = [n for n in norms if n]
        if not known:
            return Expression({"": nan})  # some number
        kinds = {n.function == "standardise" for n in known}
        degree = _degree(step.law, contents, norms)
        return Expression(ONE, Norm(known[0].function, degree, step.out)) if len(kinds) == 1 else None

    def _norm(self, view: View | Meeting, content: Expression, name: str) -> Norm | None:
        """The tensor `name` as a function of the sum of squares or of the variance."""
        if content == Expression(ONE, content.norm):
            return content.norm
        kind = spread(content.polynomial, self.count(view)) if content.plain else None
        return None if kind is None else Norm(kind, None if "" in content.polynomial else Fraction(2), name)

    @step.register
    def _(self, step: Einsum) -> Iterator[View]:
        specs = (*step.specs, step.result)
        if any(len(axis) > 1 for spec in specs for axis in spec) or any(_repeats(spec) for spec in specs):
            return
        order = [label for label in step.sizes if any((label,) in spec for spec in step.specs)]
        gone = [k for k, label in enumerate(order) if (label,) not in step.result and step.sizes[label] > 1]
        slots = [tuple(_index(spec, label) for label in order) for spec in step.specs]
        for met in self.meetings([self.of(name) for name in step.operands], slots):
            made = combined("Mul", met.contents) if len(met.contents) > 1 else met.contents[0]
            if made is None or made.factors or made.rest:  # strangers would have to be arranged anew as well
                continue
            total = self._summed(met, made, [(met.places[k], step.sizes[order[k]]) for k in gone])
            if total is not None:
                at = dict(zip(order, met.places, strict=True))
                places = tuple(at.get(axis[0]) if axis else None for axis in step.result)
                yield View(met.source, total[0], places, total[1])

    @step.register
    def _(self, step: Fold) -> Iterator[View]:
        if step.function not in ("ReduceL2", "ReduceSumSquare"):
            return
        shape = self.program.shapes[step.x]
        for view in self.of(step.x):
            made = square(view.content)
            gone = [(view.places[k], shape[k]) for k in step.axes if shape[k] > 1]
            total = None if made is None else self._summed(view, made, gone)
            if total is None:
                continue
            places = tuple(place for k, place in enumerate(view.places) if k not in step.axes)
            found = View(view.source, total[0], places, total[1])
            norm = self._norm(found, found.content, step.out)
            if step.function == "ReduceSumSquare":
                yield found
            elif norm is not None:
                yield replace(found, content=Expression(ONE, replace(norm, degree=norm.degree and norm.degree / 2)))

    def _summed(
        self, view: View | Meeting, content: Expression, gone: Sequence[tuple[int | None, int]]
    ) -> tuple[Axes, Expression] | None:
        """Axes and content after a sum along places and their sizes."""
        if not content.plain:
            return None if gone else (view.axes, content)
        made = scaled(content.polynomial, prod(size for place, size in gone if place is None))
        along = tuple(sorted(place for place, _ in gone if place is not None))
        if not along:
            return view.axes, Expression(made)
        count = prod(self.program.shapes[view.source][k] for k in along)
        total = summed(made, count)
        if view.axes not in ((), along):
            # A sum of sums, such as the mean along the height of the mean along the width.
            apart = not made.keys() - {"", "s", "q"} and not set(along) & set(view.axes)
            total = {word: c if word else c * count for word, c in made.items()} if apart else None
        return None if total is None else (tuple(sorted({*along, *view.axes})), Expression(total))


def _repeats(spec: Spec) -> bool:
    labels = [axis for axis in spec if axis]
    return len(set(labels)) < len(labels)


def _index(spec: Spec, label: str) -> int | None:
    return spec.index((label,)) if (label,) in spec else None


def _degree(law: Law, contents: Sequence[Expression], norms: Sequence[Norm | None]) -> Fraction | None:
    """The degree of homogeneity of a function, given those of its operands."""
    degrees = law.degrees or (Fraction(1),) * len(norms)
    moving = [(d, n.degree) for d, n in zip(degrees, norms, strict=True) if n]
    powers = [d * degree for d, degree in moving if d is not None and degree is not None]
    if law.kind == "none" or len(powers) < len(moving):
        return None
    if law.kind == "product":
        return sum(powers, Fraction(0))
    broken = len(set(powers)) > 1 or any(n is None and c.polynomial for n, c in zip(norms, contents, strict=True))
    return None if broken else powers[0]


FLOOR = 1e-6
"""The least length that exporters let a tensor have, at most."""
FAR = 10
"""Steps between a tensor and its source, at most."""
PRODUCT = Law("product", (Fraction(1), Fraction(1)))


def recognise(program: Program) -> Program:
    """The program with its written-out normalisations as `Normalise` steps, and without what only they read."""
    moments = Moments(program)
    found: dict[str, tuple[Step, ...]] = {}
    shapes: dict[str, Shape] = {}
    for step in program.elementwise:
        view = _normalisation(moments, step)
        if view is not None:
            found[step.out] = _written(step, view, _Degrees(program, view.source))
            shapes |= {name: program.shapes[step.out] for s in found[step.out] for name in s.results}
    return _put_in_place(replace(program, shapes={**program.shapes, **shapes}), found) if found else program


def _normalisation(moments: Moments, step: Pointwise) -> View | None:
    """What a step makes, as a normalisation of its preferred source; None where it is none."""
    moving = [name for name in step.operands if not moments.number(name)]
    # A number times a normalisation is made from that.
    before = [v.source for v in moments.of(moving[0]) if moments.normalised(v)] if len(moving) == 1 else []
    for view in moments.of(step.out):
        norm = view.content.norm
        # Without an epsilon, what stands beside the axes can be rescaled, which a Normalise does not let through.
        if norm is None or norm.degree is not None or not moments.normalised(view) or view.source in before:
            continue
        if moments.covers(view, moments.program.shapes[step.out]):
            return view
    return None


@dataclass(frozen=True, slots=True)
class _Degrees:
    """The powers in which tensors answer to a scale of their source, if lengths are never almost nothing."""

    program: Program
    source: str

    def of(self, name: str, far: int = FAR) -> Fraction | None:
        """That of a tensor; None where it answers in no power, or the source is too far."""
        step = self.program.producers.get(name)
        if name == self.source or step is None:
            return Fraction(name == self.source)
        return self._made(step, far - 1) if far else None

    @dispatched
    def _made(self, step: Step, far: int) -> Fraction | None:
        return None

    @_made.register
    def _(self, step: Einsum, far: int) -> Fraction | None:
        return self._product(step.operands, far, (Fraction(1),) * len(step.operands))

    @_made.register
    def _(self, step: Fold, far: int) -> Fraction | None:
        return None if step.law.kind == "none" else self._product((step.x,), far, step.law.degrees or (Fraction(1),))

    @_made.register
    def _(self, step: Pointwise, far: int) -> Fraction | None:
        if self._floors(step):
            return self.of(step.operands[0], far)
        if step.law.kind == "none" or (step.law.kind == "sum" and len(step.operands) > 1):
            return None
        return self._product(step.operands, far, step.law.degrees or (Fraction(1),) * len(step.operands))

    def _product(self, names: Sequence[str], far: int, powers: Sequence[Fraction | None]) -> Fraction | None:
        total = Fraction(0)
        for name, power in zip(names, powers, strict=True):
            degree = self.of(name, far)
            if degree is None or (power is None and degree):
                return None
            total += degree * (power or 0)
        return total

    def _floors(self, step: Pointwise) -> bool:
        """Whether a step holds its first operand above a positive number that is almost nothing."""
        bounds = [self.program.tables.get(n) for n in step.operands[1:]]
        if step.function not in ("Clip", "Max") or len(bounds) != 1 or bounds[0] is None or bounds[0].size != 1:
            return False
        return 0 < float(bounds[0].reshape(())) <= FLOOR


def _written(step: Pointwise, view: View, degrees: _Degrees) -> tuple[Step, ...]:
    """A normalisation with the gain and bias that were taken in."""
    norm, content = view.content.norm, view.content
    assert norm is not None
    names = [f"{step.out}#{k}" for k in range(len(content.factors + content.rest))] + [step.out]
    # A length that is held above almost nothing takes scales away as one without an epsilon does.
    law = CONSTANT if norm.function == "l2" and degrees.of(step.out) == 0 else NONE
    made: list[Step] = [Normalise(names[0], view.source, view.axes, law, norm.function, step.node)]
    parts = [("Mul", PRODUCT, name) for name in content.factors]
    parts += [("Add" if sign > 0 else "Sub", SUM, name) for sign, name in content.rest]
    for (function, law, name), x, out in zip(parts, names[:-1], names[1:], strict=True):
        made.append(Pointwise(out, (x, name), law, function, step.node))
    return tuple(made)


def _put_in_place(program: Program, found: Mapping[str, Sequence[Step]]) -> Program:
    """The program with new steps, and without those that led to the old ones and that nothing reads any more."""
    makers: dict[str, Step] = {name: step for step in program.steps for name in step.results}
    reads = program.reads.copy()
    waiting = [read for name in found for read in makers[name].operands]
    reads.subtract(waiting)
    for step in (step for steps in found.values() for step in steps):
        reads.update(step.operands)
        makers |= dict.fromkeys(step.results, step)
    gone: set[str] = set()
    while waiting:
        name = waiting.pop()
        if reads[name] or name in gone or name in program.outputs or not (name in makers or name in program.tables):
            continue
        gone.add(name)
        if name in makers:
            reads.subtract(makers[name].operands)
            waiting += makers[name].operands
    left = [s for s in program.steps if not gone.intersection(s.results)]
    return replace(
        program,
        steps=tuple(new for s in left for new in found.get(next(iter(s.results), ""), (s,))),
        shapes={name: shape for name, shape in program.shapes.items() if name not in gone},
        tables={name: value for name, value in program.tables.items() if name not in gone},
    )


@dataclass(frozen=True, slots=True)
class Length:
    """What makes a weight of a direction and a length."""

    direction: str
    length: str
    axes: tuple[int, ...]
    """Along which each length is taken."""

    def made(self, direction: Array, length: Array) -> Array:
        """The weight."""
        return np.asarray(direction / np.sqrt((direction**2).sum(axis=self.axes, keepdims=True)) * length)

    def brought(self, after: Array, direction: Array, length: Array) -> dict[str, Array]:
        """Direction and length that make other numbers; a direction keeps its own length, and a length its sign."""
        sizes = [np.sqrt((x**2).sum(axis=self.axes, keepdims=True)) for x in (after, direction)]
        sign = np.where(length < 0, -1.0, 1.0)
        shape = (1,) * (after.ndim - length.ndim) + length.shape
        there = sizes[0] > 0
        turned = after / np.where(there, sizes[0], 1.0) * sizes[1] * sign.reshape(shape)
        return {
            self.direction: np.where(there, turned, direction),
            self.length: sizes[0].reshape(length.shape) * sign,
        }


def lengths(program: Program) -> dict[str, Length]:
    """The weights that a program makes of a direction and a length, by the product that is the weight."""
    products = [step for step in program.elementwise if step.known.factor and len(step.operands) == 2]
    if all(step.known.factor > 0 for step in products):
        return {}
    search = _Search(program)
    return {step.out: found for step in products if (found := search.length(step)) is not None}


Written = tuple[str, tuple[int, ...], int]
"""A tensor of which something is the length, the axes along which it is, and how often it is read for that."""


class _Search:
    """What the products of one program are made of."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.makers = {step.out: step for step in program.elementwise}

    def length(self, step: Pointwise) -> Length | None:
        """The direction and the length of which a product is made, if it is."""
        program = self.program
        powers = dict(self._factors(step.out, 1))
        weights = [n for n, power in powers.items() if power == 1 and n in program.weights]
        below = [n for n, power in powers.items() if power == -1]
        maker = program.producers.get(below[0]) if len(powers) == 3 and len(weights) == 2 and below else None
        norm = self.norm(maker) if maker is not None else None
        if norm is None or norm[0] not in weights:
            return None
        direction, axes, times = norm
        (length,) = (n for n in weights if n != direction)
        shape, mine = program.shapes[step.out], program.shapes[length]
        apart = tuple(1 if k in axes else n for k, n in enumerate(shape))
        tensors, stored = program.model.tensors, program.weights
        free = program.reads[direction] == times + 1 and program.reads[length] == 1
        free = free and all(n not in program.detached and tensors[stored[n]].floating for n in weights)
        whole = program.shapes[direction] == shape and (1,) * (len(shape) - len(mine)) + mine == apart
        return Length(direction, length, axes) if whole and free else None

    def _factors(self, name: str, power: int) -> Iterator[tuple[str, int]]:
        """What a tensor is the product of, with exponents; what others read as well is not taken apart."""
        step = self.makers.get(name)
        if step is None or not step.known.factor or len(step.operands) != 2:
            yield name, power
            return
        for k, operand in enumerate(step.operands):
            mine = power if step.known.factor > 0 or not k else -power
            if self.program.reads[operand] == 1:
                yield from self._factors(operand, mine)
            else:
                yield operand, mine

    @dispatched
    def norm(self, step: Step) -> Written | None:
        """Of what a step makes the length, and along which axes."""
        return None

    @norm.register
    def _(self, step: Fold) -> Written | None:
        return (step.x, step.axes, 1) if step.known.turns and step.law in (SAME, SUM) else None

    @norm.register
    def _(self, step: Einsum) -> Written | None:
        below = self.program.producers.get(step.operands[0])
        alone = step.linear and _summed(step) == () and self.program.reads[step.operands[0]] == 1
        return self.norm(below) if alone and below is not None else None

    @norm.register
    def _(self, step: Pointwise) -> Written | None:
        total = self.program.producers.get(step.operands[0])
        axes = _summed(total) if rearranges(total) and step.law.degrees == (Fraction(1, 2),) else None
        square = self.makers.get(total.operands[0]) if axes and total is not None else None
        if not axes or square is None or self.program.reads[square.out] != 1:
            return None
        x = square.operands[0]
        power = square.known.power and square.law.degrees[:1] == (Fraction(2),)
        if not power and (square.operands != (x, x) or square.known.factor < 1):
            return None
        return x, axes, square.operands.count(x)


def _summed(step: Einsum) -> tuple[int, ...] | None:
    """The axes that a rearrangement sums over, where it does no more than that and leaves no axis in another place."""
    (spec,) = step.specs
    kept = step.kept
    left = [axis for axis in spec if not kept.isdisjoint(axis) and any(step.sizes[x] > 1 for x in axis)]
    made = [axis for axis in step.result if any(step.sizes[x] > 1 for x in axis)]
    lone = all(len([x for x in axis if step.sizes[x] > 1]) < 2 for axis in (*spec, *step.result))
    labels = [[x for axis in axes for x in axis if step.sizes[x] > 1] for axes in (left, made)]
    gone = tuple(k for k, axis in enumerate(spec) if any(step.sizes[x] > 1 and x not in kept for x in axis))
    return gone if lone and labels[0] == labels[1] else None
