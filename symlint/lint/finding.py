"""What a rule says: a finding, its level and the numbers behind it.

Repairs as values: what `symlint fix` does about a finding, with all that it needs to know for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

from symlint.evidence.options import Level
from symlint.model.records import dataclass

Groups = tuple[tuple[Any, ...], ...]
Verb = Literal["", "remove", "fold", "merge", "factor", "drop", "balance", "discard", "share"]
"""How a rule declares what its findings ask for; one word for every kind of repair."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Take the units of the finding away."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold the units of the finding, which are constant, into biases, and take them away."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Let one unit do the work of each group, and take the others away."""

    groups: Groups
    """Units of the space."""


@dataclass(frozen=True, slots=True)
class MergeHeads:
    """The same for whole heads, with everything in them; their readers are fitted anew."""


@dataclass(frozen=True, slots=True)
class Factor:
    """Factor the product of the space, and take the directions away through which nothing passes."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Take tensors to zero that others can take over, and leave them out."""

    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """Balance the scales of the spaces that share weights with that of the finding."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Leave out stored tensors that nothing reads."""

    spare: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Share:
    """Let the readers of each group of stored tensors, which hold the same numbers, share its first."""

    groups: Groups
    spare: tuple[str, ...]
    """Those that are needed no more."""
    bytes: int


Removing = Remove | Fold | Merge | MergeHeads | Factor
"""What takes units of a space away."""
Storing = Discard | Share
"""What leaves out what is stored for nothing; no space is concerned."""
Remedy = Removing | Drop | Balance | Storing

REMOVING: tuple[Verb, ...] = ("remove", "fold", "merge", "factor")
"""The words of rules whose findings ask for units to be taken away."""
STORING: tuple[Verb, ...] = ("discard", "share")
"""The same of what is stored for nothing."""


def remedy(verb: Verb, space: str | None, facts: Mapping[str, Any]) -> Remedy | None:
    """The repair that a finding asks for which carries none: by the word of its rule, and what its facts say.

    None where it speaks neither of a space nor of what could be spared, or where the facts lack what is needed.
    """
    if verb in STORING:
        if not {"spare", "bytes"} <= facts.keys():
            return None
        spare, size = tuple(facts["spare"]), int(facts["bytes"])
        if verb == "discard":
            return Discard(spare, size)
        return Share(grouped(facts["groups"]), spare, size) if "groups" in facts else None
    return None if space is None else _of_space(verb, facts)


def _of_space(verb: Verb, facts: Mapping[str, Any]) -> Remedy | None:
    match verb:
        case "merge":
            if "multiples" in facts:
                return MergeHeads()
            return Merge(grouped(facts["groups"])) if "groups" in facts else None
        case "drop":
            return Drop(tuple(facts["tensors"])) if "tensors" in facts else None
    return _PLAIN.get(verb)


_PLAIN: Mapping[str, Remedy] = {"remove": Remove(), "fold": Fold(), "factor": Factor(), "balance": Balance()}


def grouped(groups: Sequence[Sequence[Any]]) -> Groups:
    """Groups as they are written in facts."""
    return tuple(map(tuple, groups))


__all__ = ["Accepted", "Evidence", "Finding", "Level", "Skipped", "Spectrum"]

Evidence = Literal["exact", "bounded", "heuristic", "gauge"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """What the audit left out: a rule that did not run to its end, or a phase without which none could."""

    name: str
    """The code of the rule, or the name of the phase."""
    reason: str
    """Why, in plain text; reporters escape it."""
    tensor: str = ""
    """The tensor that did not fit into the memory, where it is one."""
    phase: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """Why a finding does not fail a run."""

    by: str
    """``baseline`` or ``configuration``."""
    reason: str = ""
    """In the words of whoever accepted it."""
    expires: str = ""
    """The last day on which that holds, as YYYY-MM-DD; empty for no end."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The singular values that a rank is counted by, of one copy of a space."""

    copy: int
    rank: int
    bound: int
    """What the rank could be."""
    noise: float
    """What rounding makes of a zero, relative to the largest."""
    values: tuple[float, ...]
    """Relative to the largest, descending; of many so few as can be seen, at even distances."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One constraint that holds in one place: one finding per rule and space, with the units as data."""

    rule: str
    name: str
    level: Level
    evidence: Evidence
    message: str
    """One sentence about the consequence, in plain text; reporters escape it."""
    space: str | None = None
    units: tuple[int, ...] = ()
    """Ascending positions in the space, from 0."""
    tensors: tuple[str, ...] = ()
    """All tensors of the space, sorted."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Numbers (with their tolerance) that the message rests on; JSON values only."""
    saves: int = 0
    """Parameters that the repair would remove."""
    fixable: bool = False
    """Whether `symlint fix`, with the options that its evidence or target ask for, will repair it."""
    repairs: int = 0
    """How many units over all copies, or directions, that takes away; 0 where the repair takes none, or is none."""
    stays: str = ""
    """Why `symlint fix` takes none of it away, where a repair is known; set by the audit."""
    fingerprint: str = ""
    """Stable across renaming of nodes and tensors and across retraining; set by the audit."""
    layer: str = ""
    """The layer that it speaks of, as `symlint inspect` calls it; set by the audit."""
    node: str = ""
    """A node of that layer: its name, or its operator and output; empty of a file that could not be read."""
    op: str = ""
    """The operator of the node."""
    repair: Remedy | None = None
    """What `symlint fix` would do about it; where that is None, the rule's word and the facts tell it."""
    accepted: Accepted | None = None
    """By whom and why it is no fault; it is reported all the same."""
    spectra: tuple[Spectrum, ...] = ()
    """Of the copies that lack ranks, for pages; documents for machines hold the numbers around the gap, as facts."""
    worse_than: str = ""
    """What a baseline has accepted in its place, where it is worse than that: ``3 units, warning``."""

    @property
    def amount(self) -> int:
        """How much it speaks of: units, or what repairing it would save."""
        return len(self.units) or self.saves
