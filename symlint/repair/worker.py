"""The worker: carries out the next stage of repairs on one file."""

from __future__ import annotations

from collections.abc import Sequence

from symlint.evidence.context import Context
from symlint.lint.repairs import Factor, Fold, Merge, MergeHeads
from symlint.repair.plan import Key, Pending, Repair, Stage
from symlint.repair.promises.intent import Forecast, Intent
from symlint.repair.stage import narrowed, stored
from symlint.repair.units.factoring import factor
from symlint.repair.units.gathering import gather
from symlint.repair.units.merging import merge
from symlint.repair.units.removal import arrange
from symlint.repair.units.settling import Settling
from symlint.symmetry.motion.motion import Weights, fresh_weights


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
        settling = Settling(self.context, self.forecast)
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
