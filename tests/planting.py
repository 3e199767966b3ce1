"""Plants flaws in a network, and lures beside them: what an audit must find, and what it must leave alone.

Nothing here asks the analyses that the audit uses: which tensors write, shift, scale and read a unit follows from the
steps of the program and the axes of its tensors alone, and so does what a unit becomes when its writers are zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from symlint.model.graph import Node
from symlint.model.load import load
from symlint.model.saving import write
from symlint.model.states import closed
from symlint.program.functions import MixKind
from symlint.program.numbers import compute
from symlint.program.steps import Affine, Concat, Einsum, Fold, Mix, Normalise, Pointwise, Slice, Spec, Step, Unknown
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.actions.scaling import Scaling
from symlint.symmetry.charges.offsets import Offset
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.action import Stand, stands
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Action

Place = tuple[str, int]
"""A weight of the program and one of its axes."""
TINY = (1e-20, 1e-30, 1e-39)
"""What decay leaves of weights, beside others of ordinary size."""
LARGEST, UNSEEN = 1e6, 1e-17
"""An input that is larger than others, and a reading weight that does not show even what it makes of one unit."""
SATURATING = {"Gelu", "Sigmoid", "Tanh", "Erf", "HardSwish", "Mish", "Softplus", "Elu", "Selu", "Swish"}
RECTIFIERS = {"Relu", "LeakyRelu", "PRelu"}
SUMS = {"Add", "Sub", "Sum", "Mean"}
PASSING = {"Identity", "Cast", "CastLike", "Dropout", "Neg", *SUMS}
ODD_AT_ZERO = {
    "Abs", "BiasGelu", "CastLike", "Cast", "Celu", "Dropout", "Elu", "Erf", "FastGelu", "Floor", "Gelu", "HardSwish",
    "Identity", "LeakyRelu", "Mish", "Neg", "PRelu", "QuickGelu", "Relu", "Selu", "Shrink", "Sin", "Softsign", "Sqrt",
    "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip
"""Functions that map zero to zero."""

LOOKUPS = {MixKind.LOOKUP, MixKind.FIXED_LOOKUP, MixKind.RELATIVE_LOOKUP}
WINDOWS = {MixKind.CONVOLUTION, MixKind.POOLING, MixKind.NEIGHBOURS, MixKind.OVERLAPPING, MixKind.RESIZING}


class State(IntEnum):
    """What a unit is in one tensor, by how much it may vary."""

    ZERO = 0
    CONSTANT = 1
    BORDERED = 2
    """Constant for every input, but not at every place: a padded window of a constant."""
    VARYING = 3


@dataclass
class Roles:
    """What the tensors of a space do with its units."""

    writers: set[Place] = field(default_factory=set)
    """A contraction produces the units along this axis."""
    gains: set[Place] = field(default_factory=set)
    """Every unit is multiplied by elements of its own: gains, slopes, depthwise kernels."""
    adders: set[Place] = field(default_factory=set)
    readers: set[Place] = field(default_factory=set)
    """A contraction sums over the units."""
    statistics: dict[Place, str] = field(default_factory=dict)
    """Gain, bias, mean and variance of batch normalisations."""
    others: set[Place] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    pooled: bool = False
    """Something is normalised or folded along the units."""
    met: bool = False
    """Units are summed, contracted with other units, or used by an operator without a rule: not by weights alone."""

    @property
    def own(self) -> set[Place]:
        """Everything that belongs to a unit, without what reads it."""
        return self.writers | self.gains | self.adders | self.others | set(self.statistics)

    @property
    def parts(self) -> set[str]:
        """The weights that the space lies in."""
        return {name for name, _ in self.own | self.readers}


@dataclass(frozen=True)
class Site:
    """A space with the roles of its tensors: where a flaw can be planted."""

    space: Space
    action: Action
    roles: Roles

    @property
    def count(self) -> int:
        """Units, over all copies."""
        return self.space.size * self.space.copies


@dataclass(frozen=True)
class Mixture:
    """A space that any invertible matrix may mix, and where a rank can be lowered: the weights of one side."""

    space: Space
    action: Action
    rule: str
    side: int
    """1 for the weights that the matrix acts on, -1 for those that its inverse acts on."""
    bound: int
    """What the width, the writers and the readers allow at least."""

    @property
    def copies(self) -> int:
        """How many products there are."""
        return self.space.copies


def invertible(action: Action) -> bool:
    """Whether an action is by all invertible matrices."""
    return action.kind == "rotation" and set(action.charge.values()) == {1, -1}


Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""New elements from the old ones and from the unit that each belongs to (-1: none)."""


