"""The course of each space from one file to the other, in the gauge where both have the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from symlint.comparison.changes import Change, Pairs
from symlint.comparison.matching import Matching
from symlint.comparison.states import State, states
from symlint.evidence.context import Context
from symlint.model.graph import Array, Tensor
from symlint.model.records import dataclass
from symlint.symmetry.gauge.balance import least_norm
from symlint.symmetry.gauge.scales import Scales, two_sided

ALIKE = 1e-4
"""How far sizes may be apart, relative to the largest, in files of float32 that differ by a symmetry."""
SHARE = 1e-3
"""The same, beside how far the weights themselves are apart: a small change of every weight is no symmetry."""
COARSE = {"float16": 50.0, "bfloat16": 400.0}


def canonical(context: Context, *, buried: bool = False) -> Mapping[str, Array]:
    """Stored tensor -> its values in the gauge of least norm, for those that it moves.

    Args:
        context: the network.
        buried: whether what belongs to dead units becomes zero. Scales let it vanish, and no gauge is the least.
    """
    actions = two_sided(context.structure)
    if not actions or not finite(context):
        return {}
    scales = Scales(context.structure, actions)
    try:
        with np.errstate(all="ignore"):
            logs, dead = least_norm(scales)
            found = scales.apply(logs)
    except (ArithmeticError, ValueError, np.linalg.LinAlgError):
        return {}
    if not all(np.isfinite(v).all() for v in found.values()):
        return {}
    return _buried(scales, dead, found) if buried and dead.any() else found


def _buried(scales: Scales, dead: NDArray[np.bool_], found: Mapping[str, Array]) -> Mapping[str, Array]:
    """The same tensors, and others, with zeros where dead scales meet them."""
    program, marks, made = scales.structure.program, np.append(dead, False), dict(found)
    for name in scales.tensors():
        met = [marks[hold.scales] for hold in scales.holds(name) if hold.power]
        if name in program.weights and any(mark.any() for mark in met):
            stored = program.weights[name]
            values = made[stored] if stored in made else program.model.tensors[stored].read().astype(np.float64)
            here = np.any([np.broadcast_to(mark, program.shapes[name]) for mark in met], axis=0)
            made[stored] = np.where(here.reshape(values.shape), 0.0, values)
    return made


def finite(context: Context) -> bool:
    """Whether all stored weights are finite: without that no gauge is the least, and no spectrum can be told."""
    model = context.structure.program.model
    stored = (model.tensors[name] for name in set(context.structure.program.weights.values()))
    return all(model.digests.of(tensor).finite for tensor in stored)


def moved(
    found: Iterable[Change], matching: Matching, old: Mapping[str, Array], new: Mapping[str, Array]
) -> tuple[Change, ...]:
    """The changes, those among them that only permute, scale or flip units called so.

    In the canonical gauge, which no such move of the weights changes, the sizes of a weight's rows and columns are the
    same but for their order. What a rotation or a shift has moved counts as changed.
    """
    pairs, one, two = Pairs(matching), matching.old.at(old), matching.new.at(new)
    made = []
    for change in found:
        if change.status in ("changed", "rescaled") and (values := pairs.values(change.index, one, two)) is not None:
            tolerance = ALIKE * max(COARSE.get(d, 1.0) for d in change.dtypes)
            near = _apart(*values[:2]) <= min(tolerance, SHARE * (change.relative or 0.0))
            made.append(replace(change, status="moved", rank=None) if near else change)
        else:
            made.append(change)
    return tuple(made)


def _apart(before: Array, after: Array) -> float:
    """The largest difference of the sizes of rows and columns, in order of size, relative to the largest.

    Infinite where a number is infinite or NaN: of such numbers no symmetry can be told.
    """
    worst = 0.0
    before, after = before.astype(np.float64, copy=False), after.astype(np.float64, copy=False)
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return np.inf
    for power in (2, 4):
        for axis in range(max(before.ndim, 1)):
            others = tuple(k for k in range(before.ndim) if k != axis)
            sizes = [
                np.sort(np.sum(np.abs(x) ** power, axis=others).reshape(-1)) ** (1 / power) for x in (before, after)
            ]
            largest = float(sizes[0].max(initial=0.0)) or 1.0
            worst = max(worst, float(np.abs(sizes[0] - sizes[1]).max(initial=0.0)) / largest)
    return worst


VISIBLE = 0.01
"""By how much an effective width has to change, relative, to be told."""


@dataclass(frozen=True, slots=True)
class SpaceChange:
    """A space of the old network and what it is in the new one, None where it was not found there."""

    old: State
    new: State | None

    @property
    def changed(self) -> bool:
        """Whether there is something to tell."""
        new = self.new
        if new is None or (self.old.units, self.old.live, self.old.rank) != (new.units, new.live, new.rank):
            return True
        if self.old.width is None or new.width is None:
            return False
        return abs(new.width - self.old.width) > VISIBLE * max(self.old.width, new.width)


def counterparts(contexts: Sequence[Context], matching: Matching) -> dict[str, str]:
    """Space of the old network -> that of the new one."""
    mine, theirs = ({a.leaf: a.space for a in c.structure.actions.values() if a.leaf >= 0} for c in contexts)
    found = {mine[a]: theirs[b] for a, b in matching.leaves.items() if a in mine and b in theirs}
    for index, other in matching.resized.items():
        dims = ([d for b in w.blocks for d in b.dims] for w in (matching.old.all[index], matching.new.all[other]))
        ours, others = ({(d.use, d.axis, d.place, d.term): d.leaf for d in side} for side in dims)
        for key in sorted(ours.keys() & others.keys()):
            one, two = mine.get(ours[key]), theirs.get(others[key])
            if one and two and one not in found and two not in found.values():
                found[one] = two
    # What has no units, a scale or a shift of whole tensors, is told by the tensors.
    there = {s.id: frozenset(p.tensor for p in s.places) for s in contexts[1].symmetry.spaces}
    left = {held: space for space, held in there.items() if space not in found.values()}
    names: dict[str, set[str]] = {}
    for x, y in matching.blocks.items():
        names.setdefault(matching.old.all[x.weight].name, set()).add(matching.new.all[y.weight].name)
    for space in contexts[0].symmetry.spaces:
        held = frozenset(name for p in space.places for name in names.get(p.tensor, ()))
        if space.id not in found and held in left:
            found[space.id] = left.pop(held)
    return found


def course(contexts: Sequence[Context], matching: Matching, found: Sequence[Change]) -> Iterator[SpaceChange]:
    """The spaces of the old network; where nothing changed no widths are measured, which cost the most."""
    old, new = contexts
    same = all(change.status == "identical" for change in found)
    known = finite(old) and (new is old or finite(new))
    before = states(old, widths=not same)
    there = counterparts(contexts, matching)
    if known and matching.new.quantised and not matching.old.quantised and (values := _stood_for(matching)) is not None:
        # Nothing is scaled across a quantiser: what its levels stand for is judged where the floats were.
        after = {s.id: s for s in states(_with(old, values), widths=True)}
        names = {s.id: s.id for s in before}
    else:
        after = {s.id: s for s in states(new, widths=True)} if not same else {}
        names = there
    gauged = matching.old.quantised == matching.new.quantised or names is not there
    for state in before:
        if state.live is None and state.width is None and state.rank is None:
            continue
        one = state if same and state.id in there else after.get(names.get(state.id, ""))
        if gauged or one is None:
            yield SpaceChange(state, one)
        else:
            yield SpaceChange(replace(state, width=None), replace(one, width=None))


def _stood_for(matching: Matching) -> Mapping[str, Array] | None:
    """The new values of all stored tensors of the old network; None where some are unknown."""
    pairs, made = Pairs(matching), {}
    for index, weight in enumerate(matching.old.all):
        if sum(x.size for x, _ in pairs.blocks.get(index, ())) < weight.size:
            return None
        found = pairs.values(index, matching.old, matching.new)
        if found is None or weight.tensor not in matching.old.program.weights:
            return None
        made[weight.name] = found[1]
    return made


def _with(context: Context, values: Mapping[str, Array]) -> Context:
    """A network with other numbers in its tensors."""
    model = context.symmetry.model
    tensors = {
        name: replace(tensor, read=partial(_read, values[name], tensor)) if name in values else tensor
        for name, tensor in model.tensors.items()
    }
    other = replace(model, tensors=tensors)
    program = replace(context.structure.program, model=other)
    symmetry, structure = replace(context.symmetry, model=other), replace(context.structure, program=program)
    return Context(symmetry, structure, context.asked)


def _read(values: Array, tensor: Tensor) -> Array:
    return values.reshape(tensor.shape).astype(np.float32)
