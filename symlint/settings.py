"""What a run is asked to do: which rules, at which levels, and when it fails.

Settings come from the nearest ``symlint.toml``, or ``pyproject.toml`` with a table ``[tool.symlint]``, at or above the
working directory; flags of the command line win.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from symlint.errors import UsageProblem
from symlint.finding import Level
from symlint.rule import Rule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

THRESHOLDS = ("error", "warning", "note", "never")
_LEVELS = {str(level): level for level in Level}


@dataclass(frozen=True, slots=True)
class Settings:
    """One run's settings. A selector is a code (``SYM101``), its prefix (``SYM1``), a name or ``ALL``."""

    select: tuple[str, ...] = ()
    """Empty for every rule that is not heuristic."""
    ignore: tuple[str, ...] = ()
    fail_on: str = "warning"
    levels: Mapping[str, str] = field(default_factory=dict)
    """Selector -> error, warning, note or off."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Field -> the file or flag that set it."""

    def override(self, origin: str, **values: Any) -> Settings:
        """These settings with the values that are not None."""
        given = {name: value for name, value in values.items() if value is not None}
        origins = {**self.origins, **dict.fromkeys(given, origin)}
        return replace(self, **given, origins=origins)

    def chosen(self, rules: Sequence[Rule]) -> tuple[Rule, ...]:
        """The rules to run: of two selectors that match, the narrower one wins, and ``ignore`` wins a tie.

        Rules of unreadable files are always among them: what was not audited cannot be silenced. Raises `UsageProblem`
        for a selector that matches no rule.
        """
        for selector in (*self.select, *self.ignore, *self.levels):
            _known(selector, rules)
        return tuple(rule for rule in rules if rule.on_failure or self._wants(rule))

    def _wants(self, rule: Rule) -> bool:
        default = int(not self.select and rule.evidence != "heuristic")
        wanted = max((_narrowness(selector, rule) for selector in self.select), default=default)
        unwanted = max((_narrowness(selector, rule) for selector in self.ignore), default=0)
        return wanted > unwanted and self._level(rule) != "off"

    def _level(self, rule: Rule) -> str | None:
        matching = [(_narrowness(selector, rule), level) for selector, level in self.levels.items()]
        width, level = max(matching, default=(0, ""))
        return level if width else None

    def level(self, rule: Rule, found: Level) -> Level:
        """The level of a finding of this rule: the configured one, else the one that the rule gave it."""
        return _LEVELS.get(self._level(rule) or "", found)


def _narrowness(selector: str, rule: Rule) -> int:
    """How narrowly a selector names a rule: 0 when it does not."""
    if selector == "ALL":
        return 1
    if selector in (rule.code, rule.name):
        return 1 + len(rule.code)
    return 1 + len(selector) if selector and rule.code.startswith(selector) else 0


def _known(selector: str, rules: Iterable[Rule]) -> None:
    everything = list(rules)
    if not any(_narrowness(selector, rule) for rule in everything):
        names = [name for rule in everything for name in (rule.code, rule.name)]
        raise UsageProblem(f"no rule {selector!r}{suggestion(selector, names)}; `symlint rule` lists them")


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'check'?`` for the nearest known word, else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def read(start: Path) -> Settings:
    """The settings of the nearest configuration file at or above a folder, or the defaults."""
    for folder in (start.absolute(), *start.absolute().parents):
        for name, table in (("symlint.toml", ()), ("pyproject.toml", ("tool", "symlint"))):
            file = folder / name
            if file.is_file() and (values := _table(file, table)) is not None:
                return _settings(file, values)
    return Settings()


def _table(file: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    try:
        values: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if keys:  # somebody else's pyproject.toml, which other tools will name
            return None
        raise UsageProblem(f"{file}: {error}") from error
    for key in keys:
        values = values.get(key)
        if not isinstance(values, dict):
            return None
    return dict(values)


def _settings(file: Path, values: dict[str, Any]) -> Settings:
    readers = {"select": _selectors, "ignore": _selectors, "fail-on": _threshold, "levels": _levels}
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in readers:
            raise UsageProblem(f"{file}: unknown setting {key!r}{suggestion(key, readers)}")
        try:
            given[key.replace("-", "_")] = readers[key](value)
        except ValueError as error:
            raise UsageProblem(f"{file}: {key}: {error}") from None
    return Settings(**given, origins=dict.fromkeys(given, str(file)))


def _selectors(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of codes or names, not {value!r}")
    return tuple(value)


def _threshold(value: object) -> str:
    if not isinstance(value, str) or value not in THRESHOLDS:
        raise ValueError(f"expected one of {', '.join(THRESHOLDS)}, not {value!r}")
    return value


def _levels(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of rule = level, not {value!r}")
    for level in value.values():
        if level != "off" and level not in _LEVELS:
            raise ValueError(f"expected error, warning, note or off, not {level!r}")
    return value
