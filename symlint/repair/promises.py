"""Promises: what a fix would take away of a network, and why not the rest, told without a change to its file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.context import Context
from symlint.evidence.dead import known
from symlint.evidence.products import general_linear
from symlint.lint.finding import Factor, Fold, Merge, MergeHeads, Remove, Removing
from symlint.lint.rule import Rule
from symlint.model.graph import Model, Node, Shape, Tensor
from symlint.model.operators import known as known_operator
from symlint.model.records import dataclass
from symlint.model.wire import LARGE
from symlint.program.translate import FAR
from symlint.repair.merging import BORDER, SLOTS, Reading, foldable, gatherable, mergeable, narrowest, readings
from symlint.repair.narrowing import (
    Immovable,
    Narrowing,
    Removal,
    Uneven,
    Whole,
    agreed,
    aligned,
    bypassed,
    nested,
    plan,
)
from symlint.repair.narrowing import wanted as needed
from symlint.repair.operation import Cuts
from symlint.repair.operation import plan as planned
from symlint.repair.plan import Key, Pending, Repair, Spared, ordinal

Dead = NDArray[np.bool_]
UNREADABLE = "their readers are no plain weights, whose rows could be added up"
WIDE = "heads or copies keep one size, and one of them needs all of it"
LAST = "one unit has to stay"
COPIES = "each head or copy needs some of them"
TURNS = "others in the same places need as many"


@dataclass(frozen=True, slots=True)
class Claim:
    """So many units of a leaf, over all copies, that a repair would take away."""

    key: Key
    leaf: int
    count: int
    waits: bool = False
    """Whether an earlier stage took them out of their readers."""


@dataclass(frozen=True)
class Intent:
    """What would go, repair by repair."""

    removal: Removal
    taken: Mapping[Key, int]
    """Units over all copies, or directions of a product; repairs that take nothing away are not in it."""
    waiting: Mapping[Key, int]
    """The same for the repairs of earlier stages."""
    reasons: Mapping[Key, str]
    """Why the others take nothing away."""


@dataclass
class _Wanted:
    """What is claimed of a network, space by space."""

    dead: dict[str, Dead] = field(default_factory=dict)
    widths: dict[int, int] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)


def multiples(align: int) -> str:
    """Why units stay that alignment asks for."""
    return f"widths stay multiples of {align}"


class Forecast:
    """Tells of one file what its repairs would take away."""

    def __init__(
        self, context: Context, align: int = 1, like: Forecast | None = None, *, shrinks: bool = False
    ) -> None:
        """`like` has forecast of the same file, of which more or less is known; `shrinks` lets states get narrower."""
        self.context, self.align, self.like, self.shrinks = context, align, like, shrinks
        self.structure = context.structure
        self._spare: dict[Key, tuple[tuple[int, ...], str]] = {}
        self._narrow: dict[str, int | None] = {}

    @cached_property
    def whole(self) -> Whole:
        """The network with all its values, as its file has them."""
        return Whole(self.structure, shrinks=self.shrinks) if self.like is None else self.like.whole

    def of(self, chosen: Iterable[Repair], pending: Sequence[Pending] = ()) -> Intent:
        """What goes of all these at once: units that lie in the same tensors go together or not at all.

        What would be moved for nothing is not counted on for the others.
        """
        left = list(chosen)
        reasons: dict[Key, str] = {}
        while True:
            wanted = self._wanted(left, pending, reasons)
            removal, granted = self._granted(wanted)
            taken, waiting = ({c.key: n for c, n in granted.items() if n and c.waits == w} for w in (False, True))
            reasons |= {
                c.key: removal.refused.get(c.leaf) or self._reason(c.leaf, wanted) for c, n in granted.items() if not n
            }
            vain = {r.key for r in left if r.key not in taken and not isinstance(r.remedy, Remove)}
            if not vain:
                return Intent(removal, taken, waiting, reasons)
            left = [r for r in left if r.key not in vain]

    def spare(self, repair: Repair) -> tuple[int, ...]:
        """The units, copy-major, that nothing reads any more once a repair is done."""
        return self._found(repair)[0]

    def _found(self, repair: Repair) -> tuple[tuple[int, ...], str]:
        if repair.key not in self._spare:
            self._spare[repair.key] = self._units(repair)
        return self._spare[repair.key]

    def _units(self, repair: Repair) -> tuple[tuple[int, ...], str]:
        """The same, and why there are none."""
        space = repair.space
        match repair.remedy:
            case Remove():
                return repair.finding.units, LAST
            case Fold():
                found = foldable(self.context, space, repair.finding.units)
                return found.spare, found.reason or BORDER
            case MergeHeads():
                return gatherable(self.context, space), UNREADABLE
            case Merge(groups):
                return mergeable(self.context, space, groups), UNREADABLE
        return (), ""

    def _wanted(self, chosen: Sequence[Repair], pending: Sequence[Pending], reasons: dict[Key, str]) -> _Wanted:
        wanted, waiting = _Wanted(), defaultdict[str, set[int]](set)
        for wait, space, units in self.waiting(pending):
            self._claim(wanted, wait.repair.key, space, [u for u in units if u not in waiting[space]], waits=True)
            waiting[space].update(units)
        for repair in chosen:
            if isinstance(repair.remedy, Factor):
                self._factored(wanted, repair, reasons)
            elif isinstance(repair.remedy, Removing):
                units, why = self._found(repair)
                if units:
                    self._claim(wanted, repair.key, repair.space, [u for u in units if u not in waiting[repair.space]])
                else:
                    reasons[repair.key] = why
        return wanted

    def _claim(self, wanted: _Wanted, key: Key, space: str, units: Sequence[int], *, waits: bool = False) -> None:
        action = self.structure.permutation(space)
        if space not in wanted.dead:
            size = self.structure.axes.factors.size
            wanted.dead[space] = np.zeros(size(action.leaf) * prod(map(size, action.copies)), bool)
        if units:
            wanted.dead[space][list(units)] = True
            wanted.claims.append(Claim(key, action.leaf, len(units), waits))

    def _factored(self, wanted: _Wanted, repair: Repair, reasons: dict[Key, str]) -> None:
        product = next(p for s, p in self.context.products if s.id == repair.space)
        action = self.structure.actions[product.generator]
        if repair.space not in self._narrow:
            self._narrow[repair.space] = narrowest(self.context, product)
        width, size = self._narrow[repair.space], self.structure.axes.factors.size
        if width is None:
            reasons[repair.key] = WIDE
            return
        wanted.widths[action.leaf] = width
        gone = (size(action.leaf) - width) * prod(map(size, action.copies))
        wanted.claims.append(Claim(repair.key, action.leaf, gone))

    def _granted(self, wanted: _Wanted) -> tuple[Removal, dict[Claim, int]]:
        """What can be cut, and how much of it each claim gets."""
        removal = plan(self.context, wanted.dead, self.align)
        widths = {**wanted.widths, **removal.widths}
        widths = {leaf: aligned(self.structure, leaf, width, self.align) for leaf, width in widths.items()}
        kept, refused = self.feasible(agreed(self.structure, widths))
        orders = {n: o for n, o in removal.orders.items() if self.structure.actions[n].leaf in kept}
        room = {leaf: self._room(leaf, width) for leaf, width in kept.items()}
        granted: dict[Claim, int] = {}
        for claim in wanted.claims:
            granted[claim] = min(claim.count, room.get(claim.leaf, 0))
            room[claim.leaf] = room.get(claim.leaf, 0) - granted[claim]
        return Removal(kept, orders, refused), granted

    def feasible(self, widths: Mapping[int, int]) -> tuple[dict[int, int], dict[int, str]]:
        """The widths that the file can be given, and why not the others; all at once mostly, else one by one."""
        refused: dict[int, str] = {}
        problem = self._problem(widths)
        while isinstance(problem, Uneven) and (more := self._more(widths, problem)) not in ({}, widths):
            widths, problem = more, self._problem(more)
        if problem is None:
            return dict(widths), refused
        kept: dict[int, int] = {}
        for leaf, width in widths.items():
            reason = self._problem({**kept, leaf: width})
            if reason is None:
                kept[leaf] = width
            else:
                refused[leaf] = str(reason)
        return kept, refused

    def _more(self, widths: Mapping[int, int], asked: Uneven) -> dict[int, int]:
        """The widths with as many units more as an operator wants."""
        factors, of = self.structure.axes.factors, self.structure.axes.of
        least = dict(widths)
        for (name, axis), share in asked.wanted.items():
            for leaf in widths.keys() & set(factors.leaves(of[name][axis]) if name in of else ()):
                least[leaf] = max(least[leaf], ceil(factors.size(leaf) * share))
        return agreed(self.structure, least)

    def _problem(self, widths: Mapping[int, int]) -> Immovable | None:
        try:
            if widths:
                self.attempt(widths)
        except Immovable as reason:
            return reason
        return None

    def attempt(self, widths: Mapping[int, int]) -> Cuts:
        """What becomes of all that is stored where the file is given these widths. Raises `Immovable`."""
        return planned(self.structure.program.model, Narrowing(self.structure, self.whole, widths))

    def _reason(self, leaf: int, wanted: _Wanted) -> str:
        """Why a leaf keeps its width."""
        free = {**wanted.widths, **needed(self.context, wanted.dead)}
        if leaf not in free:
            return COPIES if self._copies(leaf) else LAST
        together = self.align > 1 and leaf in agreed(self.structure, free)
        return multiples(self.align) if together else TURNS

    def _copies(self, leaf: int) -> tuple[int, ...]:
        return next((a.copies for a in self.structure.permutations if a.leaf == leaf), ())

    def _room(self, leaf: int, width: int) -> int:
        """How many units go, over all copies."""
        sizes = self.structure.axes.factors.size
        return (sizes(leaf) - width) * prod(map(sizes, self._copies(leaf)))

    def waiting(self, pending: Sequence[Pending]) -> Iterator[tuple[Pending, str, tuple[int, ...]]]:
        """Of the units that earlier stages took out of their readers, those that are dead by now, with their spaces."""
        for wait in pending:
            tensors, place = {*wait.repair.finding.tensors}, (wait.repair.where, wait.repair.ordinal)
            spaces = [s for s in self.context.spaces if tensors <= {*self.context.tensors(s)}]
            for space in sorted(spaces, key=lambda s: (s.name, ordinal(self.context, s)) != place)[:1]:
                dead = self.context.units(space).dead
                yield wait, space.id, tuple(u for u in wait.units if u < len(dead) and dead[u])


FEW = 1 << 16
"""Elements that are compared one by one."""


def amount(forecast: Forecast, intent: Intent, chosen: Sequence[Repair]) -> int | None:
    """The parameters that go where these repairs are carried out, and what they bring to light after them.

    None where only carrying them out tells: where widths are refused, something else is stored in their stead, or the
    rank of a product may be another one once units of it are gone.

    Args:
        forecast: of the network.
        intent: what the forecast says of the repairs.
        chosen: the repairs.
    """
    widths = intent.removal.widths
    if not widths or intent.removal.refused or not all(widths.values()):
        return None
    carried = [repair for repair in chosen if repair.key in intent.taken]
    counted = _Counted(forecast, widths, carried)
    return counted.gone if counted.sure else None


@dataclass(frozen=True)
class _Counted:
    forecast: Forecast
    widths: Mapping[int, int]
    carried: Sequence[Repair]

    @property
    def context(self) -> Context:
        return self.forecast.context

    @property
    def model(self) -> Model:
        return self.context.symmetry.model

    @cached_property
    def nodes(self) -> list[Node]:
        return nested(self.model.graph.nodes)

    @cached_property
    def cuts(self) -> Mapping[str, tuple[Shape, ...]]:
        """Stored tensor -> its shapes from then on."""
        return self._planned.shapes

    @cached_property
    def _planned(self) -> Cuts:
        return self.forecast.attempt(self.widths)

    @property
    def gone(self) -> int:
        """Elements of parameters that are cut off."""
        before = self.context.parameters
        return sum(before[name] - sum(map(prod, shapes)) for name, shapes in self.cuts.items() if name in before)

    @property
    def sure(self) -> bool:
        """Whether that is all that a fix changes, and what is a parameter now is one then."""
        return (
            self._planned.plain
            and all(map(self._stays, self.cuts))
            and not any(map(self._decides, self.nodes))
            and all(self._borne(repair) for repair in self.carried if isinstance(repair.remedy, Fold))
            and not self._coinciding()
            and not self._turning()
        )

    # -- what is a parameter ------------------------------------------------------------------------------------------
    def _stays(self, name: str) -> bool:
        """Whether a tensor that is cut counts for what it counts now, element by element."""
        tensor, before = self.model.tensors[name], self.context.parameters
        if name in self.model.graph.outputs or before.get(name, tensor.size) != tensor.size:
            return False
        if name not in before or not tensor.floating:
            return True
        faraway = self.model.digests.of(tensor).most * 16 >= -FAR
        return not faraway and (name not in self.model.literals or self._varied(tensor, self.cuts[name]))

    def _varied(self, tensor: Tensor, shapes: Sequence[Shape]) -> bool:
        """Whether whatever is left of a tensor is more than one number throughout."""
        counts = np.unique(tensor.read(), return_counts=True)[1]
        return int(counts.max()) < min(map(prod, shapes))

    def _decides(self, node: Node) -> bool:
        """Whether a node makes of a tensor that is cut something else than a parameter, by its size or its numbers."""
        operator = known_operator(node.op)
        if (how := operator.quantised) is not None:
            return bool(how.rows or how.bits or how.shape) and not self.cuts.keys().isdisjoint(node.inputs)
        if operator.scatters:
            return not self.cuts.keys().isdisjoint(node.inputs)
        return operator.told and not self.cuts.keys().isdisjoint(node.inputs[1:])

    # -- biases -------------------------------------------------------------------------------------------------------
    def _borne(self, repair: Repair) -> bool:
        """Whether biases that are there take what constant units contribute."""
        structure = self.context.structure
        action = structure.permutation(repair.space)
        found = readings(structure, action.leaf, self.context.moving)
        return found is not None and not action.copies and all(map(self._biased, found))

    def _biased(self, reading: Reading) -> bool:
        node = reading.step.node
        slot = SLOTS.get(node.op.rpartition(".")[2])
        if slot is None:
            readers = [other for other in self.nodes for name in other.inputs if name == node.outputs[0]]
            if len(readers) != 1 or readers[0].op != "Add" or node.outputs[0] in self.model.graph.outputs:
                return False
            bias = next((name for name in readers[0].inputs if name != node.outputs[0]), "")
        else:
            bias = node.inputs[slot] if len(node.inputs) > slot else ""
        shape = self.model.shapes.get(node.outputs[0], ())
        channels = shape[1:2] if node.op.endswith(("Conv", "ConvTranspose")) else shape[-1:]
        return (
            bias in self.context.parameters
            and self.model.tensors[bias].shape == channels
            and bool(node.attributes.get("beta", 1.0))
            and sum(name == bias for other in self.nodes for name in other.inputs) == 1
        )

    # -- equal tensors ------------------------------------------------------------------------------------------------
    def _coinciding(self) -> bool:
        """Whether what is left of a tensor may be equal to another one, and be stored but once."""
        groups: defaultdict[tuple[str, Shape], list[str]] = defaultdict(list)
        for name, tensor in self.model.tensors.items():
            if tensor.place is not None and name not in self.model.unread | self.model.bound:
                for shape in self.cuts.get(name, (tensor.shape,)):
                    if prod(shape) * tensor.place.length >= LARGE * tensor.size:
                        groups[tensor.dtype, shape].append(name)
        alike = (names for names in groups.values() if len(names) > 1 and not self.cuts.keys().isdisjoint(names))
        return any(self._shared(shape_names) for shape_names in alike)

    def _shared(self, names: Sequence[str]) -> bool:
        """Whether two tensors of one new shape hold half their numbers in common, in a line that is not cut."""
        tensors = [self.model.tensors[name] for name in names]
        after = self.cuts.get(names[0], (tensors[0].shape,))[0]
        axis = next((k for k, n in enumerate(after) if all(t.shape[k] == n for t in tensors)), None)
        if axis is None and max(t.size for t in tensors) > FEW:
            return True
        lines = [np.unique(t.read() if axis is None else t.read().take(0, axis=axis)) for t in tensors]
        lines = [numbers[numbers != 0] for numbers in lines]
        _, counts = np.unique(np.concatenate(lines), return_counts=True)
        return 2 * int(np.count_nonzero(counts > 1)) >= min(map(len, lines))

    # -- ranks --------------------------------------------------------------------------------------------------------
    def _turning(self) -> bool:
        """Whether a product has weights of which units go: without them its rank may be another one."""
        structure = self.context.structure
        holders = structure.axes.factors.holders
        moved = {name for leaf in self.widths for name in holders.get(leaf, ())} & structure.program.weights.keys()
        others = (a for a in structure.actions.values() if general_linear(a) and a.leaf not in self.widths)
        return any(not moved.isdisjoint(o.tensor for o in a.charge) for a in others)


@dataclass(frozen=True)
class Promise:
    """What would become of all that the rules find and can repair in a network."""

    context: Context
    """With the weights that are judged."""
    found: tuple[Repair, ...]

    @cached_property
    def taken(self) -> Mapping[Key, int]:
        """Repair -> the units, over all copies, or directions that go; what stays is not in it.

        What bounds prove counts for itself alone: exact findings are repaired without.
        """
        told: dict[Key, int] = {}
        for evidence in (("exact",), ("exact", "bounded")):
            mine = [r for r in self.found if r.finding.evidence in evidence]
            if any(r.finding.evidence == evidence[-1] for r in mine):
                told = {**self._plan(tuple(mine), evidence).taken, **told}
        return told

    @cached_property
    def reasons(self) -> Mapping[Key, str]:
        """Repair -> why none of it goes, of those that take nothing away."""
        told: dict[Key, str] = {}
        for one in self._plans.values():
            told |= one.intent.reasons
        return {key: reason for key, reason in told.items() if key not in self.taken}

    def parameters(
        self, rules: Collection[Rule], evidence: Collection[str], spared: Collection[Spared] = ()
    ) -> int | None:
        """The parameters that go in all, where a fix acts on these rules and this evidence, and spares what it is told.

        None where only carrying the repairs out tells.
        """
        asked = (r for r in self.found if r.finding.evidence in evidence and r.rule in rules)
        chosen = tuple(r for r in asked if not any(one.covers(r) for one in spared))
        return self._plan(chosen, tuple(evidence)).amount if chosen else None

    def _plan(self, chosen: tuple[Repair, ...], evidence: tuple[str, ...]) -> _Plan:
        key = tuple(repair.key for repair in chosen), evidence
        if key not in self._plans:
            if evidence not in self._forecasts:
                like = next(iter(self._forecasts.values()), None)
                self._forecasts[evidence] = Forecast(known(self.context, evidence), like=like)
            self._plans[key] = _Plan(self._forecasts[evidence], chosen)
        return self._plans[key]

    @cached_property
    def _plans(self) -> dict[tuple[tuple[Key, ...], tuple[str, ...]], _Plan]:
        return {}

    @cached_property
    def _forecasts(self) -> dict[tuple[str, ...], Forecast]:
        return {}


@dataclass(frozen=True)
class _Plan:
    """Some repairs, and what would become of them together."""

    forecast: Forecast
    chosen: Sequence[Repair]

    @cached_property
    def bypassed(self) -> Mapping[Key, int]:
        """The repairs that are done once branches of which nothing is alive are left out."""
        found = bypassed(self.forecast.context, self.chosen)
        return {repair.key: removed for repair, removed in found}

    @cached_property
    def intent(self) -> Intent:
        """What the others would take away."""
        return self.forecast.of([r for r in self.chosen if r.key not in self.bypassed])

    @property
    def taken(self) -> Mapping[Key, int]:
        """Repair -> the units that go."""
        return {**self.intent.taken, **self.bypassed}

    @property
    def amount(self) -> int | None:
        """The parameters that go, where that can be told."""
        return None if self.bypassed else amount(self.forecast, self.intent, self.chosen)
