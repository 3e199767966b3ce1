"""The parameters whose units stay where they are for a true reason, and the reasons."""

from __future__ import annotations

from dataclasses import dataclass

from symlint.symmetry.spaces import Symmetry
from symlint.symmetry.structure import Structure


@dataclass(frozen=True, slots=True)
class Pinned:
    """A stored tensor all of whose axes are pinned."""

    tensor: str
    parameters: int
    reason: str
    """Why its units stay where they are, axis by axis, without the nodes."""


def pinned(symmetry: Symmetry, structure: Structure) -> tuple[Pinned, ...]:
    """What the coverage counts as pinned, tensor by tensor."""
    program, axes = structure.program, structure.axes
    moved = {name for generator in symmetry.generators if generator.exact for name in generator.tensors}
    elsewhere = moved | {item.tensor for item in symmetry.opaque}
    held: dict[str, list[str]] = {}
    for name, stored in program.weights.items():
        held.setdefault(stored, []).append(name)
    found = []
    for stored, size in program.parameters.items():
        if stored in elsewhere or stored not in held:
            continue
        leaves = [x for name in held[stored] for f in axes.of[name] for x in axes.factors.leaves(f)]
        pins = [axes.factors.pins.get(x) for x in leaves if axes.factors.size(x) > 1]
        words = [pin.text for pin in pins if pin is not None]
        if len(words) == len(pins):
            found.append(Pinned(stored, size, ", ".join(dict.fromkeys(words)) or "a single number"))
    return tuple(found)
