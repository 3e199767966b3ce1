"""Settling: what is constant or redundant goes where others take it over, before any unit is taken away."""

from __future__ import annotations

from collections.abc import Container, Sequence

import onnx_ir as ir

from symlint.evidence.context import Context
from symlint.lint.repairs import Drop, Fold
from symlint.model.records import dataclass
from symlint.repair.plan import Key, Pending, Repair, Stage
from symlint.repair.promises.intent import Forecast
from symlint.repair.stage import narrowed, stored
from symlint.repair.units.bias import shift
from symlint.repair.units.branches import lifeless, zeros
from symlint.repair.units.dropping import bypass, drop, droppable, redundant, remove
from symlint.repair.units.folding import Offset, fold, foldable
from symlint.repair.units.merging import merge
from symlint.symmetry.motion.motion import Weights, fresh_weights


@dataclass(frozen=True)
class Settling:
    """The repairs that keep every unit, on one file."""

    context: Context
    forecast: Forecast

    # -- branches -------------------------------------------------------------------------------------------------
    def bypasses(self, chosen: Sequence[Repair]) -> Stage | None:
        """Leave out branches of which nothing is alive, and that end in a sum."""
        dead = lifeless(chosen)
        if not dead:
            return None
        file = narrowed(self.context.structure, {}, {})
        if not bypass(file, self.context.symmetry.model, zeros(self.context, self.forecast.whole)):
            return None
        done = [(r, len(r.finding.units)) for r in dead if any(_gone(file, t) for t in r.finding.tensors)]
        return Stage(file, tuple(done)) if done else None

    # -- constants and biases -------------------------------------------------------------------------------------
    def settles(self, chosen: Sequence[Repair], taken: Container[Key]) -> Stage | None:
        """Fold constant units into biases, and then drop biases that others can take over.

        Args:
            chosen: the repairs.
            taken: those whose units can be taken away afterwards; no others are folded.
        """
        # What is folded may go into a bias that is to be dropped.
        folded = [r for r in chosen if isinstance(r.remedy, Fold) and r.key in taken]
        return self._settled(folded) or self._settled([r for r in chosen if isinstance(r.remedy, Drop)])

    def _settled(self, chosen: Sequence[Repair]) -> Stage | None:
        if not chosen:
            return None
        structure = self.context.structure
        weights, file = fresh_weights(structure), narrowed(structure, {}, {})
        offsets: list[Offset] = []
        gone: list[str] = []
        done: list[tuple[Repair, int]] = []
        waiting: list[Pending] = []
        for repair in chosen:
            if isinstance(repair.remedy, Drop):
                dropped = self._drops(file, weights, repair.space, repair.remedy, gone)
                gone += dropped
                sizes = [structure.program.model.tensors[name].size for name in dropped]
                done += [(repair, sum(sizes))] if dropped else []
            else:
                done.append((repair, 0))
                waiting.append(Pending(repair, self._folds(weights, repair, offsets)))
        if not done:
            return None
        file = narrowed(structure, stored(weights), {})
        for offset in offsets:
            shift(file, offset)
        for name in gone:
            remove(file, name)
        return Stage(file, tuple(done), tuple(waiting))

    def _folds(self, weights: Weights, repair: Repair, offsets: list[Offset]) -> tuple[int, ...]:
        """The units that are read no more; what they contributed is added to `offsets`."""
        found = foldable(self.context, repair.space, repair.finding.units)
        if found.units:
            offsets += fold(self.context, weights, repair.space, found.units)
        if found.groups:
            merge(self.context, weights, repair.space, found.groups)
        return found.spare

    def _drops(self, file: ir.Model, weights: Weights, space: str, asked: Drop, gone: Sequence[str]) -> list[str]:
        """The tensors that a repair takes to zero, of those that the file can do without and that are still there."""
        program, found = self.context.structure.program, list[str]()
        for moved in redundant(self.context, space, asked.tensors):
            takers = {program.weights[way.weight] for way in moved.absorbers}
            if takers & {*gone, *found}:
                continue
            if droppable(file, program.model, program.weights[moved.weight]):
                found.append(drop(weights, moved))
        return found


def _gone(file: ir.Model, name: str) -> bool:
    return not any(name in g.initializers or any(o.name == name for n in g for o in n.outputs) for g in file.graphs())
