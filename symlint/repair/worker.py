"""The worker: carries out the next stage of repairs on one file, biases before any unit is taken away."""

from __future__ import annotations

from collections.abc import Container, Sequence

import onnx_ir as ir

from symlint.evidence.context import Context
from symlint.lint.repairs import Drop, Factor, Fold, Merge, MergeHeads
from symlint.model.records import dataclass
from symlint.repair.plan import Key, Pending, Repair, Stage
from symlint.repair.promises import Forecast, Intent
from symlint.repair.surgery.file import narrowed, stored
from symlint.repair.units.biases import bypass, drop, droppable, redundant, remove, shift
from symlint.repair.units.factoring import factor
from symlint.repair.units.folding import Offset, fold, foldable
from symlint.repair.units.merging import gather, merge
from symlint.repair.units.removal import arrange, lifeless, zeros
from symlint.symmetry.motion.motion import Weights, fresh_weights


@dataclass(frozen=True)
class Settling:
    """The repairs that keep every unit, on one file."""

    context: Context

    # -- branches -------------------------------------------------------------------------------------------------
    def bypasses(self, chosen: Sequence[Repair]) -> Stage | None:
        """Leave out branches of which nothing is alive, and that end in a sum."""
        dead = lifeless(chosen)
        if not dead:
            return None
        file = narrowed(self.context.structure, {}, {})
        if not bypass(file, self.context.symmetry.model, zeros(self.context)):
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


class Worker:
    """Carries out repairs on one file."""

    def __init__(self, context: Context, align: int = 1, *, shrinks: bool = False) -> None:
        self.context = context
        self.structure = context.structure
        self.model = self.structure.program.model
        self.forecast = Forecast(context, align, shrinks=shrinks)
        self.left: dict[Key, str] = {}
        """What the last stage could not carry out, and why."""

    def stage(self, chosen: Sequence[Repair], pending: Sequence[Pending]) -> Stage | None:
        """The next stage; None where nothing can be done.

        What goes into biases comes first, since new biases belong to spaces of their own.
        """
        self.left = dict[Key, str]()
        if not chosen and not pending:
            return None
        settling = Settling(self.context)
        if (bypassed := settling.bypasses(chosen)) is not None:
            return bypassed
        intent = self.forecast.of(chosen, pending)
        self.left.update(intent.reasons)
        return settling.settles(chosen, intent.taken) or self._removes(chosen, pending, intent)

    def _removes(self, chosen: Sequence[Repair], pending: Sequence[Pending], intent: Intent) -> Stage | None:
        """Take units away, once others do the work of those that are not dead."""
        if not intent.removal.widths:
            return None
        weights, done = fresh_weights(self.structure), list[tuple[Repair, int]]()
        for repair in chosen:
            if repair.key not in intent.taken or isinstance(repair.remedy, Fold):
                continue
            self._passes_on(weights, repair)
            done.append((repair, intent.taken[repair.key]))
        arrange(weights, intent.removal)
        widths = intent.removal.widths
        taken = {wait.repair.key: intent.waiting.get(wait.repair.key, 0) for wait in pending}
        file = narrowed(self.structure, stored(weights), widths, self.forecast.whole)
        return Stage(file, tuple(done), cut=True, taken=taken)

    def _passes_on(self, weights: Weights, repair: Repair) -> None:
        """Let others do the work of what goes."""
        match repair.remedy:
            case MergeHeads():
                gather(self.context, weights, repair.space)
            case Merge(groups):
                merge(self.context, weights, repair.space, groups)
            case Factor():
                factor(self.context, weights, next(p for s, p in self.context.products if s.id == repair.space))
