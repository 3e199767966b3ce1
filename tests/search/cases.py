"""What the search has found: recipes that broke a law once, and faults that are not mended yet."""

from __future__ import annotations

import re
from dataclasses import dataclass

from laws import Failure


@dataclass(frozen=True, slots=True)
class Mended:
    """A recipe that broke a law."""

    name: str
    law: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Known:
    """A fault that is there: how it shows, and a recipe that has it."""

    name: str
    law: str
    pattern: str
    reason: str
    recipe: str


MENDED: tuple[Mended, ...] = (
    Mended(
        "units behind a translation",
        "every gauge",
        '["tokens", 47262, "float32", 17, [], [["experts", 7688]]]',
    ),
    Mended(
        "dead units behind a translation",
        "every gauge",
        '["signal", 5670, "float32", 17, [], [["unit_length", 37826], ["twice", 29963], ["unfolded", 64739], '
        '["perceptron", 42384]]]',
    ),
    Mended(
        "a step without results",
        "ordinary",
        '["flat", 3, "float32", 23, [], [["call com.microsoft.MatMulInteger16", 1], ["call StringConcat", 1]]]',
    ),
    Mended(
        "branches behind what is not known",
        "sound",
        '["flat", 35972, "float32", 23, [], [["call LayerNormalization", 60764]]]',
    ),
    Mended(
        "recurrences without a first output",
        "ordinary",
        '["flat", 43277, "float32", 23, [], [["call RNN", 464], ["call GRU", 54934]]]',
    ),
    Mended(
        "a translation of one number",
        "ordinary",
        '["tokens", 59378, "float32", 17, [], [["call com.microsoft.DynamicQuantizeLSTM", 34028]]]',
    ),
)
KNOWN: tuple[Known, ...] = (
    Known(
        "equal units are missed",
        "exactly",
        r"^(equal|multiple|opposite|unbroken): wanted [^:]* found \[\], beside a translation$",
        "units that are equal, or so up to a sign or a scale, are missed in some networks with a translation",
        '["steps", 42462, "float32", 17, [], [["experts", 1697], ["token_mixing", 39142]]]',
    ),
)


def known(failure: Failure) -> str | None:
    """Why a failure is expected, or None."""
    for one in KNOWN:
        if one.law == failure.law and re.search(one.pattern, failure.detail):
            return one.reason
    return None
