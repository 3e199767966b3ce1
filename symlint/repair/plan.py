"""Plans: what the rules found, as repairs, and what one stage of them makes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from symlint.evidence import Context
from symlint.finding import Finding
from symlint.rule import Rule

Key = tuple[str, tuple[str, ...]]
"""Of a repair: rule, with how it is known, and tensors."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A finding that its rule knows how to repair."""

    rule: Rule
    finding: Finding
    where: str
    """The name of the space."""
    units: int
    """How many units the space has, over all copies."""

    @property
    def space(self) -> str:
        """The space."""
        return self.finding.space or ""

    @property
    def whole(self) -> bool:
        """Whether all units of the space are meant."""
        return len(self.finding.units) == self.units

    @property
    def key(self) -> Key:
        """The same for the same flaw of the same network."""
        return f"{self.rule.code} {self.finding.evidence}", self.finding.tensors


@dataclass(frozen=True, slots=True)
class Pending:
    """Units that an earlier stage took out of their readers."""

    tensors: frozenset[str]
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


def repairs(context: Context, rules: Iterable[Rule], evidence: Collection[str]) -> Iterator[Repair]:
    """What the rules find and can repair, of the evidence that is acted on."""
    spaces = {space.id: space for space in context.symmetry.spaces}
    for rule in rules:
        if rule.repair and not rule.on_failure and (rule.evidence != "gauge" or "gauge" in evidence):
            for finding in rule.check(context):
                if finding.space is not None and finding.evidence in evidence:
                    space = spaces[finding.space]
                    yield Repair(rule, finding, space.name, space.size * space.copies)
