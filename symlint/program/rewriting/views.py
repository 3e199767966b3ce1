"""Views: what a tensor is relative to another one, its source, and where several such tensors meet.

Each element is an expression in the source's element, in sums of the source along some of its axes, and in functions of
its mean square or of its variance. A tensor may be seen relative to several sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod

from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.rewriting.expression import Expression
from symlint.program.steps import Program

MOST = 4
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
        self.seen[name] = self._and_itself(name, tuple(made.values())[: MOST - 1])

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
