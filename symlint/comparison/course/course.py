"""The course of each space from one file to the other: live units, effective width and rank, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from symlint.comparison.change.weights import Change, Pairs
from symlint.comparison.course.canonical import finite
from symlint.comparison.course.state import State, states
from symlint.comparison.matching.units import Matching
from symlint.evidence.context import Context
from symlint.model.graph import Array, Tensor
from symlint.model.records import dataclass

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
