"""`symlint check`: audit models, alone or by means of processes, a cluster and a cache."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from symlint.cli.commands.options import (
    Loops,
    Waiting,
    color_option,
    config_option,
    rules_option,
    states_options,
    style_for,
    writable,
)
from symlint.cli.report import FORMATS, MACHINE, Style, reporter
from symlint.cli.report.words import count, printable
from symlint.evidence.options import TARGETS
from symlint.lint.configuration import Configurations
from symlint.lint.settings import THRESHOLDS
from symlint.model import budget
from symlint.model.budget import DONE, Watch
from symlint.model.errors import UsageProblem
from symlint.model.records import dataclass

if TYPE_CHECKING:
    from symlint.audit.acceptance import Accepting, Baseline
    from symlint.audit.cache import Cache
    from symlint.audit.engine import Auditor
    from symlint.audit.outcome import Report, Run

_Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Means:
    """What the flags say of how jobs are done."""

    jobs: int = 1
    folder: str | None = None
    cached: bool = True
    cluster: str | None = None
    """The address of its scheduler."""

    @property
    def alone(self) -> bool:
        """Whether this process does them, one after another."""
        return self.jobs == 1 and self.cluster is None

    def auditor(self, files: Iterable[str]) -> Auditor | None:
        """Who does the jobs; None for this process alone, without a cache. Raises `UsageProblem`."""
        from symlint.audit.outcome import elsewhere

        if self.alone and self.folder is None and not any(map(elsewhere, files)):
            return None
        # Imported here, since most checks are of a few files.
        if self.alone:
            from symlint.audit.execution import InTurn

            return InTurn(self._cache() if self.folder is not None else None)
        from symlint.audit.fleet import Fleet

        if self.cluster is not None:
            from symlint.audit.fleet import Cluster

            return Fleet(Cluster(self.cluster, self._cache()))
        from symlint.audit.fleet import Processes

        return Fleet(Processes(self.jobs, self._cache()))

    def _cache(self) -> Cache | None:
        from symlint.audit.cache import Cache, default_folder

        if not self.cached:
            return None
        if self.folder is not None:
            return Cache.made(Path(self.folder))
        try:
            return Cache.made(default_folder())
        except UsageProblem as problem:  # nobody has asked for it
            click.echo(f"symlint: without a cache: {printable(str(problem))}", err=True)
            return None


def means_options(command: _Command) -> _Command:
    """``--jobs``, ``--dask``, ``--cache`` and ``--no-cache``, as one argument `means` of a command."""

    @wraps(command)
    def told(
        *arguments: Any, jobs: int | None, dask: str | None, cache: str | None, no_cache: bool, **others: Any
    ) -> Any:
        if cache is not None and no_cache:
            raise UsageProblem("choose one of --cache and --no-cache")
        if jobs is not None and dask is not None:
            raise UsageProblem("choose one of --jobs and --dask, whose cluster has workers of its own")
        number = 1 if jobs is None else jobs or _cores()
        return command(*arguments, means=Means(number, cache, not no_cache, dask), **others)

    options = (
        click.option("--no-cache", is_flag=True, help="Audit all models anew."),
        click.option(
            "--cache",
            type=click.Path(file_okay=False),
            help="Keep reports in this folder, and audit no model twice.  [default: with --jobs or --dask, "
            "$XDG_CACHE_HOME/symlint or ~/.cache/symlint; else none]",
        ),
        click.option("--dask", metavar="ADDRESS", help="Have the workers of this cluster audit: tcp://HOST:8786."),
        click.option(
            "--jobs",
            type=click.IntRange(0),
            metavar="N",
            help="Audit so many models at once, each in a process of its own; 0 for one per core.  [default: 1]",
        ),
    )
    made: _Command = told
    for option in options:
        made = option(made)
    return made


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


FORM = "jsonl"


@contextmanager
def lines(files: Sequence[Path], *, stdout: bool) -> Iterator[Callable[[Report], None] | None]:
    """Takes reports in their order and writes a line for each; None where there is nothing to write to.

    Args:
        files: to write.
        stdout: whether to print them as well.

    Raises `UsageProblem` for a file that cannot be written.
    """
    if not files and not stdout:
        yield None
        return
    from symlint.audit.acceptance import accepting
    from symlint.cli.report.data import line
    from symlint.lint.rule import rules

    accepts = accepting((), rules(), dt.date.today().isoformat())
    with ExitStack() as stack:
        try:
            # By lines, so that whoever follows a file sees whole ones.
            opened = [stack.enter_context(file.open("w", encoding="utf-8", buffering=1)) for file in files]
        except OSError as error:
            raise _unwritten(error.filename, error) from error

        def write(report: Report) -> None:
            text = line(accepts(report))
            for file in opened:
                try:
                    file.write(text)
                except OSError as error:
                    raise _unwritten(file.name, error) from error
            if stdout:
                click.echo(text, nl=False)

        yield write


def _unwritten(file: str, error: OSError) -> UsageProblem:
    return UsageProblem(f"{file}: cannot write the {FORM} report: {error.strerror}")


def _amount(read: Callable[[object], float]) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    def amount(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
        try:
            return None if value is None else read(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return amount


STDOUT = Path("-")
SETTINGS = ("select", "ignore", "fail_on", "target", "max_memory", "time_budget", "min_understood", "runs")
"""Options that win over the configuration."""


def _outputs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    outputs: list[tuple[str, Path]] = []
    for value in values:
        kind, equals, file = value.partition("=")
        if kind not in FORMATS or not equals or not file:
            raise click.BadParameter(f"{value!r} is not FORMAT=FILE with a format of {', '.join(FORMATS)}")
        if not Path(file).absolute().parent.is_dir():
            raise click.BadParameter(f"{file!r}: its folder does not exist")
        if Path(file).resolve() in [other.resolve() for _, other in outputs]:
            raise click.BadParameter(f"{file!r} is named twice: one report would overwrite the other")
        outputs.append((kind, Path(file)))
    return tuple(outputs)


def _stdout(ctx: click.Context, form: str, outputs: tuple[tuple[str, Path], ...]) -> str:
    """The format of stdout: that of ``-o FORMAT=-``, else of ``--format``."""
    asked = [kind for kind, file in outputs if file == STDOUT]
    if asked and ctx.get_parameter_source("form") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--format and -o FORMAT=- both want stdout: leave one of them out")
    return asked[0] if asked else form


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path())
@rules_option("--select", "Run these rules: SYM101,SYM2,ALL.")
@rules_option("--ignore", "Leave these rules out.")
@click.option("--fail-on", type=click.Choice(THRESHOLDS), help="Lowest level that fails the run.  [default: warning]")
@click.option("--target", type=click.Choice(TARGETS), help="What the model is meant for: judges its scales as well.")
@click.option(
    "--max-memory",
    callback=_amount(budget.memory),
    metavar="SIZE",
    help="What each process may take: 512M, 2G. What does not fit is not audited, and named.",
)
@click.option(
    "--time-budget",
    callback=_amount(budget.duration),
    metavar="TIME",
    help="Seconds for each model, or 5m. What is left then is not audited, and named.",
)
@click.option(
    "--min-understood",
    callback=_amount(budget.percent),
    metavar="PERCENT",
    help="How much of each model must be understood for a complete audit.",
)
@click.option("--run", "runs", is_flag=True, default=None, help="Run models, to try declared equivariances (SYM802).")
@click.option("-f", "--format", "form", type=click.Choice(list(FORMATS)), default="full", help="What stdout carries.")
@click.option(
    "-o",
    "--output",
    multiple=True,
    callback=_outputs,
    metavar="FORMAT=FILE",
    help="Write this file; - is stdout.",
)
@config_option
@states_options("auto")
@means_options
@click.option("--baseline", type=click.Path(dir_okay=False), help="What stands in this file does not fail the run.")
@click.option("--write-baseline", type=click.Path(dir_okay=False), help="Accept all that is found: write that file.")
@click.option("--prune-baseline", is_flag=True, help="Take what is gone or better out of --baseline.")
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show notes, and what is accepted, in full.")
@click.option("--notes", is_flag=True, help="Put notes into SARIF and annotations as well.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing but findings.")
@click.pass_context
def check_command(
    ctx: click.Context,
    /,
    paths: tuple[str, ...],
    form: str,
    output: tuple[tuple[str, Path], ...],
    loops: Loops,
    means: Means,
    color: str,
    verbose: bool,
    notes: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Audit models: find the capacity that they do not use.

    PATHS are model files, or folders that are searched for *.onnx; the working directory by default. With the extra
    `remote` they may lie elsewhere: s3://bucket/models, hf://owner/name/model.onnx. Weights are read; networks run with
    --run alone. Exits with 0 when nothing at or above --fail-on was found, 1 when something was, 2 when the call is
    wrong, 3 when there is no model, 4 when a model could not be audited, or not all of it, 130 after Ctrl-C, which
    shows what was found by then.
    """
    form = _stdout(ctx, form, output)
    accepted = _Acceptance(asked["baseline"], asked["write_baseline"], asked["prune_baseline"])
    status = _Status(quiet)
    with Watch(status if means.alone else status.of_many) as watch:
        settings = Configurations(asked["config"], **{name: asked[name] for name in SETTINGS}, **loops.settings)
        shown = {form, *(kind for kind, _ in output)}
        saved = "html" in shown or (not quiet and "full" in shown)
        # What a baseline accepts of one model depends on all of them.
        early = [] if accepted.asked else [file for kind, file in output if kind == FORM and file != STDOUT]
        streamed = form == FORM and not accepted.asked
        with lines(early, stdout=streamed) as told:
            run = _judged(paths, settings, watch, status, means, accepted if saved else None, told)
        result = accepted.of(run, quiet=quiet)
        _write(
            result, [(kind, file) for kind, file in output if file not in early], Style(verbose=verbose, notes=notes)
        )
        style = replace(style_for(color, verbose=verbose, quiet=quiet), notes=notes)
        if not streamed:
            click.echo(reporter(form)(result, style), nl=False, color=style.color)
    if result.exit_code == 3 and (quiet or form in MACHINE):
        click.echo(f"symlint: no model found at {', '.join(result.missing)}", err=True)
    ctx.exit(result.exit_code)


