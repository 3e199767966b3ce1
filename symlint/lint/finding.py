"""What a rule says: a finding, its level and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from symlint.evidence.level import Level
from symlint.lint.repairs import Remedy
from symlint.model.records import dataclass

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
