"""The engine of `symlint diff`: two files of one network, and what became of findings, weights and spaces."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from symlint.audit.engine import judged
from symlint.audit.outcome import Report
from symlint.comparison.alignment.equal import equal
from symlint.comparison.changes import SAME, Change, Status, changes, unmatched
from symlint.comparison.folded_norms import Fold, folded, told
from symlint.comparison.matching import Matching, match
from symlint.comparison.nodes import Nodes, nodes
from symlint.comparison.trajectory import SpaceChange, canonical, counterparts, course, moved
from symlint.comparison.weights import Weight, Weights
from symlint.evidence.context import Context
from symlint.evidence.options import Asked
from symlint.lint.finding import REMOVING, STORING, Finding, Level
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.clusters import copies
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.model.stored import same_bytes
from symlint.repair.fixing import foretold
from symlint.repair.plan import Done, Wish
from symlint.repair.storage import save
from symlint.symmetry.inference import examine


@dataclass(frozen=True, slots=True)
class Grown:
    """A finding of both files that speaks of other units in the new one."""

    old: Finding
    new: Finding
    added: tuple[int, ...] = ()
    """Units of the new file that were not affected before; empty where units cannot be told apart."""
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What became of the findings."""

    new: tuple[Finding, ...]
    gone: tuple[Finding, ...]
    worse: tuple[Grown, ...]
    better: tuple[Grown, ...]
    kept: int


def verdicts(
    old: Sequence[Finding], new: Sequence[Finding], spaces: Mapping[str, str], placed: Callable[[str], bool]
) -> Verdicts:
    """Compare the findings of two files.

    Args:
        old, new: findings of the two files.
        spaces: space of the old file -> that of the new one.
        placed: whether the units of a space of the old file stand where they stood. Where they do not, as after a
            permutation or another training, their numbers say nothing and only how many there are is compared.
    """
    mine: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in old:
        mine[_key(finding, spaces.get(finding.space or "", f"old {finding.space}"))].append(finding)
    fresh, worse, better, kept = [], [], [], 0
    for finding in new:
        waiting = mine.get(_key(finding, finding.space or ""))
        if not waiting:
            fresh.append(finding)
            continue
        before = waiting.pop(0)
        grown = _grown(before, finding, in_place=placed(before.space or ""))
        size = finding.amount - before.amount
        if grown.added or size > 0:
            worse.append(grown)
        elif grown.removed or size < 0:
            better.append(grown)
        else:
            kept += 1
    gone = tuple(finding for waiting in mine.values() for finding in waiting)
    return Verdicts(tuple(fresh), gone, tuple(worse), tuple(better), kept)


def _key(finding: Finding, space: str) -> tuple[str, str, str]:
    """What two findings share that speak of one thing."""
    return finding.rule, space if finding.space else "", "" if finding.space else str(finding.facts.get("op", ""))


def _grown(before: Finding, after: Finding, *, in_place: bool) -> Grown:
    if not in_place:
        return Grown(before, after)
    one, two = set(before.units), set(after.units)
    return Grown(before, after, tuple(sorted(two - one)), tuple(sorted(one - two)))


# A file that is an older one as `symlint fix` repairs it: which units were removed, folded and merged.


@dataclass(frozen=True)
class Repaired:
    """What became of the older file's weights."""

    changes: tuple[Change, ...]
    done: tuple[Done, ...]
    matched_new: int


def repaired(
    contexts: Sequence[Context], plain: Sequence[Change], rules: Sequence[Rule], asked: Asked, folder: Path
) -> Repaired | None:
    """The newer file as the older one repaired; None where it is not.

    Args:
        contexts: the two files.
        plain: what became of the older file's weights where nothing is repaired.
        rules: those that a fix acts on unless it is told otherwise.
        asked: the thresholds of the rules.
        folder: takes the repaired files, none of which is run.
    """
    old, new = contexts
    path, done = foretold(old.symmetry.model, folder, Wish(rules, asked=asked))
    if not done:
        return None
    matching = match(Weights(Context(*examine(load(str(path))), asked)), Weights(new))
    found = {change.old: change for change in changes(matching)}
    if any(unmatched(matching)) or any(c.status not in SAME for c in found.values()):
        return None
    stored = all(one.bytes for one in done)
    told = {change.old: _told(change, found.get(change.old), stored=stored) for change in plain}
    for group in copies(old.symmetry.model):  # those that are shared became what became of the one that stays
        stays = next((name for name in group if name in found and name in told), None)
        if stays is not None:
            told |= {name: replace(told[stays], old=name) for name in group if name in told and name not in found}
    return Repaired(tuple(told.values()), done, sum(block.size for block in matching.blocks.values()))


