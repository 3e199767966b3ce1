"""`symlint profile`: what every space of a network has come to, in one file or from checkpoint to checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from symlint.cli.commands.terminal import color_option, config_option, style_for, waiting
from symlint.cli.report import Style
from symlint.cli.report.words import printable
from symlint.model.errors import UnreadableModel, UsageProblem, exit_code

if TYPE_CHECKING:
    from symlint.comparison.trajectory import Trajectory

FORMATS = ("table", "csv", "json", "html")
STDOUT = Path("-")
Outputs = Sequence[tuple[str, Path]]


def _outputs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Outputs:
    """Format and file of each output; the format is empty where it is that of ``--format``."""
    outputs: list[tuple[str, Path]] = []
    for value in values:
        kind, equals, name = value.partition("=")
        named = equals and kind in FORMATS
        file = Path(name if named else value)
        if not str(name if named else value) or file.is_dir() or not file.absolute().parent.is_dir():
            raise UsageProblem(f"{value}: is no file, or its folder does not exist")
        if file.resolve() in [other.resolve() for _, other in outputs]:
            raise UsageProblem(f"{file} is named twice: one output would overwrite the other")
        outputs.append((kind if named else "", file))
    return outputs


@click.command("profile")
@click.argument("models", nargs=-1, required=True, type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option(
    "-o",
    "--output",
    multiple=True,
    callback=_outputs,
    metavar="[FORMAT=]FILE",
    help="Write this file as well (- is stdout); without a format, instead of stdout.",
)
@config_option
@color_option
@click.pass_context
def command(
    ctx: click.Context, models: tuple[str, ...], form: str, output: Outputs, config: str | None, color: str
) -> None:
    """Show what every space of a network has come to.

    A row per space: units that are live, constant and distinct, the effective width, ranks and spectra, norms, shares
    of paths, parameters, and what repairs would save. No number depends on the gauge: a rescaling or a permutation that
    leaves the function leaves the table. Several MODELS are checkpoints of one network in order of time; their spaces
    are matched as `symlint diff` does. Networks never run. Exits with 0 when all were read, 3 when there is no such
    file, 4 when one could not be read.
    """
    from symlint.comparison.trajectory import trajectory
    from symlint.lint.configuration import Configurations
    from symlint.lint.rule import rules

    settings = Configurations(config)
    try:
        with waiting(f"measuring {', '.join(models)}"):
            found = trajectory(models, rules(), [settings.of(model) for model in models])
    except UnreadableModel as problem:
        click.echo(f"symlint: {printable(str(problem))}", err=True)
        ctx.exit(exit_code(problem))
    for kind, file in output:
        if file == STDOUT:
            continue
        try:
            file.write_text(_text(found, kind or form, Style()), encoding="utf-8")
        except OSError as error:
            raise UsageProblem(f"{file}: cannot be written: {error.strerror}") from error
    if all(kind or file == STDOUT for kind, file in output):
        style = style_for(color)
        shown = next((kind for kind, file in output if kind and file == STDOUT), form)
        click.echo(_text(found, shown, style), nl=False, color=style.color)


def _text(found: Trajectory, form: str, style: Style) -> str:
    if form == "table":
        from symlint.cli.report.profiles.table import as_text

        return as_text(found, style)
    if form == "html":
        from symlint.cli.report.profiles.page import as_html

        return as_html(found)
    from symlint.cli.report.profiles import records

    return {"csv": records.as_csv, "json": records.as_json}[form](found)
