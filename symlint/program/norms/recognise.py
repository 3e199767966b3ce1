"""Recognition: normalisations that an exporter wrote out become one step, by what they compute.

A tensor times a function of its own mean square is a normalisation, and so is a tensor less its mean times a function
of its variance, however mean, square and root were spelled. A gain or bias that was taken in before the normalisation
was whole comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from symlint.model.graph import Shape
from symlint.program.norms.moments import Moments
from symlint.program.norms.views import View
from symlint.program.steps import NONE, SUM, Law, Normalise, Pointwise, Program, Step

PRODUCT = Law("product", (Fraction(1), Fraction(1)))


def recognise(program: Program) -> Program:
    """The program with its written-out normalisations as `Normalise` steps, and without what only they read."""
    moments = Moments(program)
    found: dict[str, tuple[Step, ...]] = {}
    shapes: dict[str, Shape] = {}
    for step in program.elementwise:
        view = _normalisation(moments, step)
        if view is not None:
            found[step.out] = _written(step, view)
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


def _written(step: Pointwise, view: View) -> tuple[Step, ...]:
    """A normalisation with the gain and bias that were taken in."""
    norm, content = view.content.norm, view.content
    assert norm is not None
    names = [f"{step.out}#{k}" for k in range(len(content.factors + content.rest))] + [step.out]
    made: list[Step] = [Normalise(names[0], view.source, view.axes, NONE, norm.function, step.node)]
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
