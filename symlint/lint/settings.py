"""What a run is asked to do: which rules, at which levels and thresholds, when it fails, and what is accepted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from symlint.evidence.options import Asked, Equivariance, InputRange, Mirror
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import Rule
from symlint.model.errors import UsageProblem, suggestion
from symlint.model.records import dataclass
from symlint.model.states import Declaration

if TYPE_CHECKING:
    from symlint.model.graph import Model


def named(path: str | Path, pattern: str, root: Path) -> bool:
    """Whether a pattern names a file, by its name, by its path below the root, or by one of the folders above it.

    ``*`` stands for any characters, slashes included; ``a/`` and ``a`` name the folder with all that is in it.
    """
    try:
        below = Path(os.path.relpath(path, root))
    except ValueError:  # another drive
        below = Path(path)
    pattern = pattern.rstrip("/").removeprefix("./")
    heads: list[PurePath] = [below, *below.parents]
    return any(fnmatchcase(words, pattern) for head in heads for words in (head.as_posix(), head.name) if words != ".")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One table ``[[accept]]``: a fingerprint, or a rule and perhaps a layer."""

    reason: str
    fingerprint: str = ""
    """With its number among equals or without; see `symlint.lint.places`."""
    rule: str = ""
    """A code, the beginning of one, or a name."""
    layer: str = ""
    """A pattern of layers' names; empty for every layer."""
    expires: str = ""
    """The last day on which it holds, as YYYY-MM-DD; empty for no end."""
    origin: str = ""
    """The file that it stands in."""

    def names(self, finding: Finding) -> bool:
        """Whether it speaks of a finding; a fingerprint names no more than one of its equals exactly."""
        if self.fingerprint:
            return self.fingerprint == finding.fingerprint
        layer = not self.layer or self.layer == finding.layer or fnmatchcase(finding.layer, self.layer)
        return layer and self.speaks_of(finding.rule, finding.name)

    def speaks_of(self, code: str, name: str) -> bool:
        """Whether its rule is that one."""
        return bool(self.rule) and (self.rule == name or code.startswith(self.rule.upper()))

    @property
    def place(self) -> str:
        """What it names, in words."""
        return self.fingerprint or (f"{self.rule} at {self.layer}" if self.layer else self.rule)

    def expired(self, today: str) -> bool:
        """Whether its last day has passed; both days are written YYYY-MM-DD, so that words compare as days do."""
        return bool(self.expires) and self.expires < today


THRESHOLDS = ("error", "warning", "note", "never")
COMMAND = "command line"
"""The origin of what flags set."""
LEVELS = {str(level): level for level in Level}