def _judged(
    paths: Sequence[str],
    settings: Configurations,
    watch: Watch,
    status: _Status,
    means: Means,
    acceptance: _Acceptance | None,
    told: Callable[[Report], None] | None,
) -> Run:
    """What the rules say of all models that the paths name."""
    # Imported here, so that `symlint check --help` need not wait for numpy and onnx.
    from symlint.audit.engine import find, run
    from symlint.lint.rule import rules

    files, missing = find(paths or (".",), lambda file: settings.of(file).excludes(file), _elsewhere)
    for each in (settings.run, *map(settings.of, files)):
        each.chosen(rules())  # a selector that names nothing is told before the work
    with status.of(files):
        accepts = acceptance.accepting(files) if acceptance else None
        return run(files, missing, rules(), settings, watch, accepts=accepts, auditor=means.auditor(files), told=told)


def _elsewhere(address: str) -> Sequence[str]:
    """The models at an address."""
    from symlint.audit.execution import models

    return models(address)


class _Acceptance:
    """What the flags on baselines ask for."""

    def __init__(self, read: str | None, write: str | None, prune: bool) -> None:
        if read is not None and write is not None:
            raise UsageProblem("choose one of --baseline and --write-baseline, which accepts all that stands")
        if prune and read is None:
            raise UsageProblem("--prune-baseline needs --baseline FILE")
        from symlint.audit import acceptance

        self.asked = read is not None or write is not None
        """Whether there is a baseline."""
        self._prune = prune
        self._write = Path(write) if write is not None else None
        if write is not None:
            writable(write)
        old = self._write if self._write and self._write.exists() else Path(read) if read is not None else None
        self._old = acceptance.read(old) if old else None

    def accepting(self, files: Sequence[str]) -> Accepting:
        """What accepts findings of single models."""
        from symlint.audit.acceptance import accepting
        from symlint.lint.rule import rules

        return accepting(files, rules(), dt.date.today().isoformat(), self._old)

    def of(self, run: Run, *, quiet: bool) -> Run:
        """The run with what is accepted; writes what is asked for."""
        from symlint.audit.acceptance import settled, taken

        today = dt.date.today().isoformat()
        if self._write is None:
            result, pruned = settled(run, self._old, today)
            if self._prune and pruned and not run.interrupted:
                _deliver(pruned, f"{count(len(result.standing.gone), 'entry', 'entries')} taken out", quiet=quiet)
            return result
        if run.interrupted:
            return run
        unread = frozenset(rule.code for rule in run.rules if rule.on_failure)
        new = taken(self._write, run.reports, self._old, unread, today)
        _deliver(new, f"{count(sum(map(len, new.models.values())), 'finding')} accepted", quiet=quiet)
        return settled(run, new, today)[0]


