"""Redundancy: parameters that a translation makes superfluous, for the rules that name the kinds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding
from symlint.lint.repairs import Drop
from symlint.lint.rule import Rule
from symlint.model.records import dataclass


@dataclass(frozen=True, slots=True)
class Redundancy:
    """What one translation says of the weight that it moves."""

    tensor: str
    directions: int
    free: bool
    """Whether any change of the weight, or of a part of an axis of it, is one."""
    absorbers: tuple[str, ...]
    """Weights that take the change back."""
    sinks: frozenset[str]
    """Normalisations that do not see it."""
    averaged: bool
    """Whether it goes through an average with probabilities as weights."""


def redundancies(context: Context) -> dict[str, list[Redundancy]]:
    """Space -> what its translations say."""
    program = context.structure.program
    found: dict[str, list[Redundancy]] = {}
    for action in context.structure.shifts:
        translation = action.translation
        absorbers = dict.fromkeys(program.weights[way.weight] for way in translation.absorbers)
        said = Redundancy(
            program.weights[translation.weight],
            translation.dimension,
            translation.free,
            tuple(absorbers),
            translation.sinks,
            translation.averaged,
        )
        found.setdefault(action.space, []).append(said)
    return found


def _counted(number: int) -> dict[str, str]:
    """The words of a message that follow a number."""
    if number == 1:
        return {"directions": "1 direction", "parameters": "1 parameter", "verb": "is", "shift": "shifts"}
    count = f"{number:,}"
    return {"directions": f"{count} directions", "parameters": f"{count} parameters", "verb": "are", "shift": "shift"}


def redundant(context: Context, rule: Rule, chosen: Callable[[Redundancy], bool], message: str) -> Iterator[Finding]:
    """One finding per space with redundancies of the kind that is `chosen`."""
    spaces = {space.id: space for space in context.symmetry.spaces}
    for space, all_of_it in redundancies(context).items():
        mine = [r for r in all_of_it if chosen(r)]
        if not mine:
            continue
        tensors = sorted({r.tensor for r in mine})
        absorbers = sorted({a for r in mine for a in r.absorbers})
        directions = sum(r.directions for r in mine)
        called = [_named(list(map(context.named.spoken, some))) for some in (tensors, absorbers)]
        text = message.format(tensors=called[0], absorbers=called[1], **_counted(directions))
        facts = {"directions": directions, "tensors": tensors, "absorbers": absorbers}
        yield Finding(
            rule.code,
            rule.name,
            rule.level,
            rule.evidence,
            text,
            space,
            (),
            context.tensors(spaces[space]),
            facts,
            saves=directions,
            repair=Drop(tuple(tensors)) if rule.repair else None,
        )


def _named(tensors: list[str]) -> str:
    return tensors[0] if len(tensors) == 1 else f"{tensors[0]} and {len(tensors) - 1} more" if tensors else "nothing"
