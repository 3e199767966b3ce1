"""The reports for people: one block per finding, in words about consequences; or a line for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from io import StringIO
from shlex import quote
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from symlint.audit.outcome import Report, Run, reparable, safety
from symlint.cli.report import Style
from symlint.cli.report.words import acceptance, count, listed, number, printable, ranges, share, standing
from symlint.lint.finding import Finding, Level
from symlint.lint.settings import COMMAND
from symlint.symmetry.spaces import Coverage

COLOR = {Level.ERROR: "bold red", Level.WARNING: "bold yellow", Level.NOTE: "bold blue"}
_UNITS_SHOWN, _TENSORS_SHOWN, _GROUPS_SHOWN, _SKIPPED_SHOWN, _MODELS_SHOWN = 16, 4, 6, 8, 8
_NONE = 1e-9
"""A part that is the rounding of a sum."""
_FACTS = "SYM4"  # these rules tell what an architecture leaves free, whatever its weights are


class Hanging:
    """A text whose first line is indented by some columns, and those that it wraps into by two more."""

    def __init__(self, text: Text, first: int = 0) -> None:
        self.text, self.first = text, first

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, in the width that there is."""
        first = self.text.wrap(console, options.max_width - self.first)[0]
        yield Text.assemble(" " * self.first, first)
        left = self.text[len(first) :]
        left = left[len(left.plain) - len(left.plain.lstrip()) :]
        for line in left.wrap(console, options.max_width - self.first - 2) if left else ():
            yield Text.assemble(" " * (self.first + 2), line)


class Unbroken(Text):
    """A line that is made to be copied, such as a command: it goes over the width rather than being broken."""


def full_report(run: Run, style: Style) -> str:
    """The text, with control sequences when the style has colours."""
    return typeset(_blocks(run, style), style)