class Network:
    """A model with its sites. Flaws are planted in copies of its weights."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.symmetry, self.structure = examine(closed(load(str(path))))
        self.program = self.structure.program
        self.factors = self.structure.axes.factors
        self.axes = self.structure.axes.of

    # -- roles ----------------------------------------------------------------------------------------------------
    @cached_property
    def sources(self) -> dict[str, list[tuple[str, tuple[frozenset[int], ...]]]]:
        """Tensor computed from weights alone -> those weights, with their axes behind each of its axes."""
        found = {
            name: [(name, tuple(frozenset([k]) for k in range(len(self.program.shapes[name]))))]
            for name in self.program.weights
        }
        for step in self.program.steps:
            if isinstance(step, Einsum) and len(step.operands) == 1 and step.operands[0] in found:
                found[step.out] = [(weight, self._rearranged(step, axes)) for weight, axes in found[step.operands[0]]]
            elif isinstance(step, Slice) and step.x in found:
                found[step.out] = found[step.x]
            elif isinstance(step, Pointwise) and len(step.operands) == 1 and step.operands[0] in found:
                found[step.out] = found[step.operands[0]]
        return found

    @staticmethod
    def _rearranged(step: Einsum, axes: Sequence[frozenset[int]]) -> tuple[frozenset[int], ...]:
        of = {label: axes[k] for k, axis in enumerate(step.specs[0]) for label in axis}
        return tuple(frozenset(a for label in axis for a in of.get(label, ())) for axis in step.result)

    def _holds(self, f: int, leaf: int) -> bool:
        return leaf in set(self.factors.leaves(f))

    def holds(self, name: str, leaf: int) -> bool:
        """Whether a tensor has a space on some axis."""
        return any(self._holds(f, leaf) for f in self.axes.get(name, ()))

    def labels(self, step: Einsum, k: int, leaf: int) -> set[tuple[str, int]]:
        """The labels of an operand (with their axes) that a space lies on."""
        return set(self._labels(self.axes[step.operands[k]], step.specs[k], step.sizes, leaf))

    def _labels(
        self, axes: Sequence[int], spec: Spec, sizes: Mapping[str, int], leaf: int
    ) -> Iterator[tuple[str, int]]:
        for k, (f, axis) in enumerate(zip(axes, spec, strict=True)):
            rest: int | None = f
            for i, label in enumerate(axis):
                if rest is None:
                    break
                if i == len(axis) - 1:
                    part, rest = rest, None
                else:
                    cut = self.factors.split(rest, sizes[label])
                    part, rest = cut if cut is not None else (rest, None)
                if self._holds(part, leaf):
                    yield label, k

    def _places(self, name: str, leaf: int, axis: int | None = None) -> set[Place]:
        """The axes of weights on which a space lies, behind a tensor computed from weights."""
        return {
            (weight, a)
            for weight, axes in self.sources.get(name, ())
            for k, behind in enumerate(axes)
            if axis is None or k == axis
            for a in behind
            if self._holds(self.axes[weight][a], leaf)
        }

    def roles(self, action: Action) -> Roles:
        """What the tensors of a space do, from the steps of the program."""
        roles, leaf = Roles(), action.leaf
        for step in self.program.steps:
            self._role(step, roles, leaf)
        return roles

    def _role(self, step: Step, roles: Roles, leaf: int) -> None:
        if isinstance(step, Einsum):
            self._contraction(step, roles, leaf)
        elif isinstance(step, Pointwise):
            if step.out in self.sources:
                return
            if self.holds(step.out, leaf):
                roles.functions.add(step.function)
            group = {**dict.fromkeys(SUMS, roles.adders), **dict.fromkeys(("Mul", "Div", "PRelu"), roles.gains)}
            for name in step.operands:
                group.get(step.function, roles.others).update(self._places(name, leaf))
        elif isinstance(step, Affine):
            for part in ("gain", "bias", "mean", "var"):
                roles.statistics.update(dict.fromkeys(self._places(getattr(step, part), leaf), part))
        elif isinstance(step, (Normalise, Fold)):
            roles.pooled |= any(self._holds(self.axes[step.x][k], leaf) for k in step.axes)
            roles.others |= self._places(step.x, leaf)
        elif isinstance(step, Mix):
            lookup = self._places(step.x, leaf)
            (roles.writers if self.holds(step.out, leaf) else roles.others).update(lookup)
            dropped = [k for k in range(len(self.axes[step.x])) if k not in step.keep]
            roles.met |= any(self._holds(self.axes[step.x][k], leaf) for k in dropped)
        elif isinstance(step, Unknown):
            roles.met |= any(self.holds(name, leaf) for name in step.operands)
            roles.others.update(p for name in step.operands for p in self._places(name, leaf))
        elif isinstance(step, Concat):
            roles.others.update(p for name in step.operands for p in self._places(name, leaf))

    def _contraction(self, step: Einsum, roles: Roles, leaf: int) -> None:
        if step.out in self.sources:
            return
        made = {label for axis in step.result for label in axis}
        held = [self.labels(step, k, leaf) for k in range(len(step.operands))]
        weighted = [name in self.sources for name in step.operands]
        for k, name in enumerate(step.operands):
            for label, axis in held[k]:
                elsewhere = any(label in {x for a in spec for x in a} for j, spec in enumerate(step.specs) if j != k)
                if not weighted[k]:
                    gone = label not in made
                    roles.met |= gone and not (elsewhere and any(weighted))
                elif label not in made:
                    roles.readers |= self._places(name, leaf, axis)
                else:
                    (roles.gains if elsewhere else roles.writers).update(self._places(name, leaf, axis))

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Spaces of at least four units, of which everything is known that planting asks for."""
        stored: dict[str, int] = {}
        for tensor in self.program.weights.values():
            stored[tensor] = stored.get(tensor, 0) + 1
        # Heads and groups are bundles of units, which rules of their own speak of; what any invertible or orthogonal
        # matrix may mix has no units of its own, but a rank.
        bundles = {c for action in self.structure.actions.values() for c in action.copies}
        mixed = {a.leaf for a in self.structure.actions.values() if invertible(a) or isinstance(a, OrthogonalMap)}
        found = []
        for space in self.symmetry.spaces:
            action = self.structure.actions.get(f"{space.id}.permutation")
            if action is None or space.size < 2 or space.size * space.copies < 4 or action.leaf in bundles | mixed:
                continue
            if not mixed.isdisjoint(action.copies):
                continue
            roles = self.roles(action)
            clash = roles.readers & roles.own
            shared = any(stored[self.program.weights[n]] > 1 or n in self.program.detached for n in roles.parts)
            if roles.writers and roles.readers and not (clash or shared or roles.pooled or roles.others):
                site = Site(space, action, roles)
                if State.VARYING in self.reads(site, set()):
                    found.append(site)
        return tuple(found)

    @cached_property
    def rivals(self) -> dict[int, frozenset[int]]:
        """Leaf -> the leaves whose units take turns in the same places of some tensor: all must lose equally many."""
        found: dict[int, set[int]] = {}
        for f in {f for axes in self.axes.values() for f in axes}:
            terms = self.structure.expansion.terms(f)
            for k, one in enumerate(terms):
                for other in terms[:k]:
                    apart = set(one.leaves) ^ set(other.leaves)
                    if apart and np.intersect1d(one.positions, other.positions).size:
                        whole = apart.union(*(found.get(leaf, ()) for leaf in apart))
                        found.update(dict.fromkeys(whole, whole))
        return {leaf: frozenset(group) for leaf, group in found.items()}

    # -- products -------------------------------------------------------------------------------------------------
    @cached_property
    def mixtures(self) -> tuple[Mixture, ...]:
        """Both sides of every space under invertible matrices, as far as changing them touches no other product."""
        found = []
        named = {s.id: s for s in self.symmetry.spaces}
        uses = Counter(self.program.weights.values())
        for action in [a for a in self.structure.actions.values() if invertible(a)]:
            space, rule = named[action.space], self.rule(action.leaf)
            lines = {side: self.lines(action, side) for side in (1, -1)}
            if not all(lines.values()) or any({n for n, _ in one} <= self.loose for one in lines.values()):
                continue
            # A bias may be another's to take over, and a norm hides a direction of what comes in or goes out.
            counts = [
                sum((own >= 0).sum() for _, own in lines[side] if own.ndim > 1) // space.copies // space.size - 1
                for side in (1, -1)
            ]
            bound = min(space.size, *counts)
            for side in (1, -1):
                alone = all(
                    uses[self.program.weights[n]] == 1 and n not in self.program.detached for n, _ in lines[side]
                )
                if (
                    bound > 1
                    and alone
                    and not any(self._meet(lines[side], a, s) for a, s in self._others(action, side))
                ):
                    found.append(Mixture(space, action, rule, side, bound))
        return tuple(found)

    @cached_property
    def loose(self) -> set[str]:
        """Weights beside others that take over whatever they become, as a layer does from its adapter."""
        moved = (action.translation for action in self.structure.shifts)
        return {found.weight for found in moved if found.full}

    @cached_property
    def _lifted(self) -> set[str]:
        """Weights that a function reads which makes another number of zero, as Exp and Softplus do."""
        found: set[str] = set()
        for step in self.program.steps:
            if isinstance(step, Pointwise) and len(step.operands) == 1 and not step.linear:
                made = compute(step, [np.zeros(1)])
                if made is None or made.any():
                    found.update(name for name, _ in self.sources.get(step.operands[0], ()))
        return found

    def zero(self, places: Iterable[Place]) -> bool:
        """Whether zeros at these places are zeros where they are used."""
        return self._lifted.isdisjoint(name for name, _ in places)

    @cached_property
    def taken_back(self) -> set[str]:
        """Weights of which every element is taken back by what comes after it: no difference of two counts."""
        return {action.translation.weight for action in self.structure.shifts if action.translation.free}

    def _others(self, action: Action, side: int) -> list[tuple[Action, int]]:
        every = [(a, s) for a in self.structure.actions.values() if invertible(a) for s in (1, -1)]
        return [(a, s) for a, s in every if (a.id, s) != (action.id, side)]

    def _meet(self, lines: Sequence[tuple[str, np.ndarray]], action: Action, side: int) -> bool:
        """Whether some of the elements belong to a side of another product as well."""
        return any(n == m and np.any((a >= 0) & (b >= 0)) for n, a in lines for m, b in self.lines(action, side))

    def lines(self, action: Action, side: int) -> list[tuple[str, np.ndarray]]:
        """The weights of one side of a product, with the unit (copy-major) of every element, -1 for none."""
        sizes = [self.factors.size(c) for c in action.copies]
        found = []
        for o in [o for o, c in action.charge.items() if c == side and o.tensor in self.program.weights]:
            for stand in stands(self.structure.expansion, self.axes[o.tensor], action.leaf, action.copies):
                if (stand.axis, stand.term, stand.place) == (o.axis, o.term, o.place):
                    shape = self.program.shapes[o.tensor]
                    found.append((o.tensor, _owners(stand, shape, sizes, self.factors.size(action.leaf))))
        return found

    def rule(self, leaf: int) -> str:
        """The rule that speaks of a product: queries meet keys, a softmax carries values, or neither."""
        attended: set[str] = set()
        carried = False
        for step in self.program.steps:
            through = isinstance(step, (Pointwise, Slice, Concat)) or (
                isinstance(step, Einsum) and len(step.specs) == 1
            )
            if (isinstance(step, Normalise) and step.function == "Softmax") or (
                through and attended & set(step.operands)
            ):
                attended.update(step.results)
            if not isinstance(step, Einsum):
                continue
            made = {label for axis in step.result for label in axis}
            moving = [k for k, name in enumerate(step.operands) if name in self.moving]
            held = [{label for label, _ in self.labels(step, k, leaf)} for k in moving]
            if len(moving) > 1 and all(h - made for h in held):
                return "SYM302"
            beside = any(step.operands[k] in attended for k, h in zip(moving, held, strict=True) if not h)
            carried = carried or (beside and any(h & made for h in held))
        return "SYM303" if carried else "SYM301"

    # -- what a unit becomes --------------------------------------------------------------------------------------
    @cached_property
    def moving(self) -> set[str]:
        """Tensors that depend on the input."""
        found = set(self.program.inputs)
        for step in self.program.steps:
            chosen = isinstance(step, Unknown) or (isinstance(step, Mix) and step.kind in LOOKUPS)
            if chosen or any(name in found for name in step.operands):
                found.update(step.results)
        return found

    def reads(self, site: Site, killed: set[Place]) -> set[State]:
        """What the units of a site are wherever they are read, when the elements at some places are zero."""
        states: dict[str, State] = {}
        seen: set[State] = set()
        for step in self.program.steps:
            self._state(step, states, seen, site.action.leaf, killed)
        return seen

    def _of(self, name: str, states: dict[str, State], leaf: int, killed: set[Place]) -> State:
        if name in states:
            return states[name]
        if name in self.program.tables:
            return State.CONSTANT if np.any(self.program.tables[name]) else State.ZERO
        if name in self.sources:
            places = self._places(name, leaf)
            return State.ZERO if places & killed else State.CONSTANT
        return State.VARYING

    def _state(self, step: Step, states: dict[str, State], seen: set[State], leaf: int, killed: set[Place]) -> None:
        def of(name: str) -> State:
            return self._of(name, states, leaf, killed)

        if isinstance(step, Affine):
            gain, bias = of(step.gain), of(step.bias)
            mean = of(step.mean)
            states[step.scale] = gain
            states[step.shift] = State.ZERO if bias == State.ZERO == min(gain, mean) else State.CONSTANT
        elif isinstance(step, Unknown):
            states.update(dict.fromkeys(step.outs, State.VARYING))
        elif isinstance(step, Einsum):
            if step.out in self.sources:
                return
            states[step.out] = self._contracted(step, [of(n) for n in step.operands], seen, leaf)
        elif isinstance(step, Pointwise):
            if step.out not in self.sources:
                states[step.out] = _applied(step, [of(n) for n in step.operands])
        elif isinstance(step, Mix):
            x = of(step.x)
            chosen = x != State.ZERO and step.kind not in WINDOWS
            pads = x == State.CONSTANT and not step.steady
            made = max(x, State.CONSTANT) if step.kind is MixKind.MODEL else x  # trees make a number of zero
            states[step.out] = State.VARYING if chosen else State.BORDERED if pads else made
        elif isinstance(step, Slice):
            if step.out not in self.sources:
                states[step.out] = of(step.x)
        elif isinstance(step, Concat):
            bearing = [n for n in step.operands if self.holds(n, leaf)]
            states[step.out] = max((of(n) for n in bearing), default=State.VARYING)
        elif isinstance(step, Normalise):
            kept = step.function in ("standardise", "rms", "l2") and of(step.x) == State.ZERO
            states[step.out] = State.ZERO if kept else State.VARYING
        elif isinstance(step, Fold):
            x = of(step.x)
            states[step.out] = x if x == State.ZERO and "Log" not in step.function else State.VARYING

    def _contracted(self, step: Einsum, given: list[State], seen: set[State], leaf: int) -> State:
        made = {label for axis in step.result for label in axis}
        kept = []
        for k, (name, state) in enumerate(zip(step.operands, given, strict=True)):
            held = {label for label, _ in self.labels(step, k, leaf)}
            if held - made and name not in self.sources:
                seen.add(state)
            kept.append(bool(held & made))
            if not kept[-1]:  # other units and other axes are summed over as well
                given[k] = State.VARYING if name in self.moving else State.CONSTANT
        if len(given) == 1:
            return given[0] if kept[0] or given[0] != State.BORDERED else State.VARYING
        if any(k and s == State.ZERO for k, s in zip(kept, given, strict=True)):
            return State.ZERO
        return State.CONSTANT if all(s <= State.CONSTANT for s in given) else State.VARYING

    # -- elements -------------------------------------------------------------------------------------------------
    def read(self, name: str) -> np.ndarray:
        """The stored elements of a weight of the program."""
        return self.program.model.tensors[self.program.weights[name]].read()

    def elements(self, site: Site, place: Place) -> Iterator[np.ndarray]:
        """The unit of every element of a weight (-1: none), once per occurrence of the space on that axis."""
        name, axis = place
        shape = self.program.shapes[name]
        sizes = [self.factors.size(c) for c in site.action.copies]
        for stand in stands(self.structure.expansion, self.axes[name], site.action.leaf, site.action.copies):
            if stand.axis == axis:
                yield _owners(stand, shape, sizes, site.space.size)

    def fan_in(self, site: Site) -> int:
        """The least number of elements that a writer gives to a unit."""
        found = [np.count_nonzero(own == 0) for place in site.roles.writers for own in self.elements(site, place)]
        return min((n for n in found if n), default=0)

    def power(self, site: Site, action: Action, place: Place) -> dict[int, float]:
        """The charge of a rescaling at the occurrences of a space on one axis of a weight, by their order."""
        name, axis = place
        name = self._charged(name)
        found = {}
        listed = [
            s
            for s in stands(self.structure.expansion, self.axes[name], site.action.leaf, site.action.copies)
            if s.axis == axis
        ]
        for k, stand in enumerate(listed):
            for o, charge in action.charge.items():
                if (o.tensor, o.axis, o.term, o.place) == (name, axis, stand.term, stand.place):
                    found[k] = float(charge)
        return found

    def _charged(self, name: str) -> str:
        """The tensor whose charge is that of a weight: scale and shift stand for gain and bias."""
        for step in self.program.steps:
            if isinstance(step, Affine) and name in (step.gain, step.bias):
                return step.scale if name == step.gain else step.shift
        return name

    def rescaling(self, site: Site, kind: str = "rescaling") -> Scaling | None:
        """A rescaling (or a sign) of the units that every reader answers to, copy by copy like the permutation."""
        for action in self.structure.actions.values():
            same = isinstance(action, Scaling) and action.kind == kind and action.leaf == site.action.leaf
            if (
                same
                and set(action.copies) == set(site.action.copies)
                and all(
                    len(self.power(site, action, place)) == len(list(self.elements(site, place)))
                    for place in site.roles.readers
                )
            ):
                return action
        return None

    def steepness(self, site: Site) -> float:
        """In which power a unit grows with what writes it: 1 but for squares and the like."""
        action = self.rescaling(site)
        powers = [abs(float(power)) for power in action.charge.values() if power] if action else []
        return max(powers, default=1.0) / min(powers, default=1.0)


