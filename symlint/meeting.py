"""Where tensors meet in a contraction: on which labels the gauge of another may depend there."""

from __future__ import annotations

from collections.abc import Iterator

from symlint.program import Einsum


def meetings(step: Einsum) -> Iterator[tuple[str, ...]]:
    """Labels that keep company through the step, as sets of which a gauge may depend on the others.

    Where operands meet along a label, those that all of them share. Of each operand, those that go on to the result, if
    one that is summed over may turn out to hold the factor of one that is not: their indices have nothing in common.
    """
    held = [list(dict.fromkeys(label for axis in spec for label in axis)) for spec in step.specs]
    made = {label for axis in step.result for label in axis}
    for label in dict.fromkeys(label for names in held for label in names):
        holders = [names for names in held if label in names]
        common = [name for name in holders[0] if all(name in names for names in holders)]
        if step.sizes[label] > 1 and any(len(names) > len(common) for names in holders):
            yield tuple(common)
    for names in held:
        lost = {step.sizes[label] for label in names if label not in made}
        if any(a % b == 0 for b in {step.sizes[label] for label in made.difference(names)} - {1} for a in lost):
            yield tuple(label for label in names if label in made)