def typeset(blocks: Iterator[RenderableType], style: Style, *, wrap: bool = True) -> str:
    """Rich's blocks as text; foreign names reach it as `Text`, so that no markup is read in them."""
    console = Console(
        file=StringIO(),
        width=style.width,
        force_terminal=style.color,
        color_system="standard" if style.color else None,
        no_color=not style.color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        for block in blocks:
            console.print(block, soft_wrap=not wrap or isinstance(block, Unbroken))
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def shown(report: Report, run: Run, style: Style) -> list[Finding]:
    """The findings that people are shown: notes and what is accepted when they ask for them, or when these can fail."""
    lowest = Level.WARNING if run.threshold(report) != "note" else Level.NOTE
    return [f for f in report.findings if style.verbose or (f.level >= lowest and not f.accepted)]


def architectural(finding: Finding) -> bool:
    """Whether a finding tells what an architecture leaves free, whatever its weights are."""
    return finding.level == Level.NOTE and finding.rule.startswith(_FACTS)


def _blocks(run: Run, style: Style) -> Iterator[RenderableType]:
    clean = [item for item in run.reports if not item.incomplete and not shown(item, run, style)]
    for item in run.reports:
        if item not in clean or style.verbose:
            yield from _model(item, run, style)
    if style.quiet:
        return
    if clean and not style.verbose:
        yield from _clean(clean)
        yield Text("")
    if len(run.reports) > 1 and any(map(run.failing, run.reports)):
        yield _failing(run)
        yield Text("")
    for line in standing(run):
        yield Hanging(Text(line, style="yellow"))
    yield from _help(run)
    yield Hanging(summary(run, every=style.verbose))


def _model(item: Report, run: Run, style: Style) -> Iterator[RenderableType]:
    """A model with its findings."""
    found = shown(item, run, style)
    yield Text(printable(item.path), style="bold")
    if not item.incomplete or item.coverage.total:
        yield Hanging(Text(coverage(item.coverage), style="dim"), 2)
        yield from (Hanging(Text(line, style="dim"), 2) for line in reasons(item.coverage) if style.verbose)
    if item.incomplete and (item.coverage.total or item.skipped):
        yield Hanging(Text(f"incomplete: {printable(item.incomplete)}", style="bold red"), 2)
    for line in left_out(item):
        yield Hanging(Text(line, style="red"), 2)
    yield Text("")
    for finding in sorted(found, key=lambda finding: -finding.level):
        yield from block(finding, item)
        yield Text("")
    if not style.quiet and (lines := list(_counted(_hidden(item, found)))):
        yield from (Hanging(Text(line, style="dim"), 2) for line in lines)
        yield Text("")


def _clean(clean: list[Report]) -> Iterator[RenderableType]:
    """The models of which no finding is shown, a line each."""
    if len(clean) == 1:
        (item,) = clean
        yield Hanging(Text.assemble((printable(item.path), "bold"), (f": {'; '.join(_line(item))}", "dim")))
        return
    columns = ("parameters", "audited", "not\nunderstood", "notes", "accepted")
    rows = [_cells(item) for item in clean]
    told = [k for k in range(len(columns)) if any(cells[k] for cells in rows)]
    folder = _folder(clean)
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    for _ in told:
        table.add_column(justify="right", no_wrap=True)
    heading = f"clean, in {printable(folder)}" if folder else "clean"
    table.add_row(*(Text(word, style="bold") for word in (heading, *(columns[k] for k in told))))
    for item, cells in zip(clean, rows, strict=True):
        name = Text(printable(item.path.removeprefix(f"{folder}/") if folder else item.path))
        table.add_row(name, *(Text(cells[k], style="dim") for k in told))
    yield table
    if hidden := [finding for item in clean for finding in _plain_notes(item)]:
        yield Hanging(Text(f"{count(len(hidden), 'note')} not shown: {_names(hidden)} (-v shows them)", style="dim"))
    for line in _acceptances([finding for item in clean for finding in item.findings if finding.accepted]):
        yield Hanging(Text(line, style="dim"))


def _cells(item: Report) -> tuple[str, ...]:
    """The columns of a clean model."""
    coverage, notes = item.coverage, len(_plain_notes(item))
    if not coverage.total:
        return "no weights", "", "", f"{notes:,}" if notes else "", ""
    rest = _unclear(coverage)
    accepted = sum(finding.accepted is not None for finding in item.findings)
    return (
        f"{coverage.total:,}",
        share(coverage.audited, coverage.total),
        share(rest, coverage.total) if rest else "",
        f"{notes:,}" if notes else "",
        f"{accepted:,}" if accepted else "",
    )


def _plain_notes(item: Report) -> list[Finding]:
    return [finding for finding in item.findings if not finding.accepted and not architectural(finding)]


def _folder(clean: list[Report]) -> str:
    """The folder that all of these lie in; empty for none but the working directory."""
    folders = {item.path.rpartition("/")[0] for item in clean}
    return folders.pop() if len(folders) == 1 else ""


def _line(item: Report) -> Iterator[str]:
    """What there is to say of a model of which no finding is shown."""
    yield coverage(item.coverage)
    if item.coverage.total:
        yield from list(_counted(_hidden(item, []))) or ["nothing found"]


def _hidden(item: Report, found: list[Finding]) -> list[Finding]:
    told = set(map(id, found))
    return [finding for finding in item.findings if id(finding) not in told]


def _failing(run: Run) -> Table:
    """The models that fail, with what was found and what a fix takes away."""
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "right"):
        table.add_column(justify=justify)
    table.add_row(*(Text(word, style="bold") for word in ("failing", "errors", "warnings", "fix takes away")))
    for item in filter(run.failing, run.reports):
        levels = Counter(finding.level for finding in item.findings if not finding.accepted)
        taken = "" if item.takes is None else f"{item.takes:,} ({share(item.takes, item.coverage.total)})"
        name = Text(printable(item.path), overflow="fold")
        table.add_row(name, f"{levels[Level.ERROR]:,}", f"{levels[Level.WARNING]:,}", taken)
    return table


