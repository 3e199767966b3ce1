"""`symlint config`: the settings in force."""

from __future__ import annotations

import os
from dataclasses import fields

import click

from symlint.cli.commands.terminal import config_option
from symlint.cli.report.words import printable
from symlint.evidence.options import Equivariance, InputRange, Mirror
from symlint.lint.acceptance import Acceptance
from symlint.lint.configuration import Configurations
from symlint.lint.rule import rules
from symlint.model.errors import MissingModel


@click.command("config")
@click.argument("model", required=False, type=click.Path())
@config_option
def command(model: str | None, config: str | None) -> None:
    """Show the settings in force and where each comes from.

    They are those of MODEL, from the configuration nearest to it, or those of the working directory. Exits with 2 when
    a configuration cannot be followed, 3 when there is no such file.
    """
    if model is not None and not os.path.lexists(model):
        raise MissingModel(model)
    found = Configurations(config)
    settings = found.run if model is None else found.of(model)
    chosen = settings.chosen(rules())
    for item in fields(settings):
        if item.name in ("origins", "file", "silent"):
            continue
        value = getattr(settings, item.name)
        origin = settings.origins.get(item.name, "default")
        click.echo(f"{item.name.replace('_', '-'):8} = {_toml(value)}  # {printable(origin)}")
    click.echo(f"# {len(chosen)} rules: {', '.join(rule.code for rule in chosen)}")


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, (Mirror, Equivariance, InputRange, Acceptance)):
        said = ((item, getattr(value, item.name)) for item in fields(value))
        return _toml({item.name: each for item, each in said if each != item.default})
    if isinstance(value, (int, float)):
        return str(value)
    return f'"{printable(str(value))}"'