def _told(plain: Change, made: Change | None, *, stored: bool) -> Change:
    """One change where the repaired weight is the new one; ``stored``: nothing but what is stored was repaired."""
    if plain.status in SAME and plain.matched:
        return plain
    if made is None:
        return replace(plain, status="cut", matched=plain.size, became=(0,) * len(plain.shape), rank=None)
    plain = replace(plain, new=made.new, dtypes=made.dtypes, rank=None, matched=plain.size)
    if made.shape == plain.shape:
        return replace(plain, status=made.status if stored else "merged")
    return replace(plain, status="cut", became=made.shape)


# Resized weights: those of which a pruning or a repair has kept some rows and columns.


def resized(matching: Matching) -> dict[int, int]:
    """Old weight -> new weight of another size, for those that nothing else matches: by name, else by their order."""
    mine, theirs = ({b.weight for b in side} for side in (matching.blocks, matching.blocks.values()))
    left = {k: w for k, w in enumerate(matching.old.all) if k not in mine}
    right = {k: w for k, w in enumerate(matching.new.all) if k not in theirs}
    names = {weight.name: k for k, weight in right.items()}
    found = {k: names[w.name] for k, w in left.items() if w.name in names and _like(w, right[names[w.name]])}
    if not found and len(left) == len(right):
        one, two = (sorted(side, key=lambda k, side=side: side[k].order) for side in (left, right))  # type: ignore[misc]
        if all(_like(left[a], right[b]) and cut(matching, a, b) for a, b in zip(one, two, strict=True)):
            found = dict(zip(one, two, strict=True))
    return found


EXACT = ("float32", "float64")
"""Of coarser types so few numbers exist that one weight's are another's by chance."""


def _like(old: Weight, new: Weight) -> bool:
    return old.kind == new.kind and len(old.shape) == len(new.shape) and old.shape != new.shape


def cut(matching: Matching, old: int, new: int) -> bool:
    """Whether a new weight is smaller along some axes and holds but numbers of an old one."""
    one, two = matching.old.all[old], matching.new.all[new]
    if (
        one.dtype not in EXACT
        or two.dtype not in EXACT
        or not all(m <= n for m, n in zip(two.shape, one.shape, strict=True))
    ):
        return False
    before, after = matching.old.read(one), matching.new.read(two)
    return before is not None and after is not None and bool(np.isin(after, before).all())


def with_cuts(found: Iterable[Change], matching: Matching, pairs: Mapping[int, int]) -> tuple[Change, ...]:
    """The changes, those of weights that were cut told as such."""
    made = []
    for change in found:
        if change.index in pairs and cut(matching, change.index, pairs[change.index]):
            new = matching.new.all[pairs[change.index]]
            types = change.dtypes[0], new.dtype
            told = replace(change, new=(new.name,), status="cut", matched=new.size, became=new.shape, dtypes=types)
            made.append(told)
        else:
            made.append(change)
    return tuple(made)


NORM = "BatchNormalization"
OPEN: tuple[Status, ...] = ("changed", "rescaled")
"""What may yet turn out to be a symmetry."""