def left_out(report: Report) -> Iterator[str]:
    """What was not audited, a line for each reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in report.skipped:
        groups.setdefault((item.tensor, item.reason), []).append(item.name)
    for (tensor, reason), names in groups.items():
        what = listed(names, _SKIPPED_SHOWN)
        yield f"not audited: {what}: {printable(f'{tensor}: {reason}' if tensor else reason)}"


def _help(run: Run) -> Iterator[RenderableType]:
    """What can be repaired, what that takes away in all, and the command for each model."""
    concerned = [item for item in run.reports if reparable(item)]
    if not concerned:
        return
    many = f" in {count(len(concerned), 'model')}" if len(concerned) > 1 else ""
    number = sum(len(reparable(item)) for item in concerned)
    yield Hanging(Text(f"{count(number, 'finding')}{many} can be repaired{_in_all(concerned)}:"))
    for item in concerned[:_MODELS_SHOWN]:
        yield Unbroken(f"  symlint fix {quote(printable(item.path))} -o OUT{_flags(item, run)}")
    if len(concerned) > _MODELS_SHOWN:
        yield Text(f"  and {count(len(concerned) - _MODELS_SHOWN, 'more model')}")


def _in_all(concerned: list[Report]) -> str:
    told = [item for item in concerned if item.takes is not None]
    if len(told) < len(concerned):
        return ""
    taken, total = sum(item.takes or 0 for item in told), sum(item.coverage.total for item in told)
    return f"; fix takes away {count(taken, 'parameter')} in all ({share(taken, total)})"


def _threshold(run: Run) -> str:
    """The thresholds of the models that fail."""
    return ", ".join(dict.fromkeys(run.threshold(report) for report in run.reports if run.failing(report)))


def _flags(item: Report, run: Run) -> str:
    """The options without which `symlint fix` would do something else than what was found and told."""
    words = [f"--safety {kind}"] if (kind := safety(item)) != "exact" else []
    found = {finding.rule for finding in reparable(item)}
    words += [f"--target {rule.targets[0]}" for rule in run.rules if rule.targets and rule.code in found][:1]
    for name in ("select", "ignore"):
        if item.settings and item.settings.origins.get(name) == COMMAND:
            words.append(f"--{name} {','.join(getattr(item.settings, name))}")
    named = {"config": run.config, "baseline": run.standing.baseline}
    words += [f"--{name} {quote(printable(file))}" for name, file in named.items() if file]
    return "".join(f" {word}" for word in words)


def _counted(notes: list[Finding]) -> Iterator[str]:
    """Notes that are not shown, in a line; what every network of an architecture leaves free is for -v only."""
    accepted = [finding for finding in notes if finding.accepted]
    others = [finding for finding in notes if not finding.accepted and not architectural(finding)]
    yield from _acceptances(accepted)
    if others:
        yield f"{count(len(others), 'note')} not shown: {_names(others)} (-v shows them)"


def _acceptances(findings: list[Finding]) -> Iterator[str]:
    """What is accepted, a line for each reason."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(acceptance(finding), []).append(finding)
    return (f"{why}: {_names(found)} (-v shows them)" for why, found in groups.items())


def _names(findings: list[Finding]) -> str:
    times = Counter(printable(finding.name) for finding in findings)
    return listed(f"{number} {name}" for name, number in sorted(times.items()))


def coverage(coverage: Coverage, verb: str = "audited") -> str:
    """How much of a model's parameters was judged, in words."""
    total = coverage.total
    if not total:
        return "no weights: there is nothing to audit"
    rest = _unclear(coverage)
    parts = [f"{verb} {share(coverage.audited, total)} of {count(total, 'parameter')}"]
    parts += [f"{share(coverage.fixed, total)} fixed by inputs and outputs"] if coverage.fixed else []
    parts += [f"{share(rest, total)} not understood"] if rest else []
    return "; ".join(parts)


