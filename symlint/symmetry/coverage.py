"""Coverage: how many weights the inference understands, and what stopped it at the others."""

from __future__ import annotations

from collections.abc import Collection

from symlint.axes.walk import OPAQUE, Axes
from symlint.program.parameters import parameters
from symlint.program.steps import Program
from symlint.symmetry.spaces import Coverage, Opaque


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
        reasons = [axes.factors.pins.get(x, "") for x in sorted(mine)]
        missing = next((r for r in reasons if r.startswith(OPAQUE)), None)
        if stored in moved or "" in reasons:
            covered += size
        elif missing is not None or stored not in held:
            hidden += size
            lost.append(_opaque(stored, size, missing or f"{OPAQUE}nothing that symlint follows reads it at "))
    return Coverage(total, covered, total - covered - hidden, hidden), tuple(lost)


def _opaque(stored: str, size: int, reason: str) -> Opaque:
    text, _, place = reason.removeprefix(OPAQUE).rpartition(" at ")
    op, _, node = place.partition(" ")
    return Opaque(stored, size, node, op, text)
