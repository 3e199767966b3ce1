"""Plans: which findings a fix acts on, as repairs, and what one stage of them makes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from symlint.evidence.context import Context
from symlint.lint.finding import Finding
from symlint.lint.repairs import Remedy, Storing
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.records import dataclass
from symlint.symmetry.spaces import Space

if TYPE_CHECKING:
    import onnx_ir as ir

Key = tuple[str, str, tuple[str, ...]]
"""Of a repair: rule, with how it is known, space, by its name and its number among those of one name, and tensors."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A finding that its rule knows how to repair."""

    rule: Rule
    finding: Finding
    where: str
    """The name of the space."""
    units: int
    """How many units the space has, over all copies."""
    ordinal: int = 0
    """The number of the space among those of one name."""

    @property
    def space(self) -> str:
        """The space."""
        return self.finding.space or ""

    @property
    def remedy(self) -> Remedy:
        """What is to be done."""
        assert self.finding.repair is not None
        return self.finding.repair

    @property
    def whole(self) -> bool:
        """Whether all units of the space are meant."""
        return len(self.finding.units) == self.units

    @property
    def key(self) -> Key:
        """The same for the same flaw of the same network."""
        return f"{self.rule.code} {self.finding.evidence}", f"{self.where} {self.ordinal}", self.finding.tensors


@dataclass(frozen=True, slots=True)
class Spared:
    """A repair that nobody wants, since its finding is accepted."""

    repair: Repair
    reason: str

    def covers(self, other: Repair) -> bool:
        """Whether another repair is the same, or would do something to the same units in the name of another rule."""
        mine = self.repair
        if other.key == mine.key:
            return True
        units = set(other.finding.units)
        same = other.key[1:] == mine.key[1:] and other.units == mine.units
        return same and bool(units) and units <= set(mine.finding.units)


@dataclass(frozen=True, slots=True)
class Pending:
    """Units that an earlier stage took out of their readers."""

    repair: Repair
    units: tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """What one stage made."""

    file: ir.Model
    done: tuple[tuple[Repair, int], ...]
    """Repairs with the number of units, or of directions, that each took away."""
    pending: tuple[Pending, ...] = ()
    cut: bool = False
    """Whether units were taken away, those that were pending among them."""
    taken: Mapping[Key, int] = field(default_factory=dict)
    """How many of the units that were pending, by the repairs that had taken them out of their readers."""


def repairs(context: Context, rules: Iterable[Rule], evidence: Collection[str]) -> Iterator[Repair]:
    """What the rules find and can repair, of the evidence that is acted on."""
    for rule in rules:
        if rule.repair and not rule.on_failure and (rule.evidence != "gauge" or "gauge" in evidence):
            yield from repairable(context, rule, (f for f in rule.findings(context) if f.evidence in evidence))


def repairable(context: Context, rule: Rule, findings: Iterable[Finding]) -> Iterator[Repair]:
    """Findings of a rule as repairs: those that speak of a space and ask for one."""
    spaces = {space.id: space for space in context.symmetry.spaces}
    for finding in findings:
        if finding.space is not None and finding.repair is not None:
            space = spaces[finding.space]
            yield Repair(rule, finding, space.name, space.size * space.copies, ordinal(context, space))


def storing(rule: Rule, finding: Finding, asked: Storing) -> Repair:
    """What is stored for nothing, as a repair."""
    return Repair(rule, finding, ", ".join(asked.spare), 0)


def ordinal(context: Context, space: Space) -> int:
    """The number of a space among those of its name."""
    return [s.id for s in context.symmetry.spaces if s.name == space.name].index(space.id)


SAFETY = {"exact": ("exact",), "bounded": ("exact", "bounded"), "all": ("exact", "bounded", "heuristic")}
"""How much a fix may rely on -> the evidence of findings that it acts on."""


def acted_on(settings: Settings, rules: Sequence[Rule], safety: str, *, drops: bool) -> list[Rule]:
    """The rules whose findings are repaired; what is redundant in every network only where it is asked for.

    What is said of a gauge for a target is always acted on: the function stays.
    """
    wanted = [r for r in settings.chosen(rules) if r.repair and r.evidence in (*SAFETY[safety], "gauge")]
    return [r for r in wanted if drops or r.repair != "drop"]
