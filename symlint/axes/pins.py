"""Pins: what joined the units of a factor, or holds them in place, as data that reports put into words."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class PinKind(Enum):
    """What holds units together or in place."""

    JOINED = "joined"
    """A node reads two axes as one: the units move together."""
    WHOLE = "whole"
    """A tensor that only moves as a whole."""
    BORDER = "border"
    """They enter or leave the graph in an order that others rely on."""
    TABLE = "table"
    """Numbers that are no weights stand beside them."""
    GROUPING = "grouping"
    """An axis is read in two ways that have no common refinement."""
    ORDER = "order"
    """A map in a fixed order acts along them."""
    OBSTACLE = "obstacle"
    """An operator holds them for a true reason."""
    OPAQUE = "opaque"
    """A rule is missing."""


class Pin(NamedTuple):
    """One reason; a tuple, because arenas compare thousands of them."""

    kind: PinKind
    text: str = ""
    """In words, without the node."""
    op: str = ""
    node: str = ""
    """The node's name, or its first output; empty, as `op` is, where no node is to blame."""

    @property
    def place(self) -> str:
        """The node as users know it; empty where there is none."""
        return f"{self.op} {self.node!r}" if self.op else ""

    def __str__(self) -> str:
        words = " at ".join(part for part in (self.text, self.place) if part)
        return f"opaque: {words}" if self.kind is PinKind.OPAQUE else words


INPUT = Pin(PinKind.BORDER, "a graph input")
OUTPUT = Pin(PinKind.BORDER, "a graph output")
STATE = Pin(PinKind.JOINED, "a state that comes back at the next step")
MOVING = Pin(PinKind.ORDER, "a state moves on along it")
TABLE = Pin(PinKind.TABLE, "a constant table")
WHOLE = Pin(PinKind.WHOLE, "it is moved as a whole")
UNFIT = Pin(PinKind.GROUPING, "a grouping that does not fit")
UNSEEN = Pin(PinKind.JOINED, "a use that does not see the index")


def clashing(joint: Pin) -> Pin:
    """Why units stay in place that are grouped in two ways where `joint` makes them one."""
    words = "two groupings without a common refinement meet"
    return Pin(PinKind.GROUPING, f"{words} at {joint.text}" if joint.text else words, joint.op, joint.node)