def _owners(stand: Stand, shape: Sequence[int], sizes: Sequence[int], size: int) -> np.ndarray:
    unit = stand.units
    stride = size
    for copy, n in zip(reversed(stand.copies), reversed(sizes), strict=True):
        unit = unit + copy * stride
        stride *= n
    here = np.where(stand.here, unit, -1)
    here = np.broadcast_to(here, np.broadcast_shapes(here.shape, (1,) * len(stand.others) + stand.grid.shape))
    return np.broadcast_to(stand.along(tuple(shape), here, np.full(shape[stand.axis], -1)), shape)


def _applied(step: Pointwise, given: list[State]) -> State:
    """What an elementwise function makes of what it is given."""
    zero, function = [s == State.ZERO for s in given], step.function
    if function in ("Mul", "And"):
        vanish = any(zero)
    elif function == "Div":
        vanish = zero[0]
    elif function in SUMS or function in ("Min", "Max", "Where", "Clip"):
        vanish = all(zero[1:] if function == "Where" else zero[:1] if function == "Clip" else zero)
    else:
        vanish = zero[0] and function in ODD_AT_ZERO
    if vanish:
        return State.ZERO
    if function == "Where":  # which of two constants it is may follow from the place
        return State.VARYING
    if len(given) == 1 and given[0] == State.BORDERED and function in PASSING:
        return State.BORDERED
    return State.CONSTANT if all(s <= State.CONSTANT for s in given) else State.VARYING


