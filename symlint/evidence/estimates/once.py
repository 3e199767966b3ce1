"""Analyses that only heuristic rules ask for, made once for each model; effective widths, geometry of classifiers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.paths.paths import Forward
from symlint.analysis.paths.shares import Shares, mixed
from symlint.analysis.paths.squares import Layout
from symlint.evidence.context import Context
from symlint.evidence.estimates.likeness import Likeness
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, rearranges
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


def participation(energy: Array) -> float:
    """How many equal parts would be as evenly spread: the exponential of the entropy of the shares.

    Source: Roy and Vetterli, The Effective Rank (EUSIPCO 2007).
    """
    total = float(np.sum(energy))
    if not total > 0 or not np.isfinite(total):
        return 0.0
    shares = energy[energy > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def effective_width(context: Context, space: Space) -> float | None:
    """Of units that may be permuted, by their shares of all paths, over all copies; None where paths do not tell."""
    found = estimates(context)
    share = None if found.loose(space) else found.share(space)
    return None if share is None else participation(share)


FEWEST = 4
"""With three classes or fewer any rows are near to a simplex once they are centred."""
MOST = 1024
AFTER = frozenset({"Add", "Identity", "Sigmoid", "Cast", "Mul", "Div"})


@dataclass(frozen=True, slots=True)
class Classifier:
    """The last linear map before an output; a difference of 0 is a simplex."""

    name: str
    classes: int
    tensors: tuple[str, ...]
    angle: float
    """Root mean square of what the cosines differ by from those of a simplex."""
    size: float
    """Spread of the sizes, relative to their mean."""
    chance_angle: float
    chance_size: float


def classifiers(forward: Forward) -> Iterator[Classifier]:
    """The classifiers of a network."""
    last = set(forward.program.finals)
    for step in reversed(forward.program.steps):
        if last.isdisjoint(step.results) or not forward.moving.issuperset(step.results):
            continue
        if step.function in AFTER or step.known.shares or rearranges(step):
            last.update(step.operands)
        elif isinstance(step, Einsum):
            found = _look(forward, step)
            if found is not None:
                yield found


def _look(forward: Forward, step: Einsum) -> Classifier | None:
    """The geometry of one linear map, with the features as large as paths make them."""
    fixed = [k for k, name in enumerate(step.operands) if forward.number(name) is not None]
    moving = [k for k in range(len(step.operands)) if k not in fixed]
    if len(fixed) != 1 or len(moving) != 1:
        return None
    made = step.kept
    held = {x for axis in step.specs[moving[0]] for x in axis}
    rows = [k for k, a in enumerate(step.result) if a and not held.intersection(a)]
    if len(rows) != 1 or not FEWEST <= forward.program.shapes[step.out][rows[0]] <= MOST or made == held:
        return None
    axis = forward.layout.structure.axes.of[step.out][rows[0]]
    leaves = set(forward.layout.structure.axes.factors.leaves(axis))
    layout = replace(forward.layout, mixed=forward.layout.mixed | leaves)
    if rows[0] not in layout.doubled(step.out):
        return None
    count, rank = forward.program.shapes[step.out][rows[0]], len(layout.shape(step.out))
    with np.errstate(invalid="ignore"):  # what is not finite ends below
        gram = forward.contracted(step, layout=layout)
    gram = np.einsum(gram, [*range(rank), *(rank + k for k in layout.doubled(step.out))], [rows[0], rank + rows[0]])
    if not np.isfinite(gram).all():
        return None
    values = np.maximum(np.linalg.eigvalsh(gram), 0.0)
    gram = gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean()
    size = np.sqrt(np.maximum(np.diag(gram), 0.0))
    if not size.all() or np.count_nonzero(values > 1e-9 * values[-1]) < count - 1:
        return None
    apart = gram / size[:, None] / size[None] + 1.0 / (count - 1)
    angle = np.sqrt(np.mean(apart[~np.eye(count, dtype=bool)] ** 2))
    spread = _dimensions(forward, step, moving[0])
    weight = forward.program.weights.get(step.operands[fixed[0]], step.operands[fixed[0]])
    return Classifier(
        step.node.name or step.out,
        count,
        (weight,),
        float(angle),
        float(size.std() / size.mean()),
        float(spread**-0.5),
        float((2 * spread) ** -0.5),
    )


def _dimensions(forward: Forward, step: Einsum, k: int) -> float:
    """In how many dimensions the features lie, by the participation ratio of their squares."""
    name = step.operands[k]
    squares, shape = np.abs(forward.squares(name)), forward.layout.shape(name)
    summed = [j for j, axis in enumerate(step.specs[k]) if axis and not step.kept.issuperset(axis)]
    if not all(shape[j] > 1 for j in summed) or not squares.sum():
        return float(np.prod([forward.program.shapes[name][j] for j in summed]))
    return float(squares.sum() ** 2 / np.sum(squares**2) / np.prod([n for j, n in enumerate(shape) if j not in summed]))
