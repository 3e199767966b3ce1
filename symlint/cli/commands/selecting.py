"""Options that select rules, and the codes with which a shell completes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem


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
