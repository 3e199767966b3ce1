"""State: how much of each space a network uses, in numbers that do not depend on the gauge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from symlint.comparison.course.spectra import Spectra, holders
from symlint.comparison.matching.blocks import Block
from symlint.comparison.matching.weights import Weights
from symlint.evidence.context import Context
from symlint.evidence.estimates.width import effective_width
from symlint.evidence.ranks.invariant import general_linear
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Action

LAST = 1 << 60
"""The order of what no step reads."""


@dataclass(frozen=True, slots=True)
class State:
    """One space of a network."""

    id: str
    leaf: int
    name: str
    units: int
    """Over all copies."""
    live: int | None
    """Units that reach an output; None where units are but a choice of basis."""
    width: float | None
    """How many equally strong units, or directions, would do: the exponential of an entropy, over all copies."""
    rank: int | None
    """Directions of the product of writers and readers, over all copies, where that means something."""


def states(context: Context, *, widths: bool) -> tuple[State, ...]:
    """The state of every space whose units are computed, in the order of the program; widths cost the most."""
    known = States(context)
    return tuple(known.state(space, widths=widths) for space in known.spaces)


class States:
    """The spaces of one network, each of which is looked at when it is asked for.

    Its weights are those that are judged, without what no output sees of them.
    """

    def __init__(self, context: Context, moved: Mapping[str, Array] = MappingProxyType({})) -> None:
        """Of a network in which some stored tensors may have other values."""
        judged = context.as_judged()
        self.context, self.weights = context, Weights(judged).at(moved)
        self.holders = holders(self.weights)
        self.spectra = Spectra(judged, self.weights, self.holders)
        self.products = {space.id: product for space, product in context.products}
        self.plain = frozenset(space.id for space in context.spaces)
        self.actions: dict[str, list[Action]] = defaultdict(list)
        for action in context.structure.actions.values():
            if action.leaf >= 0:
                self.actions[action.space].append(action)

    @property
    def spaces(self) -> Iterator[Space]:
        """The spaces whose units are computed, in the order of the program."""
        first = {k: min(map(self._order, self.holders[a[0].leaf]), default=LAST) for k, a in self.actions.items()}
        mine = [space for space in self.context.symmetry.spaces if space.id in self.actions]
        yield from sorted(mine, key=lambda space: first[space.id])

    def turned(self, space: Space) -> Action | None:
        """What mixes the units of a space: all invertible matrices, else all rotations, else nothing."""
        mine = self.actions[space.id]
        linear = next((a for a in mine if general_linear(a)), None)
        return linear or next((a for a in mine if isinstance(a, OrthogonalMap)), None)

    def state(self, space: Space, *, widths: bool) -> State:
        """One space; its width only where it is asked for, since that costs the most."""
        units, turned = space.size * space.copies, self.turned(space)
        live = width = rank = None
        if space.id in self.plain:
            live = units - int(self.context.units(space).dead.sum())
            width = effective_width(self.context, space) if widths else None
        elif turned is not None:
            width = self.spectra.width(turned) if widths else None
            rank = sum(self.ranks(turned)) if general_linear(turned) else None
        return State(space.id, self.actions[space.id][0].leaf, space.name, units, live, width, rank)

    def ranks(self, action: Action) -> tuple[int, ...]:
        """The rank of each copy of a linear space."""
        if action.space in self.products:
            return self.products[action.space].ranks
        return self.spectra.bounds(action)

    def _order(self, block: Block) -> int:
        return self.weights.all[block.weight].order
