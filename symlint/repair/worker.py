"""The worker: carries out the next stage of repairs on one file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.evidence import Context
from symlint.motion import Weights
from symlint.repair.factoring import factor
from symlint.repair.gathering import gather
from symlint.repair.merging import merge
from symlint.repair.narrowing import Immovable, Whole, agreed
from symlint.repair.plan import Key, Pending, Repair, Stage
from symlint.repair.removal import aligned, arrange, plan
from symlint.repair.settling import Settling
from symlint.repair.stage import fresh_weights, narrowed, stored
from symlint.symmetry import Space

Dead = NDArray[np.bool_]


class Worker:
    """Carries out repairs on one file."""

    def __init__(self, context: Context, align: int = 1) -> None:
        self.context, self.align = context, align
        self.structure = context.structure
        self.model = self.structure.program.model
        self.left: dict[Key, str] = {}
        """What the last stage could not carry out, and why."""

    @cached_property
    def whole(self) -> Whole:
        """The network with all its values."""
        return Whole(self.model)

    def stage(self, chosen: Sequence[Repair], pending: Sequence[Pending]) -> Stage | None:
        """The next stage; None where nothing can be done.

        What goes into biases comes first, since new biases belong to spaces of their own.
        """
        if not chosen and not pending:
            return None
        self.left = dict[Key, str]()
        settling = Settling(self.context, self.whole, self.left)
        return settling.bypasses(chosen) or settling.settles(chosen) or self._removes(chosen, pending)

    # -- fewer units ----------------------------------------------------------------------------------------------
    def _removes(self, chosen: Sequence[Repair], pending: Sequence[Pending]) -> Stage | None:
        weights = fresh_weights(self.structure)
        dead: dict[str, Dead] = {}
        widths: dict[int, int] = {}
        claims: list[tuple[Repair, int, int]] = []
        waiting = dict(self._waiting(pending))
        for repair in chosen:
            space, verb = repair.space, repair.rule.repair
            units: Sequence[int] = ()
            if verb == "remove":
                units = repair.finding.units
            elif verb == "merge":
                bundles = "multiples" in repair.finding.facts
                groups = repair.finding.facts["groups"]
                units = gather(self.context, weights, space) if bundles else merge(self.context, weights, space, groups)
                if not units:
                    self.left[repair.key] = "their readers are no plain weights, whose rows could be added up"
            elif verb == "factor":
                leaf = self._factored(repair, weights, widths)
                if leaf is None:
                    self.left[repair.key] = "heads or copies keep one size, and one of them needs all of it"
                else:
                    claims.append((repair, leaf, self.structure.axes.factors.size(leaf) - widths[leaf]))
            if units:
                dead[space] = dead.get(space, np.zeros(self._count(space), bool)) | self._mask(space, units)
                if fresh := len(set(units) - set(waiting.get(space, ()))):
                    claims.append((repair, self._leaf(space), fresh))
        for space, units in waiting.items():
            dead[space] = dead.get(space, np.zeros(self._count(space), bool)) | self._mask(space, units)
        removal = plan(self.context, dead, self.align)
        widths |= removal.widths
        widths = {leaf: aligned(self.structure, leaf, width, self.align) for leaf, width in widths.items()}
        kept, refused = self.feasible(agreed(self.structure, widths))
        orders = {n: o for n, o in removal.orders.items() if self.structure.actions[n].leaf in kept}
        arrange(weights, type(removal)(kept, orders))
        done = []
        room = {leaf: self._room(leaf, width) for leaf, width in kept.items()}
        for claim, leaf, count in claims:
            if room.get(leaf):
                done.append((claim, min(count, room[leaf])))
                room[leaf] -= done[-1][1]
            elif leaf not in kept:
                self.left[claim.key] = refused.get(leaf, self._reason(leaf))
        moved = {claim.key for claim, leaf, _ in claims if leaf not in kept and claim.rule.repair != "remove"}
        if moved:  # what has been moved for nothing is not moved
            return self._removes([r for r in chosen if r.key not in moved], pending)
        if not kept:
            return None
        return Stage(narrowed(self.structure, stored(weights), kept, self.whole), tuple(done), cut=True)

    def _factored(self, repair: Repair, weights: Weights, widths: dict[int, int]) -> int | None:
        product = next(p for s, p in self.context.products if s.id == repair.space)
        width = factor(self.context, weights, product)
        leaf = self.structure.actions[product.generator].leaf
        if width is not None:
            widths[leaf] = width
        return leaf if width is not None else None

    def feasible(self, widths: Mapping[int, int]) -> tuple[dict[int, int], dict[int, str]]:
        """The widths that the file can be given, and why not the others; all at once mostly, else one by one."""
        refused: dict[int, str] = {}
        if self._refusal(widths) is None:
            return dict(widths), refused
        kept: dict[int, int] = {}
        for leaf, width in widths.items():
            reason = self._refusal({**kept, leaf: width})
            if reason is None:
                kept[leaf] = width
            else:
                refused[leaf] = reason
        return kept, refused

    def _refusal(self, widths: Mapping[int, int]) -> str | None:
        try:
            narrowed(self.structure, {}, widths, self.whole)
        except Immovable as reason:
            return str(reason)
        return None

    def _reason(self, leaf: int) -> str:
        """Why a leaf keeps its width."""
        if self.align > 1:
            return f"widths stay multiples of {self.align}"
        shared = any(a.leaf == leaf and a.copies for a in self.structure.actions.values())
        return "each head or copy needs some of them" if shared else "others in the same places need as many"

    def _room(self, leaf: int, width: int) -> int:
        """How many units go, over all copies."""
        copies = next(
            (a.copies for a in self.structure.actions.values() if a.leaf == leaf and a.kind == "permutation"), ()
        )
        sizes = self.structure.axes.factors.size
        return (sizes(leaf) - width) * prod(map(sizes, copies))

    # -- spaces ---------------------------------------------------------------------------------------------------
    def _space(self, space: str) -> Space:
        return next(s for s in self.context.symmetry.spaces if s.id == space)

    def _leaf(self, space: str) -> int:
        return self.structure.actions[f"{space}.permutation"].leaf

    def _count(self, space: str) -> int:
        found = self._space(space)
        return found.size * found.copies

    def _mask(self, space: str, units: Sequence[int]) -> Dead:
        mask = np.zeros(self._count(space), bool)
        mask[list(units)] = True
        return mask

    def _waiting(self, pending: Sequence[Pending]) -> Iterator[tuple[str, tuple[int, ...]]]:
        for wait in pending:
            for space in self.context.spaces:
                if wait.tensors <= set(self.context.tensors(space)):
                    dead = self.context.units(space).dead
                    yield space.id, tuple(u for u in wait.units if u < len(dead) and dead[u])
                    break
