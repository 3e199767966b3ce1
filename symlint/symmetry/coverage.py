"""Coverage: how many weights the inference understands, and what stopped it at the others."""

from __future__ import annotations

from collections.abc import Collection

from symlint.axes.pins import Pin, PinKind
from symlint.axes.walk import Axes
from symlint.program.parameters import parameters
from symlint.program.steps import Program
from symlint.symmetry.spaces import Coverage, Opaque

UNREAD = Pin(PinKind.OPAQUE, "nothing that symlint follows reads it")


def coverage(program: Program, axes: Axes, moved: Collection[str]) -> tuple[Coverage, tuple[Opaque, ...]]:
    """The shares of covered, pinned and opaque weights; `moved` are the stored tensors that some generator moves."""
    total = covered = hidden = 0
    lost: list[Opaque] = []
    held: dict[str, list[str]] = {}
    for name, stored in program.weights.items():
        held.setdefault(stored, []).append(name)
    for stored, size in parameters(program).items():
        total += size
        mine = {x for name in held.get(stored, ()) for f in axes.of[name] for x in axes.factors.leaves(f)}
        pins = [axes.factors.pins.get(x) for x in sorted(mine)]
        missing = next((p for p in pins if p and p.kind is PinKind.OPAQUE), None)
        if stored in moved or None in pins:
            covered += size
        elif missing is not None or stored not in held:
            hidden += size
            lost.append(_opaque(stored, size, missing or UNREAD))
    return Coverage(total, covered, total - covered - hidden, hidden), tuple(lost)


def _opaque(stored: str, size: int, pin: Pin) -> Opaque:
    return Opaque(stored, size, repr(pin.node) if pin.op else "", pin.op, pin.text)
