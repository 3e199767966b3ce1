"""The engine of `symlint check`: from paths to one report per model, and the verdict on all of them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from symlint.audit.acceptance import Accepting
from symlint.audit.outcome import Report, Run, elsewhere, met, once, savings, unknown_inputs, unmet
from symlint.evidence.context import Context
from symlint.evidence.options import Equivariance, Tried
from symlint.lint.configuration import Configurations
from symlint.lint.finding import Balance, Finding, Level, Removing, Skipped, Storing
from symlint.lint.places import placed, stamp
from symlint.lint.redundancy import costed, resting
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.budget import LOAD, SYMMETRIES, Budget, Interrupted, Stopped, Watch
from symlint.model.errors import UnreadableModel, UsageProblem, raised
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.model.stored import StoredFile
from symlint.symmetry.inference import examine
from symlint.symmetry.spaces import Coverage

if TYPE_CHECKING:
    from symlint.model.graph import Model
    from symlint.repair.promises import Promise


def trial(model: Model) -> Callable[[Equivariance], tuple[Tried, ...]]:
    """What tries a declared equivariance of a model in onnxruntime, output by output.

    Raises UsageProblem where it names an axis or an output that the model does not have.
    """

    def tried(declared: Equivariance) -> tuple[Tried, ...]:
        # Imported here, since few audits run a network.
        from symlint.runtime.equivariance import Wanted, measure

        wanted = Wanted((declared.name,), declared.input, declared.axis, declared.output, declared.action or None)
        table = measure(model, wanted)
        if table.failure:
            return (Tried("", None, "not tried", reason=f"it does not run: {table.failure}"),)
        rows = []
        for row in table.rows:
            within = row.outcome == "broken" and row.error is not None and row.error <= declared.tolerance
            outcome = "held" if within else row.outcome
            rows.append(Tried(row.output, row.axis, outcome, row.action or "", row.error, row.noise, row.reason))
        return tuple(rows)

    return tried


_log = logging.getLogger(__name__)

_MEMORY = "the audit needs more memory than there is"

# Folders of packages and build products, in which models of others lie.
_SKIPPED = {"node_modules", "site-packages", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Job:
    """The audit of one model."""

    path: str
    settings: Settings
    accepts: Accepting | None = None
    """What accepts findings of it, where the report is to say what a fix would take away in all."""
    file: str = ""
    """Where it lies meanwhile, if that is not its path."""

    def judged(self, report: Report) -> Report:
        """Its report with what is accepted of it."""
        named = replace(report, path=self.path, settings=self.settings)
        return self.accepts(named) if self.accepts else named


Auditor = Callable[[Sequence[Job], Sequence[Rule], Watch], Iterator[Report]]
"""Gives the report of each job, in their order; once the watch is interrupted, that of what is begun and no more."""


def run(
    files: Iterable[str],
    missing: Sequence[str],
    rules: Sequence[Rule],
    settings: Configurations,
    watch: Watch | None = None,
    *,
    accepts: Accepting | None = None,
    auditor: Auditor | None = None,
    told: Callable[[Report], None] | None = None,
) -> Run:
    """Audit the files, each under its own settings, until the watch is interrupted.

    Paths without a model count as unreadable files beside others, and as no model when there is nothing else.

    Args:
        files: paths of models.
        missing: paths at which there is no model.
        rules: all that are installed.
        settings: of each model.
        watch: follows the run.
        accepts: what accepts findings. Where it is given, each report says what a fix would take away in all, which is
            nothing of what is accepted.
        auditor: who does the jobs; by default this process, one after another.
        told: gets each report as soon as it and all before it are there.
    """
    start = time.perf_counter()
    watch = watch or Watch()
    names = tuple(files)
    judges = accepts.singly(names) if accepts else repeat(None)
    jobs = [Job(name, settings.of(name), judge) for name, judge in zip(names, judges, strict=False)]
    several = len(jobs) + len(missing) > 1
    reports: list[Report] = []

    def arrived(report: Report) -> None:
        reports.append(report)
        if told:
            told(met(report) if several else report)

    for report in (auditor or in_turn)(jobs, rules, watch):
        arrived(report)
    cut = watch.interrupted and any(report.skipped for report in reports)
    for path in missing if jobs else ():
        arrived(unread(path, UnreadableModel(path, absence(path)), rules))
    kept, mirrors, equivariances = unmet(reports)
    seconds = time.perf_counter() - start
    chosen = _taking_part(kept, settings, rules)
    judged = Run(kept, chosen, tuple(missing), settings.run.fail_on, seconds, cut, config=settings.named)
    return replace(judged, unmet=mirrors, unmet_equivariances=equivariances, unmet_inputs=unknown_inputs(kept))


def in_turn(jobs: Sequence[Job], rules: Sequence[Rule], watch: Watch) -> Iterator[Report]:
    """The jobs one after another, in this process."""
    for job in jobs:
        yield unbegun(job.path) if watch.interrupted else carried_out(job, rules, watch)


def carried_out(job: Job, rules: Sequence[Rule], watch: Watch) -> Report:
    """The report of one job."""
    settings = job.settings

    def takes(report: Report, context: Context, promise: Promise | None) -> int | None:
        try:
            with watch.interruptible():
                watch.told(job.path, "what a fix takes away", 1.0)
                return savings(job.judged(report), context, promise, rules, settings)
        except Interrupted:
            return None

    report = audit(job.file or job.path, settings.chosen(rules), settings, watch, takes if job.accepts else None)
    return replace(report, path=job.path, settings=settings)


def _taking_part(reports: Iterable[Report], settings: Configurations, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that one of the models was judged by, or would have been."""
    codes = {rule.code for report in reports if report.settings for rule in report.settings.chosen(rules)}
    codes |= {rule.code for rule in settings.run.chosen(rules)}
    return tuple(rule for rule in rules if rule.code in codes)


