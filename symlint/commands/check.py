"""`symlint check`: audit models."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from symlint.asked import TARGETS
from symlint.commands.terminal import color_option, style_for
from symlint.configuration import read
from symlint.errors import UsageProblem
from symlint.report import FORMATS, Style, reporter
from symlint.settings import COMMAND, THRESHOLDS

if TYPE_CHECKING:
    from symlint.audit import Run

_LONG = 64 << 20  # bytes of models from which the wait is worth a word


def _selectors(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    names = tuple(name.strip() for value in values for name in value.split(",") if name.strip())
    return names or None


def _outputs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    outputs = []
    for value in values:
        kind, equals, file = value.partition("=")
        if kind not in FORMATS or not equals or not file:
            raise click.BadParameter(f"{value!r} is not FORMAT=FILE with a format of {', '.join(FORMATS)}")
        if not Path(file).absolute().parent.is_dir():
            raise click.BadParameter(f"{file!r}: its folder does not exist")
        outputs.append((kind, Path(file)))
    return tuple(outputs)


@click.command("check")
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--select", multiple=True, callback=_selectors, metavar="RULES", help="Run these rules: SYM101,SYM2,ALL.")
@click.option("--ignore", multiple=True, callback=_selectors, metavar="RULES", help="Leave these rules out.")
@click.option("--fail-on", type=click.Choice(THRESHOLDS), help="Lowest level that fails the run.  [default: warning]")
@click.option("--target", type=click.Choice(TARGETS), help="What the model is meant for: judges its scales as well.")
@click.option("-f", "--format", "form", type=click.Choice(list(FORMATS)), default="full", help="What stdout carries.")
@click.option(
    "-o", "--output", multiple=True, callback=_outputs, metavar="FORMAT=FILE", help="Write this file as well."
)
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show notes in full.")
@click.option("-q", "--quiet", is_flag=True, help="Show nothing but findings.")
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    select: tuple[str, ...] | None,
    ignore: tuple[str, ...] | None,
    fail_on: str | None,
    target: str | None,
    form: str,
    output: tuple[tuple[str, Path], ...],
    color: str,
    verbose: bool,
    quiet: bool,
) -> None:
    """Audit models: find the capacity that they do not use.

    PATHS are model files, or folders that are searched for *.onnx; the working directory by default. Weights are read,
    networks never run. Exits with 0 when nothing at or above --fail-on was found, 1 when something was, 2 when the call
    is wrong, 3 when there is no model, 4 when a model could not be audited.
    """
    # Imported here, so that `symlint check --help` need not wait for numpy and onnx.
    from symlint.audit import find, run
    from symlint.rule import rules

    settings = read(Path.cwd()).override(COMMAND, select=select, ignore=ignore, fail_on=fail_on, target=target)
    installed = rules()
    settings.chosen(installed)  # a selector that names nothing is told before the work
    files, missing = find(paths or (".",))
    with _progress(files, quiet) as watched:
        result = run(watched, missing, installed, settings)
    _write(result, output, verbose)
    style = style_for(color, verbose=verbose, quiet=quiet)
    click.echo(reporter(form)(result, style), nl=False, color=style.color)
    if result.exit_code == 3 and (quiet or form in ("json", "sarif")):
        click.echo(f"symlint: no model found at {', '.join(missing)}", err=True)
    ctx.exit(result.exit_code)


def _write(result: Run, outputs: Iterable[tuple[str, Path]], verbose: bool) -> None:
    for kind, file in outputs:
        try:
            file.write_text(reporter(kind)(result, Style(verbose=verbose)), encoding="utf-8")
        except OSError as error:
            raise UsageProblem(f"{file}: cannot write the {kind} report: {error.strerror}") from error


@contextmanager
def _progress(files: Sequence[str], quiet: bool) -> Iterator[Iterable[str]]:
    """The files, and a line on a terminal's stderr that says which one is at work when that takes long."""
    size = sum(Path(file).stat().st_size for file in files if Path(file).is_file())
    if quiet or os.environ.get("CI") or not sys.stderr.isatty() or (len(files) < 4 and size < _LONG):
        yield files
        return
    from rich.console import Console
    from rich.text import Text

    from symlint.report.words import printable

    with Console(stderr=True).status("") as status:

        def watched() -> Iterator[str]:
            for position, file in enumerate(files, 1):
                status.update(Text(f"{position}/{len(files)} {printable(file)}", overflow="ellipsis", no_wrap=True))
                yield file

        yield watched()