def _unclear(coverage: Coverage) -> float:
    """The part of the parameters that was not understood."""
    rest = coverage.total - coverage.audited - coverage.fixed
    return rest if rest > _NONE * coverage.total else 0.0


def reasons(coverage: Coverage) -> Iterator[str]:
    """Why parameters are not understood, a line for each reason."""
    for why, size in coverage.reasons:
        yield f"not understood: {share(size, coverage.total)}: {printable(why)}"


def block(finding: Finding, report: Report) -> Iterator[RenderableType]:
    """A finding in full, with its place, evidence and units."""
    color = COLOR[finding.level]
    yield Hanging(
        Text.assemble(
            (f"{finding.level}[{finding.name}]", color),
            (f" {finding.rule}: ", "bold"),
            (printable(finding.message), "bold"),
        )
    )
    rows = Table.grid(padding=(0, 1, 0, 0))
    rows.add_column(style="blue", no_wrap=True)
    rows.add_column(overflow="fold")
    for mark, text in _lines(finding, report):
        rows.add_row(f"{mark:>5}", Text(text))
    yield rows


def _lines(finding: Finding, report: Report) -> Iterator[tuple[str, str]]:
    tensors = listed((printable(name) for name in finding.tensors), _TENSORS_SHOWN)
    if finding.layer:
        yield "-->", printable(f"{finding.layer} ({node(finding)})")
    if tensors:
        yield "=", f"tensors: {tensors}"
    numbers = listed(f"{key} {number(value)}" for key, value in _scalars(finding.facts) if "tolerance" in key)
    if finding.rule not in ("SYM001", "SYM002", "SYM003"):
        yield "=", f"evidence: {finding.evidence}{'; ' if numbers else ''}{numbers}"
    if finding.units:
        groups = finding.facts.get("groups")
        if groups:
            together = (f"{{{ranges(group, _UNITS_SHOWN)}}}" for group in groups)
            yield "=", f"units: {listed(together, _GROUPS_SHOWN)}"
        else:
            yield "=", f"units: {ranges(finding.units, _UNITS_SHOWN)}"
    if finding.saves:
        saved = share(finding.saves, report.coverage.total)
        yield "=", f"saves: {count(finding.saves, 'parameter')} ({saved} of the model)"
    yield from (("=", f"{name}: {text}") for name, text in consequences(finding))
    if architectural(finding):
        yield "=", "by architecture, whatever the weights: nothing need be done"
    if finding.worse_than:
        yield "=", f"worse than the baseline has accepted: {finding.worse_than}"
    if finding.accepted:
        yield "=", acceptance(finding)
    yield "=", f"help: symlint rule {finding.rule}"


def consequences(finding: Finding) -> Iterator[tuple[str, str]]:
    """What a finding costs besides parameters, and how far it can be repaired: what is told, and under which name."""
    if (state := finding.facts.get("carried")) is not None:
        inputs = listed((printable(name) for name in state["inputs"]), _TENSORS_SHOWN)
        verb = "keeps" if len(state["inputs"]) == 1 else "keep"
        numbers = f"{count(state['of'], 'number')} per {state['per']} where {state['used']:,} would do"
        numbers += f", {count(state['bytes'], 'byte')} more" if state.get("bytes") else ""
        yield "state", f"{inputs} {verb} {numbers}; its callers know its size: fix --shrink-states"
    elif (cache := finding.facts.get("cache")) is not None:
        held = f"{count(cache['bytes'], 'byte')} per {cache['per']} where {cache['used']:,} would do"
        yield "cache", f"of these {cache['of']} it holds {held}"
    if finding.facts.get("start") == "zero":
        yield "start", "true of states that begin with zeros, not of any"
    if finding.fixable and finding.units and 0 < finding.repairs < _removable(finding):
        yield "repair", f"{finding.repairs} of them can be taken away"
    if finding.stays:
        yield "repair", f"none, since {printable(finding.stays)}"