class Planting:
    """New values for some weights of a network, made step by step."""

    def __init__(self, network: Network, site: Site | None = None) -> None:
        self.network, self.site = network, site
        self.values: dict[str, np.ndarray] = {}

    def change(self, places: Iterable[Place], fill: Fill) -> None:
        """Give every element at the places that belongs to a unit a new value."""
        for place in sorted(places):
            stored = self.network.program.weights[place[0]]
            for own in self.network.elements(self.site, place):
                old = self.values.get(stored)
                old = self.network.read(place[0]) if old is None else old
                self.values[stored] = fill(old, own).astype(old.dtype)

    def put(self, places: Iterable[Place], units: Sequence[int], value: float) -> None:
        """One number for all elements of the units."""
        self.change(places, lambda old, own: np.where(np.isin(own, units), value, old))

    def copy(self, places: Iterable[Place], source: int, target: int) -> None:
        """The elements of one unit for another."""

        def fill(old: np.ndarray, own: np.ndarray) -> np.ndarray:
            new = old.copy()
            new[own == target] = old[own == source]
            return new

        self.change(places, fill)

    def multiply(self, places: Iterable[Place], unit: int, factor: float, action: Scaling | None = None) -> None:
        """Scale the elements of a unit, by a power that a rescaling gives where there is one."""
        statistics = self.site.roles.statistics
        for place in sorted(set(places) - set(statistics)):
            stored = self.network.program.weights[place[0]]
            powers = self.network.power(self.site, action, place) if action else None
            for k, own in enumerate(self.network.elements(self.site, place)):
                old = self.values.get(stored)
                old = self.network.read(place[0]) if old is None else old
                power = 1.0 if powers is None else powers.get(k, 0.0)
                self.values[stored] = np.where(own == unit, old * factor**power, old).astype(old.dtype)
        if action:
            for place in [p for p in places if statistics.get(p) == "gain"]:
                self._normalisation(place, unit, factor, action)
            for offset in action.offsets:
                self._constant(offset, unit, factor, action)

    def _constant(self, offset: Offset, unit: int, factor: float, action: Scaling) -> None:
        """What is added to a unit grows with it: a bias takes it along."""
        structure, tensors = self.network.structure, self.network.program.model.tensors
        weights = Weights(structure, lambda stored: self.values.get(stored, tensors[stored].read()))
        element = np.ones(action.shape(structure))
        element.flat[unit] = factor
        action.take_along(weights, offset, element)
        self.values.update((stored, v.astype(tensors[stored].read().dtype)) for stored, v in weights.now.items())

    def _normalisation(self, gain: Place, unit: int, factor: float, action: Action) -> None:
        """Scale a unit in gain / sqrt(var + epsilon) and in bias - mean scale; mean and variance stay."""
        program = self.network.program
        for step in {id(s): s for s in program.affines.values() if s.gain == gain[0]}.values():
            bias = (step.bias, gain[1])
            (own,) = self.network.elements(self.site, gain)
            at = own == unit
            new = [self.values.get(program.weights[n], self.network.read(n)) for n in (*gain[:1], step.bias)]
            mean, var = (self.values.get(program.weights[n], self.network.read(n)) for n in (step.mean, step.var))
            scale, grown = (
                new[0] / np.sqrt(var + step.epsilon),
                [factor ** self.network.power(self.site, action, p).get(0, 0.0) for p in (gain, bias)],
            )
            shift = (new[1] - mean * scale) * grown[1] + mean * scale * grown[0]
            for name, old, values in ((gain[0], new[0], new[0] * grown[0]), (step.bias, new[1], shift)):
                self.values[program.weights[name]] = np.where(at, values, old).astype(old.dtype)

    def lower(self, mixture: Mixture, copy: int, rank: int, rng: np.random.Generator) -> None:
        """Leave one copy of one side of a product with a few directions of its units, in no special basis."""
        size = mixture.space.size
        basis = np.linalg.qr(rng.standard_normal((size, rank)))[0] if rank else np.zeros((size, 0))
        other = basis + 0.3 * rng.standard_normal(basis.shape) / np.sqrt(size)
        keep = basis @ np.linalg.inv(other.T @ basis) @ other.T
        for name, own in self.network.lines(mixture.action, mixture.side):
            stored = self.network.program.weights[name]
            old = self.values.get(stored, self.network.read(name))
            new = old.astype(np.float64)
            rows = np.stack([new[own == copy * size + u] for u in range(size)])
            for u, row in enumerate(keep @ rows):
                new[own == copy * size + u] = row
            self.values[stored] = new.astype(old.dtype)

    def save(self, out: Path) -> Path:
        """Write the network with the new values."""
        write(self.network.path, self.values, out)
        return out


