"""The options by which a command is told of states, and the model with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from symlint.model.states.state import Declaration

if TYPE_CHECKING:
    from symlint.model.graph import Model

Command = Callable[..., Any]


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


def states_options(default: str) -> Callable[[Command], Command]:
    """``--states``, ``--state`` and ``--state-is-output``, as one argument `loops` of a command.

    ``default`` is what happens without the first.
    """
    words = "Close the loop of what leaves and comes back at the next step, as its callers do."
    options = (
        click.option("--state-is-output", "seen", multiple=True, metavar="OUT", help="The caller reads it as well."),
        click.option("--state", "declared", multiple=True, callback=_pairs, metavar="IN=OUT", help="Such a pair."),
        click.option("--states", type=click.Choice(["auto", "none"]), help=f"{words}  [default: {default}]"),
    )

    def add(command: Command) -> Command:
        @wraps(command)
        def told(
            *arguments: Any, states: str | None, declared: tuple[Declaration, ...], seen: tuple[str, ...], **others: Any
        ) -> Any:
            find = None if states is None else states == "auto"
            read = tuple(Declaration("", name) for name in seen)
            return command(*arguments, loops=Loops(find, (*declared, *read)), **others)

        made: Command = told
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
