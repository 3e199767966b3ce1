"""What the terminal is able to show, and the option that overrides it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
    """The style for stdout: plain in pipes, in CI, under NO_COLOR and on dumb terminals unless colour is asked for.

    ``--color`` asks for it before all, then NO_COLOR against it, then FORCE_COLOR.
    """
    plain = os.environ.get("CI") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    wanted = not os.environ.get("NO_COLOR") and (bool(os.environ.get("FORCE_COLOR")) or not plain)
    colored = color == "always" or (color == "auto" and wanted)
    # COLUMNS wins over the terminal's own size; pipes without either get 80 columns.
    return Style(min(shutil.get_terminal_size().columns, WIDEST), colored, verbose, quiet)


def listed(ctx: click.Context, parameter: click.Parameter, text: str | None) -> frozenset[str] | None:
    """The words of an option that takes a comma list; None where it was not given."""
    words = frozenset(word.strip() for word in (text or "").split(",") if word.strip())
    if text is not None and not words:
        raise click.BadParameter("it names nothing")
    return words or None


kinds_option: Callable[[Any], Any] = click.option(
    "--kinds",
    callback=listed,
    metavar="KINDS",
    help="Kinds of generators, separated by commas: permutation, rescaling, sign, rotation, translation.",
)

PATIENCE = 2.0  # seconds after which a wait is worth a word


class Waiting:
    """A line on a terminal's stderr that says, after a while, what is at work; nothing elsewhere, nor in CI."""

    def __init__(self, line: str = "", *, quiet: bool = False) -> None:
        self._shown = not (quiet or os.environ.get("CI")) and sys.stderr.isatty()
        self._line = line
        self._update: Callable[[], None] | None = None

    def say(self, line: str) -> None:
        """What is at work now."""
        self._line = line
        if self._update:
            self._update()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the line while this lasts."""
        if not self._shown:
            yield
            return
        done = threading.Event()
        thread = threading.Thread(target=self._show, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _show(self, done: threading.Event) -> None:
        if done.wait(PATIENCE):
            return
        from rich.console import Console
        from rich.text import Text

        from symlint.cli.report.words import printable

        def line() -> Text:
            return Text(printable(self._line), overflow="ellipsis", no_wrap=True)

        with Console(stderr=True).status(line()) as status:
            self._update = lambda: status.update(line())
            done.wait()
            self._update = None


def waiting(line: str) -> AbstractContextManager[None]:
    """A line on a terminal's stderr while something takes its time."""
    return Waiting(line).shown()
