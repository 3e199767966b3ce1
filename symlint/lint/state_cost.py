"""What a finding about units of a state costs at every step: numbers that are kept for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import Rule
from symlint.model.states import grows
from symlint.symmetry.spaces import Space, Symmetry
from symlint.symmetry.structure import Structure


def costed(findings: Iterable[Finding], symmetry: Symmetry, structure: Structure) -> list[Finding]:
    """The findings; the facts of those about a state say what it holds.

    ``carried`` has the ``inputs`` by which it comes back, and how many numbers ``of`` so many are ``used`` per
    ``token`` where the state grows, else per ``step``, and the ``bytes`` of the others; of heads, of those that the
    finding names.
    """
    spaces = {space.id: space for space in symmetry.spaces}
    return [
        replace(f, facts={**f.facts, "carried": _state(f, spaces[f.space], structure)})
        if f.space is not None and f.space in structure.carried
        else f
        for f in findings
    ]


def resting(findings: Sequence[Finding], rules: Iterable[Rule], context: Context) -> list[Finding]:
    """The findings; the facts of those that are true only since states begin with zeros say so, by ``start``."""
    held = any(not loop.flows for loop in context.structure.program.loops)
    said = {f.rule for f in findings if f.level > Level.NOTE} if held else set[str]()
    again = {_told(f) for rule in rules if rule.code in said for f in rule.findings(context.anyhow)}
    return [
        replace(f, facts={**f.facts, "start": "zero"}) if f.rule in said and _told(f) not in again else f
        for f in findings
    ]


def _told(finding: Finding) -> tuple[str, str | None, tuple[int, ...]]:
    return finding.rule, finding.space, finding.units


def _state(finding: Finding, space: Space, structure: Structure) -> dict[str, object]:
    inputs, program = structure.carried[space.id], structure.program
    growing = any(grows(loop.axes, program.shapes[loop.input]) for loop in program.loops if loop.input in inputs)
    used, total = _numbers(finding, space)
    wasted = (total - used) * width(program.model.dtypes.get(inputs[0], ""))
    per = "token" if growing else "step"
    return {"inputs": list(inputs), "used": used, "of": total, "per": per, "bytes": wasted}


def width(dtype: str) -> int:
    """Bytes of a number in a run; what is stored in fewer than 16 bits is computed in float32."""
    return {"float16": 2, "bfloat16": 2, "float64": 8}.get(dtype, 4)


def _numbers(finding: Finding, space: Space) -> tuple[int, int]:
    """How many numbers would do, of how many."""
    ranks = finding.facts.get("ranks")
    if isinstance(ranks, Sequence) and ranks:
        return sum(map(int, ranks)), len(ranks) * space.size
    total = space.size * space.copies
    return total - len(finding.units), total