@dataclass(frozen=True, slots=True)
class Settings:
    """One run's settings. A selector is a code (``SYM101``), its prefix (``SYM1``), a name or ``ALL``."""

    select: tuple[str, ...] = ()
    """Empty for every rule that is not heuristic."""
    ignore: tuple[str, ...] = ()
    fail_on: str = "warning"
    levels: Mapping[str, str] = field(default_factory=dict)
    """Selector -> error, warning, note or off."""
    rules: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Selector -> thresholds of the rules that it names."""
    target: str = ""
    """What the model is meant for; rules that judge the gauge speak only then."""
    largest_input: float = 1e6
    """Units count as dead that change no output beyond rounding for inputs up to this."""
    max_memory: int = 0
    """Bytes that the process may take during `symlint check`; 0 for no limit."""
    time_budget: float = 0.0
    """Seconds that the audit of one model may take; 0 for no limit."""
    min_understood: float = 0.0
    """Per cent of the axes of a model's weights that must be understood for its audit to be complete."""
    mirrors: tuple[Mirror, ...] = ()
    """Reflections that the user declares, for SYM801."""
    equivariances: tuple[Equivariance, ...] = ()
    """What the user declares of the outputs under transformations of the inputs, for SYM802."""
    inputs: tuple[InputRange, ...] = ()
    """What the numbers of inputs lie between, for what is proven by intervals."""
    runs: bool = False
    """Whether the network is run, to try what is declared of its outputs; only a flag says so."""
    states: tuple[Declaration, ...] = ()
    """Inputs and outputs between which the caller closes a loop, and outputs of such that it reads as well."""
    find_states: bool = True
    """Whether such pairs are looked for where none is declared."""
    exclude: tuple[str, ...] = ()
    """Patterns of files that a search of a folder passes over."""
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pattern of files -> rules that say nothing of them."""
    per_file_levels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Pattern of files -> `levels` of them, before those of every file."""
    accept: tuple[Acceptance, ...] = ()
    """Findings that are accepted, with a reason."""
    silent: tuple[str, ...] = ()
    """Selectors of rules that say nothing of the file at hand, whatever else is selected; see `at`."""
    file: str = field(default="", compare=False)
    """The configuration that these were read from; empty for none."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Field -> the file or flag that set it."""

    def override(self, origin: str, **values: Any) -> Settings:
        """These settings with the values that are not None."""
        given = {name: value for name, value in values.items() if value is not None}
        origins = {**self.origins, **dict.fromkeys(given, origin)}
        return replace(self, **given, origins=origins)

    def at(self, path: str) -> Settings:
        """These settings for one file: what its name makes silent, and the levels that it has."""
        root = Path(self.file).parent
        silent = [s for pattern, found in self.per_file_ignores.items() if named(path, pattern, root) for s in found]
        levels = [found for pattern, found in self.per_file_levels.items() if named(path, pattern, root)]
        if not silent and not levels:
            return self
        merged = dict(self.levels)
        for table in levels:
            merged |= table
        return replace(self, silent=(*self.silent, *silent), levels=merged)

    def with_states(self, model: Model, *, strict: bool = False) -> Model:
        """The model with its states: those declared here, and those found where that is wished.

        Raises `UsageProblem` where a declared pair is none; with `strict` also where the model lacks a name.
        """
        from symlint.model.states import closed

        return closed(model, self.states, found=self.find_states, strict=strict)

    def excludes(self, path: str) -> bool:
        """Whether a search is to pass over a file."""
        root = Path(self.file).parent
        return any(named(path, pattern, root) for pattern in self.exclude)

    def chosen(self, rules: Sequence[Rule]) -> tuple[Rule, ...]:
        """The rules to run: of two selectors that match, the narrower one wins, and ``ignore`` wins a tie.

        Rules of unreadable files are always among them: what was not audited cannot be silenced. Raises `UsageProblem`
        for a selector that matches no rule.
        """
        for place, selectors in self._selectors():
            for selector in selectors:
                with self._origin(place):
                    _known(selector, rules)
        for selector in self.select:
            with self._origin("select"):
                self._silent(selector, rules)
        self.asked(rules)
        return tuple(rule for rule in rules if rule.on_failure or self._wants(rule))

    def _selectors(self) -> Iterator[tuple[str, Iterable[str]]]:
        """All selectors, each field's with its name."""
        yield from ((place, getattr(self, place)) for place in ("select", "ignore", "levels", "rules"))
        yield from (("per_file_ignores", selectors) for selectors in self.per_file_ignores.values())
        yield from (("per_file_levels", table) for table in self.per_file_levels.values())
        yield "accept", [item.rule for item in self.accept if item.rule]

    @contextmanager
    def _origin(self, place: str) -> Iterator[None]:
        """Faults of a configuration are told with the name of its file."""
        file = self.origins.get(place, COMMAND)
        try:
            yield
        except UsageProblem as problem:
            where = "" if file == COMMAND else f"{file}: {place.replace('_', '-')}: "
            raise UsageProblem(f"{where}{problem}") from None

    def _silent(self, selector: str, rules: Iterable[Rule]) -> None:
        """Raises `UsageProblem` for a selector that names nothing but rules of targets that are not asked for."""
        named = [rule for rule in rules if _narrowness(selector, rule)]
        if all(rule.targets and self.target not in rule.targets for rule in named):
            targets = dict.fromkeys(f"--target {target}" for rule in named for target in rule.targets)
            verb = "speaks" if len(named) == 1 else "speak"
            raise UsageProblem(f"{selector} {verb} only with {' or '.join(targets)}")

    def _wants(self, rule: Rule) -> bool:
        default = int(not self.select and rule.evidence != "heuristic")
        if rule.targets and self.target not in rule.targets:
            return False
        wanted = max((_narrowness(selector, rule) for selector in self.select), default=default)
        unwanted = max((_narrowness(selector, rule) for selector in self.ignore), default=0)
        silent = any(_narrowness(selector, rule) for selector in self.silent)
        return wanted > unwanted and not silent and self._level(rule) != "off"

    def asked(self, rules: Sequence[Rule]) -> Asked:
        """What the rules are asked; of two selectors that set one threshold the narrower one wins.

        Raises `UsageProblem` for a threshold that none of the rules of its selector has.
        """
        options: dict[str, dict[str, float]] = {}
        for selector, values in self.rules.items():
            with self._origin("rules"):
                _with_thresholds(selector, values, rules)
        for rule in rules:
            for selector in sorted(self.rules, key=lambda selector: _narrowness(selector, rule)):
                if _narrowness(selector, rule):
                    mine = {k: v for k, v in self.rules[selector].items() if k in rule.options}
                    options.setdefault(rule.code, {}).update(mine)
        return Asked(options, self.target, self.largest_input, self.mirrors, self.equivariances, self.inputs)

    def _level(self, rule: Rule) -> str | None:
        matching = [(_narrowness(selector, rule), level) for selector, level in self.levels.items()]
        width, level = max(matching, default=(0, ""))
        return level if width else None

    def level(self, rule: Rule, found: Level) -> Level:
        """The level of a finding of this rule: the configured one, else the one that the rule gave it."""
        return LEVELS.get(self._level(rule) or "", found)


def _narrowness(selector: str, rule: Rule) -> int:
    """How narrowly a selector names a rule: 0 when it does not."""
    code = selector.upper()
    if code == "ALL":
        return 1
    if code == rule.code or selector == rule.name:
        return 1 + len(rule.code)
    return 1 + len(code) if code and rule.code.startswith(code) else 0


def _known(selector: str, rules: Iterable[Rule]) -> None:
    everything = list(rules)
    if not any(_narrowness(selector, rule) for rule in everything):
        names = [name for rule in everything for name in (rule.code, rule.name)]
        raise UsageProblem(f"no rule {selector!r}{suggestion(selector, names)}; `symlint rule` lists them")


def _with_thresholds(selector: str, values: Iterable[str], rules: Iterable[Rule]) -> None:
    known = {option for rule in rules if _narrowness(selector, rule) for option in rule.options}
    for name in values:
        if name not in known:
            reason = f"{selector} has no threshold {name!r}{suggestion(name, known)}"
            raise UsageProblem(f"{reason}; it has {', '.join(sorted(known)) or 'none'}")