def _deliver(baseline: Baseline, done: str, *, quiet: bool) -> None:
    try:
        baseline.file.write_text(baseline.text(), encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"{baseline.file}: cannot write the baseline: {error.strerror}") from error
    if not quiet:
        click.echo(f"symlint: {printable(str(baseline.file))}: {done}", err=True)


def _write(result: Run, outputs: Iterable[tuple[str, Path]], style: Style) -> None:
    for kind, file in outputs:
        if file == STDOUT:
            continue
        try:
            file.write_text(reporter(kind)(result, style), encoding="utf-8")
        except OSError as error:
            raise UsageProblem(f"{file}: cannot write the {kind} report: {error.strerror}") from error


class _Status:
    """A line on a terminal's stderr that says, after a while, which models are at work and how much is done."""

    def __init__(self, quiet: bool) -> None:
        self._waiting = Waiting(quiet=quiet)
        self._files: dict[str, int] = {}
        self._done = 0
        self._at_work: dict[str, str] = {}

    def __call__(self, path: str, phase: str, share: float) -> None:
        """What a `Watch` tells."""
        number = f"{self._files.get(path, 1)}/{len(self._files)} " if len(self._files) > 1 else ""
        self._waiting.say(f"{number}{path}: {phase}, {share:.0%}")

    def of_many(self, path: str, phase: str, share: float) -> None:
        """The same of models that are audited at once: how many are done, and those at work."""
        if phase == DONE:
            self._done += 1
            self._at_work.pop(path, None)
        else:
            self._at_work[path] = f"{path}: {phase}, {share:.0%}"
        left = f"{self._done}/{len(self._files)} done"
        self._waiting.say("; ".join((left, *dict(self._at_work).values())))

    def of(self, files: Sequence[str]) -> AbstractContextManager[None]:
        """Show the line while these files are audited."""
        self._files = {file: number for number, file in enumerate(files, 1)}
        return self._waiting.shown()