def find(
    paths: Sequence[str],
    excluded: Callable[[str], bool] = lambda _: False,
    listed: Callable[[str], Sequence[str]] | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model files that paths name, and the paths that name none.

    A file that is named is taken whatever it is called; below a folder, every ``*.onnx`` outside hidden folders and
    environments that is not excluded. Where `listed` is given, it says what there is at an address elsewhere.
    """
    files: dict[str, str] = {}
    missing = []
    for path in paths:
        if listed and elsewhere(path) and not os.path.lexists(path):
            found = {file: file for file in listed(path)}
        else:
            here = _below(path, excluded) if Path(path).is_dir() else [path] if os.path.lexists(path) else []
            found = {}
            for file in here:
                found.setdefault(os.path.realpath(file), Path(file).as_posix())
        if not found:
            missing.append(path)
        files |= {key: file for key, file in found.items() if key not in files}
    return tuple(files.values()), tuple(missing)


def absence(path: str) -> str:
    """Why there is no model at a path."""
    return "no *.onnx in this folder" if Path(path).is_dir() else "no such file"


def _below(folder: str, excluded: Callable[[str], bool]) -> list[str]:
    found = []
    for where, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files and where != folder:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        found += [str(Path(where, file)) for file in sorted(files) if file.lower().endswith(".onnx")]
    return [file for file in found if not excluded(file)]


def audit(
    path: str,
    rules: Sequence[Rule],
    settings: Settings,
    watch: Watch | None = None,
    takes: Callable[[Report, Context, Promise | None], int | None] | None = None,
) -> Report:
    """Audit one file; what goes wrong with it is part of the report, never an exception.

    Where `takes` is given, it says of what was found what a fix would take away in all.
    """
    budget = Budget(path, settings.max_memory, settings.time_budget, watch)
    limits = (budget,) if budget.limited else ()
    phase, file = LOAD, None
    try:
        with budget.watch.interruptible():
            budget.enter(phase, 0)
            model = settings.with_states(load(path, budget=budget.cache))
            model = budget.weights(model)
            phase, file = SYMMETRIES, model.file
            budget.enter(phase, 1 / (len(rules) + 2))
            symmetry, structure = examine(model, *limits)
        context = Context(
            symmetry, structure, settings.asked(rules), budget, trial=trial(model) if settings.runs else None
        )
        report, promise = _assessed(path, context, rules, settings)
        if takes is None or report.incomplete:
            return report
        return replace(report, takes=takes(report, context, promise))
    except Stopped as stop:
        why = f"{stop.reason}: nothing was audited"
        return Report(path, partial(_sha256, file), incomplete=why, skipped=(_phase(phase, stop), *_left(rules, stop)))
    except UsageProblem:
        raise
    except UnreadableModel as problem:
        return unread(path, problem, rules)
    except MemoryError:
        return unread(path, UnreadableModel(path, _MEMORY), rules)
    except Exception as error:
        # One model's surprise must not cost the others their audit.
        _log.debug("%s: internal error", path, exc_info=True)
        reason = f"internal error, please report it: {raised(error)}"
        return unread(path, UnreadableModel(path, reason), rules)


def judged(path: str, context: Context, rules: Sequence[Rule], settings: Settings) -> Report:
    """What the rules find in a model that was read."""
    return _assessed(path, context, rules, settings)[0]


def _assessed(path: str, context: Context, rules: Sequence[Rule], settings: Settings) -> tuple[Report, Promise | None]:
    """The same, and what a fix would do about it; None where it has nothing to do, or that cannot be told."""
    symmetry = context.symmetry
    found, crashed, skipped = _check(context, rules, settings)
    findings, promise = _promised(context, rules, found)
    context.budget.lift()
    unfinished = {*(item.name for item in skipped), *crashed}
    spoken_of = {finding.space for finding in findings}
    report = Report(
        path=path,
        hashed=partial(_sha256, symmetry.model.file),
        coverage=symmetry.coverage,
        findings=_stamped(context, rules, findings),
        spaces={space.id: space for space in symmetry.spaces if space.id in spoken_of},
        layers=_layers(context),
        incomplete=_stopped(crashed) or _short(skipped, rules) or _lost(symmetry.coverage, settings.min_understood),
        skipped=skipped,
        lacking=tuple(one.name for one in settings.inputs if one.name not in context.structure.program.inputs),
        finished=frozenset(rule.code for rule in rules if not rule.on_failure and rule.code not in unfinished),
    )
    return report, promise


def _layers(context: Context) -> tuple[tuple[str, int], ...]:
    sizes: dict[str, int] = {}
    for tensor, size in context.parameters.items():
        layer = context.named.layer(tensor)
        sizes[layer] = sizes.get(layer, 0) + size
    return tuple(sizes.items())


def _check(
    context: Context, rules: Sequence[Rule], settings: Settings
) -> tuple[list[Finding], list[str], tuple[Skipped, ...]]:
    """The findings of all rules, the rules that stopped, and those that were cut short."""
    symmetry, budget = context.symmetry, context.budget
    findings: list[Finding] = []
    crashed, skipped = [], []
    running = [rule for rule in rules if not rule.on_failure]
    for done, rule in enumerate(running, 2):
        found: list[Finding] = []
        try:
            # Of weights that are huge or no numbers all that follows is neither: a rule finds it where it matters.
            with budget.watch.interruptible(), np.errstate(all="ignore"):
                budget.enter(rule.code, done / (len(running) + 2))
                found.extend(rule.findings(context))
        except UnreadableModel:
            raise
        except Stopped as stop:
            # What it has found by then is true all the same.
            skipped.append(Skipped(rule.code, stop.reason, stop.tensor))
        except MemoryError:
            skipped.append(Skipped(rule.code, _MEMORY))
        except Exception as error:
            _log.debug("%s: %s", symmetry.model.path, rule.code, exc_info=True)
            crashed.append(rule.code)
            message = f"this rule stopped, please report it: {raised(error, rule.check)}"
            findings.append(Finding(rule.code, rule.name, Level.ERROR, rule.evidence, message))
            continue
        findings += [replace(f, level=settings.level(rule, f.level)) for f in found]
    return once(findings), crashed, tuple(skipped)


def _stamped(context: Context, rules: Sequence[Rule], findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings in order, with their places and their fingerprints."""
    with suppress(Stopped, MemoryError), np.errstate(all="ignore"):
        findings = resting(findings, rules, context)
    symmetry = context.symmetry
    order = {space.id: position for position, space in enumerate(symmetry.spaces)}
    ordered = sorted(findings, key=lambda finding: (finding.rule, order.get(finding.space or "", -1)))
    return stamp(placed(costed(ordered, symmetry, context.structure), symmetry), symmetry)


def _lost(coverage: Coverage, least: float) -> str:
    """Why too little is understood; empty where enough is."""
    percent = 100 * coverage.understood
    if coverage.unreached or percent >= least:
        return coverage.unreached
    return f"{percent:.1f}% is understood, and --min-understood asks for {least:g}%"


def _stopped(crashed: Sequence[str]) -> str:
    return f"{', '.join(crashed)} stopped" if crashed else ""


def _promised(
    context: Context, rules: Sequence[Rule], findings: Sequence[Finding]
) -> tuple[list[Finding], Promise | None]:
    """The findings, those called fixable of which a fix would take something away, and what it would do.

    Where time or memory are used up, or what a fix would do cannot be told, nothing is promised.
    """
    by_code = {rule.code: rule for rule in rules}
    promise, taken, reasons = _promise(context, by_code, [f for f in findings if isinstance(f.repair, Removing)])
    told = [
        replace(
            f,
            fixable=isinstance(f.repair, Balance | Storing) or id(f) in taken,
            repairs=taken.get(id(f), 0),
            stays=reasons.get(id(f), ""),
        )
        for f in findings
    ]
    return told, promise


def _promise(
    context: Context, rules: Mapping[str, Rule], findings: Sequence[Finding]
) -> tuple[Promise | None, dict[int, int], dict[int, str]]:
    """What a fix would do, and the identity of a finding -> how many units it takes away, or why it takes none."""
    if not findings:
        return None, {}, {}
    # Imported here, since most models have nothing to repair.
    from symlint.repair.plan import repairable, repairs
    from symlint.repair.promises import Promise

    try:
        with context.budget.watch.interruptible():
            context.budget.tick()
            found = tuple(r for f in findings for r in repairable(context, rules[f.rule], [f]))
            opened, seen = context.opened, {f.evidence for f in findings}
            promised = found if opened is context else tuple(repairs(opened, rules.values(), seen))
            promise = Promise(opened.as_judged(), promised)
            taken = {id(r.finding): promise.taken[r.key] for r in found if r.key in promise.taken}
            return promise, taken, {id(r.finding): promise.reasons.get(r.key, "") for r in found}
    except (Stopped, MemoryError):
        return None, {}, {}
    except Exception:
        # Findings are true whether or not they can be repaired.
        _log.debug("%s: what a fix would do cannot be told", context.symmetry.model.path, exc_info=True)
        return None, {}, {}


def _short(skipped: Sequence[Skipped], rules: Iterable[Rule]) -> str:
    """How much of the audit was left out, in words."""
    running = sum(not rule.on_failure for rule in rules)
    return f"{len(skipped)} of {running} rules did not run to their end" if skipped else ""


def _phase(name: str, stop: Stopped) -> Skipped:
    return Skipped(name, stop.reason, stop.tensor, phase=True)


def _left(rules: Iterable[Rule], stop: Stopped) -> Iterator[Skipped]:
    return (Skipped(rule.code, stop.reason, stop.tensor) for rule in rules if not rule.on_failure)


def unbegun(path: str) -> Report:
    """The report of a file to which a run that was interrupted has not come."""
    stop = Interrupted()
    return Report(path, incomplete=f"{stop.reason} before it was begun", skipped=(_phase(LOAD, stop),))


def unread(path: str, problem: UnreadableModel, rules: Iterable[Rule]) -> Report:
    """The report of a file that could not be audited, in the words of the rule that stands for the reason."""
    names = {rule.code: rule.name for rule in rules}
    name = names.get(problem.code, "unreadable-model")
    finding = Finding(problem.code, name, Level.ERROR, "exact", problem.reason)
    return Report(path, hashed=partial(_sha256, _regular(path)), findings=stamp([finding]), incomplete=problem.reason)


def _regular(path: str) -> StoredFile | None:
    try:
        return StoredFile(path, path) if Path(path).is_file() else None  # a device has no end
    except (OSError, ValueError):
        return None


def _sha256(file: StoredFile | None) -> str:
    try:
        return file.sha256 if file else ""
    except UnreadableModel:
        return ""
