"""`symlint doctor`: versions and packages of rules, for a report of a problem."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version

import click

from symlint import __version__
from symlint.cli.report.words import printable
from symlint.lint.rule import rules
from symlint.model.errors import UsageProblem

_REQUIRED = ("onnx", "onnx_ir", "onnxruntime", "numpy", "click", "rich")


@click.command("doctor")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show versions and installed packages of rules and operators.

    Exits with 2 when the installation is not complete.
    """
    rows = [("symlint", __version__), ("python", f"{platform.python_version()} on {platform.platform()}")]
    missing = []
    for name in _REQUIRED:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "missing"))
            missing.append(name)
    packages = sorted(entry_points(group="symlint.rules"), key=lambda entry: entry.value)
    rows += [("rules", f"{entry.name} = {entry.value}") for entry in packages]
    packages = sorted(entry_points(group="symlint.operators"), key=lambda entry: entry.value)
    rows += [("operators", f"{entry.name} = {entry.value}") for entry in packages]
    for name, value in rows:
        click.echo(f"{name:12} {printable(value)}")
    try:
        found = rules()
    except (ImportError, UsageProblem) as error:
        raise UsageProblem(f"the rules cannot be loaded: {error}") from error
    click.echo(f"{'':12} {len(found)} rules")
    if missing or not found:
        problem = f"missing: {', '.join(missing)}" if missing else "no rules are installed"
        click.echo(
            f"symlint: {problem}; install again with: {sys.executable} -m pip install --force-reinstall symlint",
            err=True,
        )
        ctx.exit(2)