def node(finding: Finding) -> str:
    """The node of a finding with its operator, in the words that one searches for in a viewer."""
    if finding.node == finding.layer:
        return finding.op
    return finding.node if finding.node.startswith(f"{finding.op} -> ") else f"{finding.op} {finding.node}"


def _removable(finding: Finding) -> int:
    """How many units a repair would take away at most: of units that are one, one stays."""
    groups = finding.facts.get("groups")
    return len(finding.units) - len(groups) if groups else len(finding.units)


def _scalars(facts: Any) -> Iterator[tuple[str, object]]:
    return ((key, value) for key, value in facts.items() if isinstance(value, (int, float)))


def summary(run: Run, *, every: bool) -> Text:
    """The last line: the verdict and how much was found; what an architecture leaves free counts where all is shown."""
    if not run.reports and not run.interrupted:
        return Text(f"no model found at {listed(map(printable, run.missing)) or 'the given paths'}", style="bold red")
    accepted = sum(finding.accepted is not None for finding in run.findings)
    main, beside = _totals(run, every=every)
    unfinished = sum(bool(item.incomplete) for item in run.reports)
    outcome, color = {
        0: ("passed", "bold green"),
        1: (f"failed (--fail-on {_threshold(run)})", "bold red"),
        4: (f"incomplete, {count(unfinished, 'audit')} not finished", "bold red"),
        130: (f"interrupted, {count(unfinished, 'audit')} not finished", "bold red"),
    }[run.exit_code]
    concerned = sum(any(f.level in main and not f.accepted for f in item.findings) for item in run.reports)
    part = f"{concerned:,} of " if 0 < concerned < len(run.reports) else ""
    where = f"in {part}{count(len(run.reports), 'model')}, {run.seconds:.1f} s"
    more = "".join(f"; {words}" for words in (_told(beside), f"{accepted:,} accepted" if accepted else "") if words)
    return Text.assemble((outcome, color), f": {_told(main) or 'nothing found'} {where}{more}")


def _totals(run: Run, *, every: bool) -> tuple[dict[Level, int], dict[Level, int]]:
    """How many findings there are at each level, and notes apart where models have worse ones and these say nothing."""
    failing = any(run.threshold(report) == "note" for report in run.reports)
    counted = (f for f in run.findings if not f.accepted and (every or failing or not architectural(f)))
    levels = Counter(finding.level for finding in counted)
    main = {level: levels[level] for level in sorted(Level, reverse=True) if levels[level]}
    if len(run.reports) < 2 or failing or max(main, default=Level.NOTE) == Level.NOTE:
        return main, {}
    notes: dict[Level, int] = {level: number for level, number in main.items() if level <= Level.NOTE}
    return {level: number for level, number in main.items() if level > Level.NOTE}, notes


def _told(levels: dict[Level, int]) -> str:
    return listed(count(number, str(level)) for level, number in levels.items())


def concise_report(run: Run, style: Style) -> str:
    """The lines, as long as they come: nothing is wrapped."""
    return typeset(_concise(run, style), style, wrap=False)


def _concise(run: Run, style: Style) -> Iterator[Text]:
    for item in run.reports:
        for finding in shown(item, run, style):
            yield Text.assemble(
                (printable(item.path), "bold"),
                f": {finding.rule} ",
                (f"[{finding.level}]", COLOR[finding.level]),
                f" {printable(finding.message)}",
                f" ({acceptance(finding)})" if finding.accepted else "",
                f" (the baseline has accepted {finding.worse_than})" if finding.worse_than else "",
            )
        if item.incomplete and not any(finding.message == item.incomplete for finding in item.findings):
            yield Text(f"{printable(item.path)}: incomplete: {printable(item.incomplete)}")
        for line in left_out(item):
            yield Text(f"{printable(item.path)}: {line}")
    if not style.quiet:
        yield from map(Text, standing(run))
        yield summary(run, every=style.verbose)
