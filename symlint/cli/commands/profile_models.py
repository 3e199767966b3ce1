"""`symlint profile`: what every space of a network has come to, in one file or from checkpoint to checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from symlint.cli.commands.terminal import color_option, config_option, style_for, waiting
from symlint.cli.report.words import printable
from symlint.model.errors import UnreadableModel, UsageProblem, exit_code

FORMATS = ("table", "csv", "json", "html")


@click.command("profile")
@click.argument("models", nargs=-1, required=True, type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write it to this file instead of stdout.")
@config_option
@color_option
@click.pass_context
def command(
    ctx: click.Context, models: tuple[str, ...], form: str, output: str | None, config: str | None, color: str
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

    if output is not None and not Path(output).absolute().parent.is_dir():
        raise UsageProblem(f"{output}: its folder does not exist")
    settings = Configurations(config)
    try:
        with waiting(f"measuring {', '.join(models)}"):
            found = trajectory(models, rules(), [settings.of(model) for model in models])
    except UnreadableModel as problem:
        click.echo(f"symlint: {printable(str(problem))}", err=True)
        ctx.exit(exit_code(problem))
    style = style_for(color)
    if form == "table":
        from symlint.cli.report.profiles.table import as_text

        text = as_text(found, style)
    elif form == "html":
        from symlint.cli.report.profiles.page import as_html

        text = as_html(found)
    else:
        from symlint.cli.report.profiles import records

        text = {"csv": records.as_csv, "json": records.as_json}[form](found)
    if output is None:
        click.echo(text, nl=False, color=style.color)
        return
    try:
        Path(output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"{output}: cannot be written: {error.strerror}") from error
