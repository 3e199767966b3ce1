"""Flow: how units get from their writers to their readers by the steps of a program, and where tensors meet."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Literal

from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Program, Spec, Unknown

Passage = Literal["linear", "scores", "values"]
"""``scores``: two tensors that both depend on the input are summed over the units, as queries and keys are.
``values``: the units are carried through a contraction with such scores. ``linear``: everything else."""

LAYOUTS = 1024
"""Layouts of contractions of which it is remembered what meets in them: layers repeat a few."""


@dataclass(frozen=True)
class Passages:
    """What the steps of one program do with units."""

    program: Program

    @property
    def moving(self) -> frozenset[str]:
        """Tensors that depend on the input."""
        return self.program.dependent

    @cached_property
    def met(self) -> frozenset[str]:
        """What products of two moving tensors become, up to the next contraction: scores, softmax or not."""
        found: set[str] = set()
        for step in self.program.steps:
            if isinstance(step, Unknown):
                continue
            moving = [name for name in step.operands if name in self.moving]
            if (len(moving) > 1) if step.product else not found.isdisjoint(moving):
                found.update(step.results)
        return frozenset(found)

    def of(self, holders: Collection[str]) -> Passage:
        """The way of units that lie in the tensors `holders`."""
        carried = False
        for step in self.program.reading(holders):
            if not step.product:
                continue
            moving = [name for name in step.operands if name in self.moving]
            held = [name for name in moving if name in holders]
            if len(held) > 1 and not any(name in holders for name in step.results):
                return "scores"
            carried = carried or (bool(held) and any(n in self.met and n not in holders for n in moving))
        return "values" if carried else "linear"


@dataclass(frozen=True, slots=True)
class Company:
    """Labels that keep company through a contraction: of these a gauge may depend on the others."""

    labels: tuple[str, ...]
    lost: tuple[str, ...] = ()
    """Labels that are summed over beside them; with some, this counts only if one holds a factor of `others`."""
    others: tuple[str, ...] = ()
    """Labels of the result that are not beside them: an index that goes on there is not the one that is summed over."""


def meetings(step: Einsum) -> Sequence[Company]:
    """Labels that keep company through the step.

    Where operands meet along a label, those that all of them share. Of each operand, those that go on to the result.
    """
    return _meetings(step.specs, step.result, frozenset(label for label, n in step.sizes.items() if n > 1))


@lru_cache(LAYOUTS)
def _meetings(specs: tuple[Spec, ...], result: Spec, wide: frozenset[str]) -> Sequence[Company]:
    return tuple(_met(specs, result, wide))


def _met(specs: tuple[Spec, ...], result: Spec, wide: frozenset[str]) -> Iterator[Company]:
    held = [list(dict.fromkeys(label for axis in spec for label in axis)) for spec in specs]
    made = dict.fromkeys(label for axis in result for label in axis)
    for label in dict.fromkeys(label for names in held for label in names):
        holders = [names for names in held if label in names]
        common = [name for name in holders[0] if all(name in names for names in holders)]
        if label in wide and any(len(names) > len(common) for names in holders):
            yield Company(tuple(common))
    for names in held:
        lost = tuple(label for label in names if label not in made and label in wide)
        others = tuple(label for label in made if label not in names and label in wide)
        if lost and others:
            yield Company(tuple(label for label in names if label in made), lost, others)
