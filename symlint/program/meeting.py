"""Where tensors meet in a contraction: on which labels the gauge of another may depend there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from symlint.program.steps import Einsum


@dataclass(frozen=True, slots=True)
class Company:
    """Labels that keep company through a contraction: of these a gauge may depend on the others."""

    labels: tuple[str, ...]
    lost: tuple[str, ...] = ()
    """Labels that are summed over beside them; with some, this counts only if one holds a factor of `others`."""
    others: tuple[str, ...] = ()
    """Labels of the result that are not beside them: an index that goes on there is not the one that is summed over."""


def meetings(step: Einsum) -> Iterator[Company]:
    """Labels that keep company through the step.

    Where operands meet along a label, those that all of them share. Of each operand, those that go on to the result.
    """
    held = [list(dict.fromkeys(label for axis in spec for label in axis)) for spec in step.specs]
    made = dict.fromkeys(label for axis in step.result for label in axis)
    for label in dict.fromkeys(label for names in held for label in names):
        holders = [names for names in held if label in names]
        common = [name for name in holders[0] if all(name in names for names in holders)]
        if step.sizes[label] > 1 and any(len(names) > len(common) for names in holders):
            yield Company(tuple(common))
    for names in held:
        lost = tuple(label for label in names if label not in made and step.sizes[label] > 1)
        others = tuple(label for label in made if label not in names and step.sizes[label] > 1)
        if lost and others:
            yield Company(tuple(label for label in names if label in made), lost, others)
