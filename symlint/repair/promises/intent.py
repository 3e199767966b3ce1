"""Intent: what repairs would take away of a file, and why not the rest, before anything of it is moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.context import Context
from symlint.lint.repairs import Factor, Fold, Merge, MergeHeads, Remove, Removing
from symlint.model.records import dataclass
from symlint.repair.plan import Key, Pending, Repair, ordinal
from symlint.repair.surgery.narrowing import Immovable, Narrowing, Uneven, Whole, agreed
from symlint.repair.surgery.planned import Cuts
from symlint.repair.surgery.planned import plan as planned
from symlint.repair.units.factoring import narrowest
from symlint.repair.units.folding import BORDER, foldable
from symlint.repair.units.gathering import gatherable
from symlint.repair.units.merging import mergeable
from symlint.repair.units.removal import Removal, aligned, plan
from symlint.repair.units.removal import wanted as needed

Dead = NDArray[np.bool_]
UNREADABLE = "their readers are no plain weights, whose rows could be added up"
WIDE = "heads or copies keep one size, and one of them needs all of it"
LAST = "one unit has to stay"
COPIES = "each head or copy needs some of them"
TURNS = "others in the same places need as many"


@dataclass(frozen=True, slots=True)
class Claim:
    """So many units of a leaf, over all copies, that a repair would take away."""

    key: Key
    leaf: int
    count: int
    waits: bool = False
    """Whether an earlier stage took them out of their readers."""


@dataclass(frozen=True)
class Intent:
    """What would go, repair by repair."""

    removal: Removal
    taken: Mapping[Key, int]
    """Units over all copies, or directions of a product; repairs that take nothing away are not in it."""
    waiting: Mapping[Key, int]
    """The same for the repairs of earlier stages."""
    reasons: Mapping[Key, str]
    """Why the others take nothing away."""


@dataclass
class _Wanted:
    """What is claimed of a network, space by space."""

    dead: dict[str, Dead] = field(default_factory=dict)
    widths: dict[int, int] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)


def multiples(align: int) -> str:
    """Why units stay that alignment asks for."""
    return f"widths stay multiples of {align}"


class Forecast:
    """Tells of one file what its repairs would take away."""

    def __init__(
        self, context: Context, align: int = 1, like: Forecast | None = None, *, shrinks: bool = False
    ) -> None:
        """`like` has forecast of the same file, of which more or less is known; `shrinks` lets states get narrower."""
        self.context, self.align, self.like, self.shrinks = context, align, like, shrinks
        self.structure = context.structure
        self._spare: dict[Key, tuple[tuple[int, ...], str]] = {}
        self._narrow: dict[str, int | None] = {}

    @cached_property
    def whole(self) -> Whole:
        """The network with all its values, as its file has them."""
        return Whole(self.structure.program, shrinks=self.shrinks) if self.like is None else self.like.whole

    def of(self, chosen: Iterable[Repair], pending: Sequence[Pending] = ()) -> Intent:
        """What goes of all these at once: units that lie in the same tensors go together or not at all.

        What would be moved for nothing is not counted on for the others.
        """
        left = list(chosen)
        reasons: dict[Key, str] = {}
        while True:
            wanted = self._wanted(left, pending, reasons)
            removal, granted = self._granted(wanted)
            taken, waiting = ({c.key: n for c, n in granted.items() if n and c.waits == w} for w in (False, True))
            reasons |= {
                c.key: removal.refused.get(c.leaf) or self._reason(c.leaf, wanted) for c, n in granted.items() if not n
            }
            vain = {r.key for r in left if r.key not in taken and not isinstance(r.remedy, Remove)}
            if not vain:
                return Intent(removal, taken, waiting, reasons)
            left = [r for r in left if r.key not in vain]

    def spare(self, repair: Repair) -> tuple[int, ...]:
        """The units, copy-major, that nothing reads any more once a repair is done."""
        return self._found(repair)[0]

    def _found(self, repair: Repair) -> tuple[tuple[int, ...], str]:
        if repair.key not in self._spare:
            self._spare[repair.key] = self._units(repair)
        return self._spare[repair.key]

    def _units(self, repair: Repair) -> tuple[tuple[int, ...], str]:
        """The same, and why there are none."""
        space = repair.space
        match repair.remedy:
            case Remove():
                return repair.finding.units, LAST
            case Fold():
                found = foldable(self.context, space, repair.finding.units)
                return found.spare, found.reason or BORDER
            case MergeHeads():
                return gatherable(self.context, space), UNREADABLE
            case Merge(groups):
                return mergeable(self.context, space, groups), UNREADABLE
        return (), ""

    def _wanted(self, chosen: Sequence[Repair], pending: Sequence[Pending], reasons: dict[Key, str]) -> _Wanted:
        wanted, waiting = _Wanted(), defaultdict[str, set[int]](set)
        for wait, space, units in self.waiting(pending):
            self._claim(wanted, wait.repair.key, space, [u for u in units if u not in waiting[space]], waits=True)
            waiting[space].update(units)
        for repair in chosen:
            if isinstance(repair.remedy, Factor):
                self._factored(wanted, repair, reasons)
            elif isinstance(repair.remedy, Removing):
                units, why = self._found(repair)
                if units:
                    self._claim(wanted, repair.key, repair.space, [u for u in units if u not in waiting[repair.space]])
                else:
                    reasons[repair.key] = why
        return wanted

    def _claim(self, wanted: _Wanted, key: Key, space: str, units: Sequence[int], *, waits: bool = False) -> None:
        action = self.structure.permutation(space)
        if space not in wanted.dead:
            size = self.structure.axes.factors.size
            wanted.dead[space] = np.zeros(size(action.leaf) * prod(map(size, action.copies)), bool)
        if units:
            wanted.dead[space][list(units)] = True
            wanted.claims.append(Claim(key, action.leaf, len(units), waits))

    def _factored(self, wanted: _Wanted, repair: Repair, reasons: dict[Key, str]) -> None:
        product = next(p for s, p in self.context.products if s.id == repair.space)
        action = self.structure.actions[product.generator]
        if repair.space not in self._narrow:
            self._narrow[repair.space] = narrowest(self.context, product)
        width, size = self._narrow[repair.space], self.structure.axes.factors.size
        if width is None:
            reasons[repair.key] = WIDE
            return
        wanted.widths[action.leaf] = width
        gone = (size(action.leaf) - width) * prod(map(size, action.copies))
        wanted.claims.append(Claim(repair.key, action.leaf, gone))

    def _granted(self, wanted: _Wanted) -> tuple[Removal, dict[Claim, int]]:
        """What can be cut, and how much of it each claim gets."""
        removal = plan(self.context, wanted.dead, self.align)
        widths = {**wanted.widths, **removal.widths}
        widths = {leaf: aligned(self.structure, leaf, width, self.align) for leaf, width in widths.items()}
        kept, refused = self.feasible(agreed(self.structure, widths))
        orders = {n: o for n, o in removal.orders.items() if self.structure.actions[n].leaf in kept}
        room = {leaf: self._room(leaf, width) for leaf, width in kept.items()}
        granted: dict[Claim, int] = {}
        for claim in wanted.claims:
            granted[claim] = min(claim.count, room.get(claim.leaf, 0))
            room[claim.leaf] = room.get(claim.leaf, 0) - granted[claim]
        return Removal(kept, orders, refused), granted

    def feasible(self, widths: Mapping[int, int]) -> tuple[dict[int, int], dict[int, str]]:
        """The widths that the file can be given, and why not the others; all at once mostly, else one by one."""
        refused: dict[int, str] = {}
        problem = self._problem(widths)
        while isinstance(problem, Uneven) and (more := self._more(widths, problem)) not in ({}, widths):
            widths, problem = more, self._problem(more)
        if problem is None:
            return dict(widths), refused
        kept: dict[int, int] = {}
        for leaf, width in widths.items():
            reason = self._problem({**kept, leaf: width})
            if reason is None:
                kept[leaf] = width
            else:
                refused[leaf] = str(reason)
        return kept, refused

    def _more(self, widths: Mapping[int, int], asked: Uneven) -> dict[int, int]:
        """The widths with as many units more as an operator wants."""
        factors, of = self.structure.axes.factors, self.structure.axes.of
        least = dict(widths)
        for (name, axis), share in asked.wanted.items():
            for leaf in widths.keys() & set(factors.leaves(of[name][axis]) if name in of else ()):
                least[leaf] = max(least[leaf], ceil(factors.size(leaf) * share))
        return agreed(self.structure, least)

    def _problem(self, widths: Mapping[int, int]) -> Immovable | None:
        try:
            if widths:
                self.attempt(widths)
        except Immovable as reason:
            return reason
        return None

    def attempt(self, widths: Mapping[int, int]) -> Cuts:
        """What becomes of all that is stored where the file is given these widths. Raises `Immovable`."""
        return planned(self.structure.program.model, Narrowing(self.structure, self.whole, widths))

    def _reason(self, leaf: int, wanted: _Wanted) -> str:
        """Why a leaf keeps its width."""
        free = {**wanted.widths, **needed(self.context, wanted.dead)}
        if leaf not in free:
            return COPIES if self._copies(leaf) else LAST
        together = self.align > 1 and leaf in agreed(self.structure, free)
        return multiples(self.align) if together else TURNS

    def _copies(self, leaf: int) -> tuple[int, ...]:
        return next((a.copies for a in self.structure.permutations if a.leaf == leaf), ())

    def _room(self, leaf: int, width: int) -> int:
        """How many units go, over all copies."""
        sizes = self.structure.axes.factors.size
        return (sizes(leaf) - width) * prod(map(sizes, self._copies(leaf)))

    def waiting(self, pending: Sequence[Pending]) -> Iterator[tuple[Pending, str, tuple[int, ...]]]:
        """Of the units that earlier stages took out of their readers, those that are dead by now, with their spaces."""
        for wait in pending:
            tensors, place = {*wait.repair.finding.tensors}, (wait.repair.where, wait.repair.ordinal)
            spaces = [s for s in self.context.spaces if tensors <= {*self.context.tensors(s)}]
            for space in sorted(spaces, key=lambda s: (s.name, ordinal(self.context, s)) != place)[:1]:
                dead = self.context.units(space).dead
                yield wait, space.id, tuple(u for u in wait.units if u < len(dead) and dead[u])
