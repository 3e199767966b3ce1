"""A file that is an older one as `symlint fix` repairs it: which units were removed, folded and merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from symlint.comparison.change.weights import SAME, Change, changes, unmatched
from symlint.comparison.matching.units import match
from symlint.comparison.matching.weights import Weights
from symlint.evidence.context import Context
from symlint.evidence.options import Asked
from symlint.lint.rule import Rule
from symlint.model.load import load
from symlint.model.redundant_tensors import copies
from symlint.repair.fixing import foretold
from symlint.repair.result import Done, Wish
from symlint.symmetry.inference import examine


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