@dataclass(frozen=True)
class Flaw:
    """A kind of flaw: the rule that must report it, where it can be planted, and how.

    ``plant`` returns the groups of units that it made flawed.
    """

    rule: str | None
    fits: Callable[[Network, Site], bool]
    plant: Callable[[Planting, np.random.Generator], list[list[int]]]


def _some(site: Site, rng: np.random.Generator, most: int = 2) -> list[int]:
    """A few units, never half of the space or all of a copy, which would be lost as a whole."""
    few = max(1, min(most, (site.count - 1) // 2))
    found = sorted(rng.choice(site.count, few, replace=False).tolist())
    copies = Counter(u // site.space.size for u in found)
    return [u for u in found if u != found[-1] or copies[u // site.space.size] < site.space.size]


def _pair(site: Site, rng: np.random.Generator) -> tuple[int, int]:
    """Two units of one copy."""
    copy = int(rng.integers(site.space.copies))
    one, other = rng.choice(site.space.size, 2, replace=False) + copy * site.space.size
    return int(one), int(other)


def _zeroed(roles: Roles) -> set[Place]:
    """Where a unit must be zero so that nothing writes it."""
    shifts = {p for p, part in roles.statistics.items() if part in ("gain", "bias")}
    return roles.writers | roles.adders | shifts


def _unread(value: float) -> Flaw:
    def fits(network: Network, site: Site) -> bool:
        if not network.zero(site.roles.readers):
            return False
        return not site.roles.met and abs(value) < UNSEEN * LARGEST ** (1 - network.steepness(site))

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        units = _some(planting.site, rng)
        planting.put(planting.site.roles.readers, units, value)
        return [units]

    return Flaw("SYM101", fits, plant)


def _unwritten(value: float) -> Flaw:
    def fits(network: Network, site: Site) -> bool:
        zeroed = _zeroed(site.roles)
        return network.zero(zeroed) and network.reads(site, zeroed) == {State.ZERO}

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        units = _some(planting.site, rng)
        planting.put(_zeroed(planting.site.roles), units, value)
        return [units]

    return Flaw("SYM101", fits, plant)


def _constant(value: float) -> Flaw:
    """Kernels are zero, biases are not; gains of normalisations become positive, so that no ReLU ends it."""

    def fits(network: Network, site: Site) -> bool:
        shifted = site.roles.adders or "bias" in site.roles.statistics.values()
        kernels = _kernels(network, site)
        found = network.reads(site, kernels)
        return (
            bool(shifted) and network.zero(kernels) and not site.roles.met and found <= {State.CONSTANT, State.BORDERED}
        )

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        units = _some(planting.site, rng)
        _still(planting, units, value)
        return [units]

    return Flaw("SYM102", fits, plant)


def _kernels(network: Network, site: Site) -> set[Place]:
    """Where a unit must be zero so that the input does not reach it."""
    return site.roles.writers | {p for p in site.roles.gains if len(network.program.shapes[p[0]]) > 2}


def _still(planting: Planting, units: Sequence[int], value: float = 0.0) -> None:
    """Leave units with a positive constant."""
    roles = planting.site.roles
    planting.put(_kernels(planting.network, planting.site), units, value)
    planting.put(roles.adders | {p for p, part in roles.statistics.items() if part == "bias"}, units, 1.25)
    planting.put({p for p, part in roles.statistics.items() if part == "mean"}, units, 0.0)
    gains = [p for p, part in roles.statistics.items() if part == "gain"]
    planting.change(gains, lambda old, own: np.where(np.isin(own, units), np.abs(old), old))


def _wide(network: Network, site: Site) -> bool:
    return network.fan_in(site) >= 4


def _equal() -> Flaw:
    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        one, other = _pair(planting.site, rng)
        planting.copy(planting.site.roles.own, one, other)
        return [sorted((one, other))]

    return Flaw("SYM201", _wide, plant)


def _multiple(factor: float) -> Flaw:
    def fits(network: Network, site: Site) -> bool:
        return _wide(network, site) and network.rescaling(site) is not None

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        one, other = _pair(planting.site, rng)
        own = planting.site.roles.own
        planting.copy(own, one, other)
        planting.multiply(own, other, factor, planting.network.rescaling(planting.site))
        return [sorted((one, other))]

    return Flaw("SYM201", fits, plant)


FLAWS = {
    "unread": _unread(0.0),
    "unwritten": _unwritten(0.0),
    "constant": _constant(0.0),
    "equal": _equal(),
    "multiple": _multiple(2.5),
    **{f"unread by {tiny:.0e}": _unread(-tiny) for tiny in TINY},
    **{f"unwritten by {tiny:.0e}": _unwritten(tiny) for tiny in TINY},
    **{f"constant by {tiny:.0e}": _constant(tiny) for tiny in TINY},
}


def _opposite() -> Flaw:
    """A unit that is another's negative, under an odd activation."""

    def fits(network: Network, site: Site) -> bool:
        return _wide(network, site) and network.rescaling(site, "sign") is not None and not site.roles.statistics

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        one, other = _pair(planting.site, rng)
        own = planting.site.roles.own
        planting.copy(own, one, other)
        planting.multiply(own, other, -1.0, planting.network.rescaling(planting.site, "sign"))
        return [sorted((one, other))]

    return Flaw("SYM201", fits, plant)


def _unbroken() -> Flaw:
    """All units of every copy are the first one."""

    def fits(network: Network, site: Site) -> bool:
        # Units of one weight each are multiples of one another, whatever the weights: a scale is all that they have.
        told = network.fan_in(site) > 1 or site.roles.adders or site.roles.statistics
        return bool(told) or network.rescaling(site) is None

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        space = planting.site.space
        groups = [list(range(k, k + space.size)) for k in range(0, planting.site.count, space.size)]
        for first, *others in groups:
            for other in others:
                planting.copy(planting.site.roles.own, first, other)
        return groups

    return Flaw("SYM203", fits, plant)


SAME = {"unbroken": _unbroken()}
"""A whole space of equal units, beside which no other flaw is told."""
TWINS = {"opposite": _opposite()}
"""Duplicates up to sign: the engine does not see them through everything."""
ROUND = {"multiple": _multiple(4.0)}
"""A multiple without a rounding: what a change of basis makes of one is more than a few of it."""


def _rescaled() -> Flaw:
    def fits(network: Network, site: Site) -> bool:
        return network.rescaling(site) is not None

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        unit = _some(planting.site, rng, 1)[0]
        places = planting.site.roles.own | planting.site.roles.readers
        planting.multiply(places, unit, 1000.0, planting.network.rescaling(planting.site))
        return [[unit]]

    return Flaw(None, fits, plant)


def _signed(functions: set[str], factor: float, *, homogeneous: bool) -> Flaw:
    """A pair of units of which one is a multiple that the activation does not pass."""

    def fits(network: Network, site: Site) -> bool:
        roles = site.roles
        shaped = roles.functions & functions and not roles.statistics and not roles.gains
        return bool(shaped) and _wide(network, site) and (network.rescaling(site) is not None) == homogeneous

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        one, other = _pair(planting.site, rng)
        planting.copy(planting.site.roles.own, one, other)
        planting.multiply(planting.site.roles.writers | planting.site.roles.adders, other, factor)
        return [sorted((one, other))]

    return Flaw(None, fits, plant)


def _shifted() -> Flaw:
    def fits(network: Network, site: Site) -> bool:
        told = site.roles.adders and not {name for name, _ in site.roles.adders} & network.taken_back
        return bool(told) and _wide(network, site) and not site.roles.met

    def plant(planting: Planting, rng: np.random.Generator) -> list[list[int]]:
        one, other = _pair(planting.site, rng)
        planting.copy(planting.site.roles.own - planting.site.roles.adders, one, other)
        return [sorted((one, other))]

    return Flaw(None, fits, plant)


LURES = {
    "rescaled and back": _rescaled(),
    "antipodal under ReLU": _signed(RECTIFIERS, -1.0, homogeneous=True),
    "multiple under a curve": _signed(SATURATING, 2.5, homogeneous=False),
    "another bias": _shifted(),
}


RANKS = {"one": lambda bound, rng: 1, "fewer": lambda bound, rng: int(rng.integers(1, max(2, bound // 2)))}
"""How far a product is lowered: below what it could have where a norm takes directions away as well."""


def flatten(path: Path, rule: str, how: str, out: Path, seed: int = 0) -> tuple[Mixture, int, int] | None:
    """Write a network with one copy of one product lowered: where, which copy, to which rank. None where none fits."""
    there = network(path)
    rng = np.random.default_rng([seed, *how.encode(), *rule.encode(), *path.stem.encode()])
    fitting = [m for m in there.mixtures if m.rule == rule]
    if not fitting:
        return None
    mixture = fitting[int(rng.integers(len(fitting)))]
    copy, rank = int(rng.integers(mixture.copies)), RANKS[how](mixture.bound, rng)
    planting = Planting(there)
    planting.lower(mixture, copy, rank, rng)
    planting.save(out)
    return mixture, copy, rank


@lru_cache(maxsize=4)
def network(path: Path) -> Network:
    """The network at a path, examined once."""
    return Network(path)


def plant(path: Path, name: str, out: Path, seed: int = 0) -> tuple[Site, list[list[int]]] | None:
    """Write the network at `path` with one flaw or lure in a randomly chosen space; None where it fits nowhere."""
    there, kind = network(path), (FLAWS | TWINS | SAME | LURES)[name]
    rng = np.random.default_rng([seed, *name.partition(" by ")[0].encode(), *path.stem.encode()])
    fitting = [site for site in there.sites if kind.fits(there, site)]
    if not fitting:
        return None
    site = fitting[int(rng.integers(len(fitting)))]
    planting = Planting(there, site)
    groups = kind.plant(planting, rng)
    planting.save(out)
    return site, groups


@dataclass(frozen=True)
class Damage:
    """A flaw planted in every copy of a space, with what a repair must take away."""

    kind: str
    rule: str
    space: Space
    action: Action
    units: tuple[int, ...]
    """The flawed units, copy-major; none of a product."""
    gone: tuple[int, ...]
    """Those that must go, equally many in every copy; of a product, the last units of every copy."""
    offsets: bool
    """Whether what the units contribute has to go into biases of what reads them."""


REPAIRED = {
    "unread": "SYM101", "unwritten": "SYM101", "constant": "SYM102", "equal": "SYM201", "multiple": "SYM201",
}  # fmt: skip
"""Kinds of flaws of units that a repair takes away, and the rule that tells of them."""


class Wreck:
    """A network with flaws in many of its spaces at once, made step by step."""

    def __init__(self, path: Path, seed: int = 0) -> None:
        self.network = network(path)
        self.planting = Planting(self.network)
        self.damages: list[Damage] = []
        self.rng = np.random.default_rng([seed, *path.stem.encode()])

    def flatten(self) -> None:
        """Lower every product that can be lowered alone, in all its copies, to half of what it could have.

        Those that take turns with others are lowered together with them or not at all.
        """
        sides: dict[int, Mixture] = {}
        for mixture in self.network.mixtures:
            sides.setdefault(mixture.action.leaf, mixture)
        for leaf, mixture in sides.items():
            group = self.network.rivals.get(leaf, {leaf})
            if not group <= sides.keys():
                continue
            size, rank = mixture.space.size, min(sides[x].bound for x in group) // 2
            if rank < 1 or any(sides[x].space.size != size for x in group):
                continue
            for copy in range(mixture.copies):
                self.planting.lower(mixture, copy, rank, self.rng)
            gone = [c * size + u for c in range(mixture.copies) for u in range(rank, size)]
            self.damages.append(
                Damage("low rank", mixture.rule, mixture.space, mixture.action, (), tuple(gone), offsets=False)
            )

    def fits(self, site: Site, kind: str, few: int) -> bool:
        """Whether so many units of every copy can be made flawed, and the rest is still no finding."""
        merged = kind == "constant" and not self._foldable(site)
        units = 2 if kind in ("equal", "multiple") else few
        if not FLAWS[kind].fits(self.network, site) or site.space.size < units + 2 or (merged and few < 2):
            return False
        return not self._starves(site, units)

    def alike(self, sites: Sequence[Site], kind: str) -> bool:
        """Whether equally many units of all sites must go."""
        return kind != "constant" or len({self._foldable(site) for site in sites}) == 1

    def _foldable(self, site: Site) -> bool:
        return self.network.reads(site, _kernels(self.network, site)) == {State.CONSTANT}

    def _starves(self, site: Site, units: int) -> bool:
        """Whether products would be left with fewer writers or readers than they have directions."""
        there = self.network
        for action in [a for a in there.structure.actions.values() if invertible(a)]:
            size = there.factors.size(action.leaf)
            for side in (1, -1):
                lines = [(n, own) for n, own in there.lines(action, side) if own.ndim > 1]
                shared = any(n in site.roles.parts for n, _ in lines)
                count = sum((own == 0).sum() for _, own in lines) - 1
                if shared and count * (site.space.size - units) // site.space.size <= min(size, count) - 1:
                    return True
        return False

    def plant(self, site: Site, kind: str, few: int = 1) -> None:
        """Make a few units of every copy of a space flawed."""
        size, roles = site.space.size, site.roles
        taken = {u for d in self.damages if d.space.id == site.space.id for u in d.units}
        units: list[int] = []
        gone: list[int] = []
        offsets = kind == "constant" and self._foldable(site)
        self.planting.site = site
        for copy in range(site.space.copies):
            free = [u for u in range(copy * size, copy * size + size) if u not in taken]
            pair = kind in ("equal", "multiple")
            mine = sorted(self.rng.choice(free, 2 if pair else few, replace=False).tolist())
            units += mine
            gone += mine if kind.startswith("un") or offsets else mine[1:]
            if kind == "equal":
                self.planting.copy(roles.own, mine[0], mine[1])
            elif kind == "multiple":
                self.planting.copy(roles.own, mine[0], mine[1])
                self.planting.multiply(roles.own, mine[1], 2.0, self.network.rescaling(site))
        if kind == "unread":
            self.planting.put(roles.readers, units, 0.0)
        elif kind == "unwritten":
            self.planting.put(_zeroed(roles), units, 0.0)
        elif kind == "constant":
            _still(self.planting, units)
        self.damages.append(
            Damage(kind, REPAIRED[kind], site.space, site.action, tuple(units), tuple(gone), offsets=offsets)
        )

    def save(self, out: Path) -> Path:
        """Write the network as it is now."""
        return self.planting.save(out)

    # -- what must be left ----------------------------------------------------------------------------------------
    def left(self, name: str) -> np.ndarray:
        """Which elements of a weight of the program stay."""
        alive = np.ones(self.network.program.shapes[name], bool)
        for damage in self.damages:
            sizes = [self.network.factors.size(c) for c in damage.action.copies]
            for stand in stands(
                self.network.structure.expansion, self.network.axes[name], damage.action.leaf, damage.action.copies
            ):
                alive &= ~np.isin(_owners(stand, alive.shape, sizes, damage.space.size), damage.gone)
        return alive

    def sizes(self) -> dict[str, int]:
        """Stored tensor -> the number of its elements that stay, without biases that have to be made."""
        return {stored: int(self.left(name).sum()) for name, stored in self.network.program.weights.items()}

    def biases(self) -> int:
        """Elements of the biases that have to be made, where what constants contribute finds none."""
        count, seen = 0, set[str]()
        for damage in [d for d in self.damages if d.offsets]:
            roles = self.network.roles(damage.action)
            for name, axis in roles.readers:
                for step in self._contractions(name):
                    if step.node.outputs[0] not in seen and not self._biased(step.node):
                        seen.add(step.node.outputs[0])
                        alive = self.left(name)
                        where = 0 if step.node.op == "Conv" else 1 - axis if alive.ndim == 2 else axis + 1
                        rest = tuple(k for k in range(alive.ndim) if k != where)
                        count += int(alive.any(axis=rest).sum())
        return count

    def _contractions(self, weight: str) -> Iterator[Einsum]:
        """The steps that sum over the units with a weight."""
        program = self.network.program
        behind = {made for made, found in self.network.sources.items() if any(w == weight for w, _ in found)}
        for step in program.steps:
            if isinstance(step, Einsum) and step.out not in self.network.sources and behind & set(step.operands):
                yield step

    def _biased(self, node: Node) -> bool:
        """Whether a contraction has a bias of its own, or an addition of stored numbers right behind."""
        model = self.network.program.model
        if node.op in ("Conv", "ConvTranspose", "Gemm"):
            return len(node.inputs) > 2 and bool(node.inputs[2])
        uses = [n for n in model.graph.nodes if node.outputs[0] in n.inputs]
        stored = {*model.tensors, *model.constants}
        return len(uses) == 1 and uses[0].op == "Add" and bool(stored & set(uses[0].inputs))


def wreck(path: Path, kinds: Sequence[str] = tuple(REPAIRED), seed: int = 0) -> Wreck:
    """A network of which every product is low in rank and every other space has one kind of flaw, in turns."""
    made = Wreck(path, seed)
    made.flatten()
    turn = int(made.rng.integers(len(kinds)))
    sites = {site.action.leaf: site for site in made.network.sites}
    seen: set[int] = set()
    for leaf, site in sites.items():
        group = made.network.rivals.get(leaf, frozenset([leaf]))
        if leaf in seen or not group <= sites.keys() or any(sites[x].space.size != site.space.size for x in group):
            continue
        seen |= group
        few = max(2, min(3, site.space.size // 4))
        for k in range(len(kinds)):
            kind = kinds[(turn + k) % len(kinds)]
            if all(made.fits(sites[x], kind, few) for x in group) and made.alike([sites[x] for x in group], kind):
                for x in sorted(group):
                    made.plant(sites[x], kind, few)
                turn += k + 1
                break
    return made
