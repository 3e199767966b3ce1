"""What the terminal is able to show, and the option that overrides it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from symlint.cli.report import Style

WIDEST = 100  # a line of prose longer than this is hard to read, however wide the terminal is

color_option: Callable[[Any], Any] = click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True, help="When to colour."
)

config_option: Callable[[Any], Any] = click.option(
    "--config", type=click.Path(dir_okay=False), help="Read this configuration, and none beside the models."
)


def style_for(color: str, *, verbose: bool = False, quiet: bool = False) -> Style:
    """The style for stdout: plain in pipes, in CI, under NO_COLOR and on dumb terminals unless colour is asked for."""
    terminal = sys.stdout.isatty()
    plain = os.environ.get("NO_COLOR") or os.environ.get("CI") or os.environ.get("TERM") == "dumb"
    colored = color == "always" or (color == "auto" and terminal and not plain)
    # COLUMNS wins over the terminal's own size; pipes without either get 80 columns.
    return Style(min(shutil.get_terminal_size().columns, WIDEST), colored, verbose, quiet)


def listed(text: str | None) -> frozenset[str] | None:
    """The words of a comma list; None where it was not given."""
    return None if text is None else frozenset(word.strip() for word in text.split(",") if word.strip())


@contextmanager
def waiting(line: str) -> Iterator[None]:
    """A line on a terminal's stderr while something takes its time."""
    if os.environ.get("CI") or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    from symlint.cli.report.words import printable

    with Console(stderr=True).status(Text(printable(line), overflow="ellipsis", no_wrap=True)):
        yield
