"""Analyses that only heuristic rules ask for, made once for each model."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.paths.paths import Forward
from symlint.analysis.paths.shares import Shares, mixed
from symlint.analysis.paths.squares import Layout
from symlint.evidence.context import Context
from symlint.evidence.estimates.likeness import Likeness
from symlint.model.records import dataclass
from symlint.symmetry.actions.rotation import PlaneRotation
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Action


@dataclass(frozen=True)
class Estimates:
    """Shares of paths and likeness of units."""

    context: Context

    @cached_property
    def shares(self) -> Shares:
        """How much of what gets from the inputs to the outputs passes through each unit."""
        structure = self.context.canonical
        return Shares(Forward(Layout(structure, mixed(structure)), self.context.values))

    @cached_property
    def likeness(self) -> Likeness:
        """How like each other the units of every space are."""
        context = self.context
        return Likeness(context.symmetry, context.canonical, context.values, [self.action(s) for s in context.spaces])

    def action(self, space: Space) -> Action:
        """The permutation of the units of a space."""
        return self.context.plain(self.context.structure.permutation(space.id))

    def share(self, space: Space) -> NDArray[np.float64] | None:
        """The share of each unit in all paths, relative to an equal one; None where paths do not tell."""
        action = self.action(space)
        if action.copies != self.context.structure.actions[action.id].copies:
            return None
        found = self.shares.of(action)
        return found if found is not None and len(found) == space.size * space.copies else None

    def loose(self, space: Space) -> bool:
        """Whether the shares of units are not the same in every gauge.

        That is where they are turned in planes, or what they are made of is, and where all may be shifted alike by
        whole rows, as experts are before a softmax.
        """
        structure = self.context.structure
        mine, factors, of = structure.permutation(space.id).leaf, structure.axes.factors, structure.axes.of
        planes = {a.leaf for a in structure.rotations if isinstance(a, PlaneRotation)}
        shifted = [of[shift.translation.weight] for shift in structure.shifts if shift.space == space.id]
        if any(sum(factors.size(f) > 1 for f in axes) > 1 for axes in shifted):
            return True
        held = [set(factors.leaves(f)) for name in structure.program.weights for f in of[name]] if planes else []
        return any(mine in leaves and planes & leaves for leaves in held)

    def told(self, space: Space) -> NDArray[np.bool_]:
        """The units of which exact rules speak."""
        units = self.context.units(space)
        told = units.dead | units.constant
        for group in units.groups:
            told[list(group)] = True
        return told


def estimates(context: Context) -> Estimates:
    """Those of one model; they are kept with its other analyses."""
    found: Estimates = vars(context).setdefault("_estimates", Estimates(context))
    return found
