"""Recognition: normalisations that an exporter wrote out become one step, by what they compute.

A tensor times a function of its own mean square is a normalisation, and so is a tensor less its mean times a function
of its variance, however mean, square and root were spelled. A gain or bias that was taken in before the normalisation
was whole comes after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import nan, prod

from symlint.model.graph import Shape
from symlint.model.records import dataclass
from symlint.program.dispatch import dispatched
from symlint.program.rewriting.expression import ONE, Expression, Norm, combined, square, stranger
from symlint.program.rewriting.polynomial import scaled, spread, summed
from symlint.program.rewriting.views import Axes, Meeting, View, Views
from symlint.program.steps import CONSTANT, NONE, SUM, Einsum, Fold, Law, Normalise, Pointwise, Program, Spec, Step

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
