"""What a fix leaves of what was found: spared, since somebody has accepted it, or for a reason that is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from symlint.audit.engine import audit, judged
from symlint.audit.outcome import Report
from symlint.evidence.context import Context
from symlint.lint.finding import Accepted, Finding, Level, Storing
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.repair.plan import Fixed, Left, Spared, Wish, repairable, storing
from symlint.symmetry.inference import examine


@dataclass(frozen=True, slots=True)
class Sparing:
    """What is accepted of a model."""

    repairs: tuple[Spared, ...] = ()
    places: frozenset[tuple[str, str]] = frozenset()
    """Rule and place of all of it, what no repair is known for included."""


def sparing(
    path: str, settings: Settings, rules: Sequence[Rule], accepts: Callable[[Report], Report] | None
) -> Sparing:
    """What a fix of a model is to leave alone.

    Args:
        path: of the model.
        settings: what it is judged by.
        rules: all that are installed.
        accepts: gives a report of it what is accepted; None where nothing is.

    Raises UnreadableModel.
    """
    if accepts is None:
        return Sparing()
    symmetry, structure = examine(settings.with_states(load(path)))
    context = Context(symmetry, structure, settings.asked(rules))
    report = accepts(replace(judged(path, context, settings.chosen(rules), settings), settings=settings))
    places = frozenset((f.rule, place(f, report)) for f in report.findings if f.accepted)
    return Sparing(spared(report, context, rules), places)


def spared(report: Report, context: Context, rules: Sequence[Rule]) -> tuple[Spared, ...]:
    """The repairs of what is accepted."""
    return tuple(_spared(report, context, {rule.code: rule for rule in rules}))


def place(finding: Finding, report: Report) -> str:
    """Where a finding is, in the words of a fix."""
    space = report.spaces.get(finding.space or "")
    return space.name if space else finding.layer or finding.node


def _spared(report: Report, context: Context, rules: Mapping[str, Rule]) -> Iterator[Spared]:
    for finding in report.findings:
        if finding.accepted is None or finding.repair is None:
            continue
        rule, why = rules[finding.rule], _words(finding.accepted)
        if isinstance(finding.repair, Storing):
            yield Spared(storing(rule, finding, finding.repair), why)
        else:
            yield from (Spared(repair, why) for repair in repairable(context, rule, [finding]))


def _words(accepted: Accepted) -> str:
    return f"accepted: {accepted.reason}" if accepted.reason else f"accepted by the {accepted.by}"


UNKNOWN = "no repair is known"
UNCHOSEN = "--select or --ignore leaves this rule out"
AGAIN = "symlint fix can repair it in the result"
HELD = "it cannot be taken away alone"
NEEDS = {"bounded": "bounded", "heuristic": "all"}
"""Evidence -> the safety at which a fix acts on it."""


def remainder(
    fixed: Fixed,
    wish: Wish,
    rules: Sequence[Rule],
    settings: Settings,
    accepts: Callable[[Report], Report],
    accepted: Collection[tuple[str, str]] = (),
) -> tuple[Left, ...]:
    """The findings above notes that the result has, less those that the fix has told of itself.

    Args:
        fixed: the result.
        wish: what was asked of the fix.
        rules: all that are installed.
        settings: what the model is judged by.
        accepts: gives a report what is accepted.
        accepted: rules and places of what is accepted of the original.
    """
    report = accepts(replace(audit(str(fixed.path), settings.chosen(rules), settings), settings=settings))
    by_code = {rule.code: rule for rule in rules}
    told = {*accepted, *((one.rule, one.where) for one in fixed.left)}
    partial = {(one.rule, one.where): one.reason for one in fixed.partial}
    rest = [(f, where) for f, where in _counted(report) if (f.rule, where) not in told]
    carried = any("carried" in f.facts for f, _ in rest) and not wish.shrinks
    gains = _gains(fixed, wish, settings) if carried else {}
    return tuple(
        Left(f.rule, f.name, where, partial.get((f.rule, where)) or _why(f, by_code[f.rule], wish, gains), False)
        for f, where in rest
    )


def _gains(fixed: Fixed, wish: Wish, settings: Settings) -> dict[str, str]:
    """Input of a state -> what `--shrink-states` would make of it."""
    # Imported here, since it edits files, and what is spared is asked of every model that a fix would repair.
    from symlint.repair.fixing import shrinkable

    with TemporaryDirectory(prefix="symlint-") as folder:
        return {one.input: str(one) for one in shrinkable(settings.with_states(load(fixed.path)), Path(folder), wish)}


def _why(finding: Finding, rule: Rule, wish: Wish, gains: Mapping[str, str]) -> str:
    """Why a finding stays, and of one about a state what would become of that."""
    inputs = finding.facts["carried"]["inputs"] if "carried" in finding.facts else ()
    told = [gains[name] for name in inputs if name in gains]
    return f"--shrink-states would give {', '.join(told)}" if told else _reason(finding, rule, wish)


def _counted(report: Report) -> Iterator[tuple[Finding, str]]:
    for finding in report.findings:
        if finding.level > Level.NOTE and finding.accepted is None:
            yield finding, place(finding, report)


def _reason(finding: Finding, rule: Rule, wish: Wish) -> str:
    if finding.repair is None or not rule.repair:
        return UNKNOWN
    if finding.evidence in NEEDS and finding.evidence not in wish.evidence:
        return f"this is {finding.evidence}, not exact: --safety {NEEDS[finding.evidence]} acts on it"
    if rule not in wish.rules:
        return UNCHOSEN
    return AGAIN if finding.fixable else HELD
