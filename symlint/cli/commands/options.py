"""Options that several commands have, and what these do with them: rules, states, inputs, results.

What the terminal is able to show, and the option that overrides it.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from symlint.cli.report import Style
from symlint.model.errors import UnreadableModel, UsageProblem
from symlint.model.records import dataclass
from symlint.model.states import Declaration

if TYPE_CHECKING:
    from symlint.model.graph import Array, Model

form_option: Callable[[Any], Any] = click.option(
    "-f", "--format", "form", type=click.Choice(["full", "json"]), default="full", show_default=True
)


@contextmanager
def unread_too(form: str, document: Callable[[UnreadableModel], str]) -> Iterator[None]:
    """Where a file cannot be read machines are given this document, too."""
    try:
        yield
    except UnreadableModel as problem:
        if form == "json":
            click.echo(document(problem), nl=False)
        raise


def writable(output: str, *models: str) -> None:
    """Refuse to write over a model or into a folder that does not exist. Raises UsageProblem."""
    if Path(output).resolve() in {Path(model).resolve() for model in models}:
        which = "the model itself" if len(models) == 1 else "one of the models"
        raise UsageProblem(f"{output} is {which}: name another file for the result")
    if not Path(output).absolute().parent.is_dir():
        raise UsageProblem(f"{output}: its folder does not exist")


def rules_option(flag: str, words: str) -> Callable[[Any], Any]:
    """An option that takes codes, beginnings of codes and names, separated by commas, as often as you like."""
    return click.option(flag, multiple=True, callback=_selectors, shell_complete=codes, metavar="RULES", help=words)


def codes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The codes and names of rules that begin like the last word of a list."""
    from symlint.lint.rule import rules

    before, comma, word = incomplete.rpartition(",")
    found = [(rule.code, rule.name) for rule in rules() if rule.code.startswith(word.upper())]
    found += [(rule.name, rule.code) for rule in rules() if word and rule.name.startswith(word)]
    return [CompletionItem(f"{before}{comma}{name}", help=other) for name, other in found]


def _selectors(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    names = tuple(name.strip() for value in values for name in value.split(",") if name.strip())
    return names or None


def inputs_option(words: str) -> Callable[[Any], Any]:
    """``--input``, as often as there are inputs: input -> file."""
    return click.option("--input", "inputs", multiple=True, callback=_named_arrays, metavar="NAME:FILE.npy", help=words)


def _named_arrays(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """The values of an option, each ``NAME:FILE.npy``, as input -> file."""
    found = {}
    for value in values:
        name, colon, file = value.rpartition(":")
        if not colon or not name or not Path(file).is_file():
            raise click.BadParameter(f"{value!r} is not NAME:FILE.npy with a file that exists")
        found[name] = Path(file)
    return found


def read_array(file: Path) -> Array:
    """The array of a file. Raises UsageProblem where it holds none that could be tried."""
    import numpy as np

    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageProblem(f"{file}: is no array saved by numpy: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        raise UsageProblem(f"{file}: expected one array of numbers, as numpy.save writes it")
    if not found.size or not np.isfinite(found).all():
        raise UsageProblem(f"{file}: proves nothing: it is empty, or not all of its numbers are finite")
    return found


_Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Loops:
    """What the flags say of states."""

    find: bool | None
    """Whether pairs are looked for; None where no flag says so."""
    declared: tuple[Declaration, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The fields of `Settings` that the flags win over; None where they say nothing."""
        asked = self.declared or (() if self.find is False else None)
        return {"states": asked, "find_states": self.find}

    def closed(self, model: Model, *, default: bool = True) -> Model:
        """The model with its states, by the flags, and else by the configuration nearest to it.

        Args:
            model: as it was read.
            default: whether states count where no flag says so.
        """
        from symlint.lint.configuration import Configurations

        if not self.declared and not (default if self.find is None else self.find):
            return model
        settings = Configurations(**self.settings).of(model.path)
        return settings.with_states(model, strict=bool(self.declared))


def states_options(default: str) -> Callable[[_Command], _Command]:
    """``--states``, ``--state`` and ``--state-is-output``, as one argument `loops` of a command.

    ``default`` is what happens without the first.
    """
    words = "Close the loop of what leaves and comes back at the next step, as its callers do."
    options = (
        click.option("--state-is-output", "seen", multiple=True, metavar="OUT", help="The caller reads it as well."),
        click.option("--state", "declared", multiple=True, callback=_pairs, metavar="IN=OUT", help="Such a pair."),
        click.option("--states", type=click.Choice(["auto", "none"]), help=f"{words}  [default: {default}]"),
    )

    def add(command: _Command) -> _Command:
        @wraps(command)
        def told(
            *arguments: Any, states: str | None, declared: tuple[Declaration, ...], seen: tuple[str, ...], **others: Any
        ) -> Any:
            find = None if states is None else states == "auto"
            read = tuple(Declaration("", name) for name in seen)
            return command(*arguments, loops=Loops(find, (*declared, *read)), **others)

        made: _Command = told
        for option in options:
            made = option(made)
        return made

    return add


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Declaration, ...]:
    made = []
    for value in values:
        one, equals, other = value.partition("=")
        if not (one and equals and other):
            raise click.BadParameter(f"{value!r} is not IN=OUT")
        made.append(Declaration(one, other))
    return tuple(made)


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
