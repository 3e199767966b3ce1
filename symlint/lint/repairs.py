"""Repairs as values: what `symlint fix` does about a finding, with all that it needs to know for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from symlint.model.records import dataclass

Groups = tuple[tuple[Any, ...], ...]
Verb = Literal["", "remove", "fold", "merge", "factor", "drop", "balance", "discard", "share"]
"""How a rule declares what its findings ask for; one word for every kind of repair."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Take the units of the finding away."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Fold the units of the finding, which are constant, into biases, and take them away."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Let one unit do the work of each group, and take the others away."""

    groups: Groups
    """Units of the space."""


@dataclass(frozen=True, slots=True)
class MergeHeads:
    """The same for whole heads, with everything in them; their readers are fitted anew."""


@dataclass(frozen=True, slots=True)
class Factor:
    """Factor the product of the space, and take the directions away through which nothing passes."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Take tensors to zero that others can take over, and leave them out."""

    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """Balance the scales of the spaces that share weights with that of the finding."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Leave out stored tensors that nothing reads."""

    spare: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Share:
    """Let the readers of each group of stored tensors, which hold the same numbers, share its first."""

    groups: Groups
    spare: tuple[str, ...]
    """Those that are needed no more."""
    bytes: int


Removing = Remove | Fold | Merge | MergeHeads | Factor
"""What takes units of a space away."""
Storing = Discard | Share
"""What leaves out what is stored for nothing; no space is concerned."""
Remedy = Removing | Drop | Balance | Storing

REMOVING: tuple[Verb, ...] = ("remove", "fold", "merge", "factor")
"""The words of rules whose findings ask for units to be taken away."""
STORING: tuple[Verb, ...] = ("discard", "share")
"""The same of what is stored for nothing."""


def remedy(verb: Verb, space: str | None, facts: Mapping[str, Any]) -> Remedy | None:
    """The repair that a finding asks for which carries none: by the word of its rule, and what its facts say.

    None where it speaks neither of a space nor of what could be spared, or where the facts lack what is needed.
    """
    if verb in STORING:
        if not {"spare", "bytes"} <= facts.keys():
            return None
        spare, size = tuple(facts["spare"]), int(facts["bytes"])
        if verb == "discard":
            return Discard(spare, size)
        return Share(grouped(facts["groups"]), spare, size) if "groups" in facts else None
    return None if space is None else _of_space(verb, facts)


def _of_space(verb: Verb, facts: Mapping[str, Any]) -> Remedy | None:
    match verb:
        case "merge":
            if "multiples" in facts:
                return MergeHeads()
            return Merge(grouped(facts["groups"])) if "groups" in facts else None
        case "drop":
            return Drop(tuple(facts["tensors"])) if "tensors" in facts else None
    return _PLAIN.get(verb)


_PLAIN: Mapping[str, Remedy] = {"remove": Remove(), "fold": Fold(), "factor": Factor(), "balance": Balance()}


def grouped(groups: Sequence[Sequence[Any]]) -> Groups:
    """Groups as they are written in facts."""
    return tuple(map(tuple, groups))