@dataclass(frozen=True)
class Comparison:
    """Everything that `symlint diff` tells."""

    old: Report
    new: Report
    findings: Verdicts
    changes: tuple[Change, ...]
    unmatched_old: tuple[Weight, ...]
    unmatched_new: tuple[Weight, ...]
    spaces: tuple[SpaceChange, ...]
    operators: Mapping[str, tuple[int, int]]
    """Operator -> number of its nodes in either file."""
    nodes: Nodes
    matched_new: int
    """Elements of the new network's weights that have a counterpart."""
    total_new: int
    fail_on: Collection[str] = ("new",)
    folds: tuple[tuple[Fold, ...], tuple[Fold, ...]] = ((), ())
    """The normalisations of either file that were folded to compare it."""
    repairs: tuple[Done, ...] = ()
    """What a fix has done to the old file where the new one is its result."""

    @property
    def matched(self) -> int:
        """Elements of the old network's weights that have a counterpart."""
        return sum(change.matched for change in self.changes)

    @property
    def total(self) -> int:
        """Elements of the old network's weights."""
        return sum(change.size for change in self.changes)

    @cached_property
    def counts(self) -> Counter[Status]:
        """Number of the old network's weights by what became of them."""
        return Counter(change.status for change in self.changes if change.matched)

    @property
    def unchanged(self) -> bool:
        """Whether every weight of either file is in the other, with the same numbers."""
        return self.alike and self.matched == self.total and set(self.counts) <= {"identical"}

    @property
    def alike(self) -> bool:
        """Whether every weight of either file is in the other, up to the rounding of its number type."""
        return not self.unmatched_old and not self.unmatched_new and all(c.settled for c in self.changes if c.matched)

    @property
    def renamed(self) -> int:
        """Number of weights that have another name in the new file."""
        return sum(bool(c.new) and c.old not in c.new for c in self.changes)

    @property
    def unrelated(self) -> bool:
        """Whether too little of both files is matched for a comparison to mean something."""
        pairs = (self.matched, self.total), (self.matched_new, self.total_new)
        return self.total + self.total_new > 0 and all(2 * part < whole or not whole for part, whole in pairs)

    @property
    def same(self) -> bool:
        """Whether nothing at all changed: neither a weight, nor what is computed with it."""
        return self.unchanged and self.nodes.same

    @property
    def changed(self) -> int:
        """Number of weights that are in one file only or differ by more than rounding, a moved gauge included."""
        differ = sum(not change.settled for change in self.changes if change.matched)
        return differ + len(self.unmatched_old) + len(self.unmatched_new)

    @property
    def exit_code(self) -> int:
        """4 incomplete, 1 what `fail_on` names has happened, 0 else."""
        if self.old.incomplete or self.new.incomplete or self.unrelated:
            return 4
        return int(bool(self.failed))

    @property
    def failed(self) -> tuple[str, ...]:
        """The names in `fail_on` of what has happened."""
        found = self.findings
        worse = any(grown.new.level >= Level.WARNING for grown in found.worse)
        fresh = any(finding.level >= Level.WARNING for finding in found.new)
        happened = {
            "new": fresh or worse,
            "worse": worse,
            "changed": not self.alike or bool(self.nodes.edits),
            "unchanged": self.alike and not self.nodes.edits,
            "never": False,
        }
        return tuple(name for name in happened if name in self.fail_on and happened[name])

    @property
    def verdict(self) -> str:
        """The exit code in a word."""
        return {0: "pass", 1: "fail"}.get(self.exit_code, "incomplete")


def compare(
    old: str, new: str, rules: Sequence[Rule], settings: Settings, fail_on: Collection[str] = ("new",)
) -> Comparison:
    """Compare two files of one network.

    Raises `UnreadableModel` where one of them cannot be read.
    """
    chosen = settings.chosen(rules)
    models = [settings.with_states(load(path)) for path in (old, new)]
    one = Context(*examine(models[0]), settings.asked(rules))
    report = judged(old, one, chosen, settings)
    # Of two files of the same bytes one is enough.
    equal = same_bytes(*models)
    contexts = [one, one if equal else Context(*examine(models[1]), settings.asked(rules))]
    reports = [report, replace(report, path=new) if equal else judged(new, contexts[1], chosen, settings)]
    with TemporaryDirectory(prefix="symlint-") as folder:
        shown = _shown(contexts, Path(folder), settings.asked(rules))
        found = _compared(contexts, reports, shown, fail_on)
        if shown.contexts is not contexts or not any(f.fixable and f.evidence == "exact" for f in report.findings):
            return found
        if not (found.unmatched_old or found.counts["cut"] or found.unrelated):
            return found
        fixing = [rule for rule in chosen if rule.repair in REMOVING]
        made = repaired(contexts, found.changes, fixing, settings.asked(rules), Path(folder))
        storing = [rule for rule in chosen if rule.repair in STORING]
        if made is None and {rule.code for rule in storing} & {f.rule for f in report.findings}:
            made = repaired(contexts, found.changes, [*fixing, *storing], settings.asked(rules), Path(folder))
    if made is None:
        return found
    return replace(
        found,
        changes=made.changes,
        repairs=made.done,
        matched_new=made.matched_new,
        unmatched_old=(),
        unmatched_new=(),
    )


