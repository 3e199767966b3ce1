"""A lint rule as a value, how rule packages are found, and how serious a share of affected units is.

A rule package is any package that an entry point of the group ``symlint.rules`` names: each of its modules
that holds a `Rule` contributes it. The module's docstring is the rule's manual page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, get_args

from symlint.evidence.options import TARGETS
from symlint.lint.finding import Evidence, Finding, Level, Verb, remedy
from symlint.model.errors import UsageProblem, raised, suggestion
from symlint.model.records import dataclass

if TYPE_CHECKING:
    from symlint.evidence.context import Context

Check = Callable[["Context"], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One lint rule: a stable code, a kebab name that reads as the flaw, and its check."""

    code: str
    name: str
    level: Level
    """The level when nothing about the model's shares says otherwise."""
    evidence: Evidence
    page: str
    """The manual page, in Markdown; the first line is the summary."""
    check: Check
    on_failure: bool = False
    """Whether the rule speaks of files that could not be read, so that its check is never called."""
    repair: Verb = ""
    """How `symlint fix` acts on its findings, in a word; they carry the repair itself, or facts that tell it."""
    options: Mapping[str, float] = field(default_factory=dict)
    """The rule's own thresholds, which a configuration may change: kebab name -> default."""
    targets: tuple[str, ...] = ()
    """What the model must be meant for (``--target``) for this rule to speak; empty for any."""

    @property
    def summary(self) -> str:
        """The first line of the page."""
        return self.page.strip().splitlines()[0]

    def findings(self, context: Context) -> Iterator[Finding]:
        """What the check finds, with the repairs that are asked for."""
        for finding in self.check(context):
            asked = finding.repair or remedy(self.repair, finding.space, finding.facts)
            yield finding if asked is finding.repair else replace(finding, repair=asked)


def rule(
    code: str,
    name: str,
    level: Level,
    evidence: Evidence,
    *,
    on_failure: bool = False,
    repair: Verb = "",
    options: Mapping[str, float] | None = None,
    targets: tuple[str, ...] = (),
) -> Callable[[Check], Rule]:
    """Make the decorated check a `Rule`; its page is the docstring of the module that holds it.

    Raises `UsageProblem` for words that nothing acts on.
    """
    if not re.fullmatch(r"[A-Z]+\d{3}", code):
        raise UsageProblem(f"{code!r} is no code of a rule: expected capitals and three digits, such as SYM101")
    for what, word, known in (("evidence", evidence, get_args(Evidence)), ("repair", repair, get_args(Verb))):
        if word not in known:
            words = ", ".join(map(repr, known))
            raise UsageProblem(f"{code}: {what} is {word!r}{suggestion(word, known)}; it can be {words}")
    if strange := sorted(set(targets) - set(TARGETS)):
        raise UsageProblem(f"{code}: no target {strange[0]!r}{suggestion(strange[0], TARGETS)}")

    def make(check: Check) -> Rule:
        page = sys.modules[check.__module__].__doc__ or ""
        return Rule(code, name, level, evidence, page, check, on_failure, repair, options or {}, targets)

    return make


@cache
def rules() -> tuple[Rule, ...]:
    """Every installed rule, sorted by code.

    Raises `UsageProblem` when two packages claim one code, or one cannot be imported.
    """
    found: dict[str, Rule] = {}
    for entry in sorted(entry_points(group="symlint.rules"), key=lambda entry: entry.value):
        for value in _values(entry):
            if isinstance(value, Rule) and found.setdefault(value.code, value) is not value:
                raise UsageProblem(f"two rules claim {value.code}: uninstall one of the packages that bring it")
    return tuple(found[code] for code in sorted(found))


def _values(entry: EntryPoint) -> Iterator[object]:
    """All that the modules of a package hold."""
    try:
        package = entry.load()
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            yield from vars(import_module(module.name)).values()
    except Exception as error:
        told = str(error) if isinstance(error, UsageProblem) else raised(error)
        raise UsageProblem(f"the package of rules {entry.value}: {told}") from error


SHARES: Mapping[str, float] = {"error-share": 0.5, "error-units": 8, "error-model": 0.01, "note-model": 0.0}
"""The options of every rule that counts units: an error takes this share of a space, so many units, and this share of
the model's parameters; what is below the last share of the model is no more than a note."""


def by_share(context: Context, rule: Rule, affected: int, total: int, saves: int | None = None) -> Level:
    """The level of a finding on some units of a space.

    Args:
        context, rule: of the finding.
        affected, total: units of the space.
        saves: parameters that the repair would remove; None where the share of the model says nothing.
    """
    part = 1.0 if saves is None else saves / max(context.symmetry.coverage.total, 1)
    if part < context.option(rule, "note-model"):
        return Level.NOTE
    many = affected >= context.option(rule, "error-units") and part >= context.option(rule, "error-model")
    return Level.ERROR if many and affected / total >= context.option(rule, "error-share") else Level.WARNING
