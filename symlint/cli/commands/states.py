"""The options by which a command is told of states, and the model with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from symlint.model.states.state import Declaration

if TYPE_CHECKING:
    from symlint.model.graph import Model

F = TypeVar("F", bound=Callable[..., Any])
Declarations = tuple[Declaration, ...]


def states_options(default: str) -> Callable[[F], F]:
    """``--states``, ``--state`` and ``--state-is-output``; ``default`` is what happens without the first."""

    def add(command: F) -> F:
        words = "Close the loop of what leaves and comes back at the next step, as its callers do."
        for option in (
            click.option(
                "--state-is-output", "seen", multiple=True, metavar="OUT", help="The caller reads it as well."
            ),
            click.option("--state", "declared", multiple=True, callback=_pairs, metavar="IN=OUT", help="Such a pair."),
            click.option("--states", type=click.Choice(["auto", "none"]), help=f"{words}  [default: {default}]"),
        ):
            command = option(command)
        return command

    return add


def declarations(declared: Declarations, seen: tuple[str, ...]) -> Declarations | None:
    """What the flags declare; None where they declare nothing."""
    return (*declared, *(Declaration("", name) for name in seen)) or None


def closing(model: Model, states: str | None, declared: Declarations | None, default: str) -> Model:
    """The model with its states, by what the flags say, and else by the configuration nearest to it."""
    from symlint.lint.configuration import Configurations
    from symlint.model.states.pairs import closed

    settings = Configurations().of(model.path)
    if declared is not None:
        return closed(model, declared, found=states != "none", strict=True)
    if (states or default) == "none":
        return model
    return closed(model, settings.states, found=bool(states) or settings.find_states)


def _pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Declarations:
    made = []
    for value in values:
        one, equals, other = value.partition("=")
        if not (one and equals and other):
            raise click.BadParameter(f"{value!r} is not IN=OUT")
        made.append(Declaration(one, other))
    return tuple(made)