@dataclass(frozen=True)
class _Shown:
    """The two networks in the form in which their weights are compared."""

    contexts: Sequence[Context]
    folds: tuple[tuple[Fold, ...], tuple[Fold, ...]] = ((), ())


def _shown(contexts: Sequence[Context], folder: Path, asked: Asked) -> _Shown:
    """The networks as they are, or with normalisations folded where one of them has more than the other."""
    models = [c.symmetry.model for c in contexts]
    if len({sum(node.op == NORM for node in model.graph.walk()) for model in models}) == 1:
        return _Shown(contexts)
    made, folds = list[Context](), list[tuple[Fold, ...]]()
    for context, model in zip(contexts, models, strict=True):
        file, found = folded(model.path)
        if not found:
            made.append(context)
        else:
            out = folder / f"{len(made)}.onnx"
            save(file, out, None)
            made.append(Context(*examine(load(str(out))), asked))
        folds.append(found)
    return _Shown(made, (folds[0], folds[1]))


def _compared(
    contexts: Sequence[Context], reports: Sequence[Report], shown: _Shown, fail_on: Collection[str]
) -> Comparison:
    matching, found = _changes(shown)
    spaces, before = counterparts(shown.contexts, matching), (matching, found)
    if shown.contexts is not contexts:
        first, plain = _changes(_Shown(contexts))
        spaces, before = counterparts(contexts, first), (first, plain)
    cuts = [change for change in found if change.status == "cut"]
    kept = {c.old for c in cuts}, {name for c in cuts for name in c.new}
    left, right = unmatched(matching)
    names = ({weight.name for weight in matching.old.all}, {weight.name for weight in matching.new.all})
    return Comparison(
        reports[0],
        reports[1],
        verdicts(reports[0].findings, reports[1].findings, spaces, lambda space: _placed(space, contexts[0], *before)),
        told(found, shown.folds, [c.symmetry.model for c in contexts]),
        tuple(weight for weight in left if weight.name not in kept[0]),
        tuple(weight for weight in right if weight.name not in kept[1]),
        tuple(course(shown.contexts, matching, found)),
        _operators(contexts[0], contexts[1]),
        nodes(shown.contexts[0].symmetry.model, shown.contexts[1].symmetry.model, names),
        sum(block.size for block in matching.blocks.values()) + sum(change.matched for change in cuts),
        sum(weight.size for weight in matching.new.all),
        fail_on,
        shown.folds,
    )


def _changes(shown: _Shown) -> tuple[Matching, tuple[Change, ...]]:
    """The counterparts of the weights, and what became of each."""
    weights = [Weights(c) for c in shown.contexts]
    for side, folds in zip(weights, shown.folds, strict=True):
        side.loose = {fold.bias: fold.slack for fold in folds}
    matching = match(*weights)
    matching.resized = resized(matching)
    found = with_cuts(changes(matching), matching, matching.resized)
    if not all(change.status in SAME for change in found):
        found = moved(found, matching, *map(canonical, shown.contexts))
    if any(change.status in OPEN for change in found):
        same = equal(matching)
        found = tuple(replace(c, status="moved", rank=None) if c.status in OPEN and c.old in same else c for c in found)
    return matching, found


def _placed(space: str, context: Context, matching: Matching, found: Sequence[Change]) -> bool:
    """Whether some weight of a space is still itself, unit by unit."""
    leaves = {a.leaf for a in context.structure.actions.values() if a.space == space}
    near = {c.index for c in found if c.status != "moved" and c.relative is not None and c.relative < 1}
    return not leaves or any(b.weight in near and any(d.leaf in leaves for d in b.dims) for b in matching.blocks)


def _operators(old: Context, new: Context) -> dict[str, tuple[int, int]]:
    one, two = (Counter(node.op for node in c.symmetry.model.graph.walk()) for c in (old, new))
    return {op: (one[op], two[op]) for op in sorted(one | two)}
