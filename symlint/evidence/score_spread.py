"""How far the scores of an attention head can be apart, for any input that a normalisation makes.

Queries are affine in a normalised vector, and so are keys. With u and v no longer than R and S, the score of the query
A u + a with the keys B v + b differs between two keys by at most 2 S (R sigma(A^T B) + |B^T a|): that holds in every
basis of the head, and gains are part of A and B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod, sqrt

import numpy as np

from symlint.analysis.ranges import Normalised
from symlint.evidence.context import Context
from symlint.evidence.products import general_linear
from symlint.model.graph import Array, Tensor
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers, exactly, ungroup
from symlint.program.steps import Einsum, Mix, Program, Step, Unknown, rearranges
from symlint.symmetry.spaces import Space

PROBES = 8
GONE = -1e3
"""What takes a key out when it is added to its score."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What is known of the heads of one attention."""

    space: Space
    heads: tuple[float, ...]
    """Head by head the largest difference of two scores of a query; infinite where none is known to be small."""


@dataclass(frozen=True, slots=True)
class _Side:
    """Queries or keys as an affine function of a normalised vector."""

    radius: float
    linear: Array
    """(labels of the groups..., heads of the group, length of the vector, units of a head)."""
    offset: Array
    """(labels of the groups..., heads of the group, units of a head)."""


def spreads(context: Context, least: float) -> Iterator[Spread]:
    """The attentions with heads of which the scores are closer together than `least`."""
    if any(step.function == "Softmax" for step in context.structure.program.norms):
        yield from _Search(context, least).run()


class _Search:
    def __init__(self, context: Context, least: float) -> None:
        self.context, self.least = context, least
        self.program: Program = context.structure.program
        tensors = self.program.model.tensors
        self.numbers = Numbers(self.program, lambda name: tensors[self.program.weights[name]].read())
        self.normalised = Normalised(self.program, self.numbers)
        self.learned = {n for n, stored in self.program.weights.items() if not _masking(tensors[stored])}
        for step in self.program.steps:
            if not self.learned.isdisjoint(step.operands):
                self.learned.update(step.results)
        kinds = self.program.model.dtypes
        self.flags = {n for n in self.program.inputs if "float" not in kinds.get(n, "float32")}
        """What is computed of whole numbers alone, and not in the order of places, as masks are."""
        given = self.program.fixed - self.learned
        for step in self.program.steps:
            ordered = isinstance(step, Mix) and not step.kind.chooses and not step.kind.fills
            unknown = isinstance(step, Unknown) and (step.opaque or len(step.operands) > 0)
            known = all(name in self.flags or name in given for name in step.operands)
            if not ordered and not unknown and known:
                self.flags.update(set(step.results) - self.program.fixed)
        spaces = {s.id: s for s in reversed(context.symmetry.spaces)}
        actions = context.structure.actions.values()
        linear = [(a.leaf, spaces.get(a.space)) for a in actions if general_linear(a)]
        self.linear = [(leaf, space) for leaf, space in linear if space is not None]
        """The leaves on which all invertible matrices act, with their spaces."""
        self.readers: dict[str, list[Step]] = {}
        for step in self.program.steps:
            for name in step.operands:
                self.readers.setdefault(name, []).append(step)

    def run(self) -> Iterator[Spread]:
        for step in self.program.contractions:
            if len(step.operands) != 2 or not self.normalised.truth.told(step):
                continue
            factor = self._factor(step)
            if factor is None or not all(name in self.context.moving for name in step.operands):
                continue
            space = self._space(step)
            found = None if space is None else self._heads(step, factor)
            self.numbers.forget()  # no two attentions have the same weights
            if space is not None and found is not None:
                yield Spread(space, found)

    # -- from the scores to the softmax ---------------------------------------------------------------------------
    def _factor(self, step: Einsum) -> float | None:
        """By what scores are multiplied before they go into a softmax along the keys; None where they do not."""
        keys = [k for k, axis in enumerate(step.result) if axis and set(axis) <= _only(step, 1)]
        if len(keys) != 1:
            return None
        name, place, factor = step.out, keys[0], 1.0
        if not exactly(step):
            width = prod(step.sizes[label] for label in _contracted(step))
            if not step.node.op.endswith("Attention"):
                return None
            factor = float(step.node.attributes.get("scale") or 1 / sqrt(width))
        while True:
            after = self.readers.get(name, [])
            if len(after) != 1:
                return None
            if after[0].joint:
                return factor if after[0].function.startswith("Softmax") and after[0].joint == (place,) else None
            through = self._through(after[0], name, place)
            if through is None:
                return None
            name, place, factor = through[0], through[1], factor * through[2]

    def _through(self, step: Step, name: str, place: int) -> tuple[str, int, float] | None:
        """What a step makes of scores, where the keys are then, and by what it multiplies differences at most."""
        if rearranges(step):
            spot = [k for k, axis in enumerate(step.result) if axis == step.specs[0][place]]
            return (step.out, spot[0], 1.0) if len(spot) == 1 else None
        if not step.elementwise or len(self.program.shapes[step.results[0]]) != len(self.program.shapes[name]):
            return None
        (out,) = step.results
        others = [n for n in step.operands if n != name]
        if step.function in ("Identity", "Tanh"):
            return out, place, 1.0
        if step.function in ("Mul", "Div") and len(others) == 1 and others[0] in self.program.fixed:
            number = np.abs(self.numbers.value(others[0]).astype(np.float64))
            if step.function == "Div":
                number = 1 / number if step.operands[0] == name and number.all() else np.full(1, np.inf)
            return out, place, float(number.max())
        masked = step.function in ("Add", "Sub", "Where") and all(self._mask(step, n) for n in others)
        return (out, place, 1.0) if masked else None

    def _mask(self, step: Step, name: str) -> bool:
        """Whether what is put to scores only takes keys out."""
        if step.function == "Where" and name == step.operands[0]:
            return name not in self.learned
        if name not in self.program.fixed:
            return name in self.flags and step.function != "Where"
        values = self.numbers.value(name) if name not in self.learned else np.ones(1)
        values = -values if step.function == "Sub" else values
        return bool(np.all((values == 0) & (step.function != "Where") | (values <= GONE)))

    def _heads(self, step: Einsum, factor: float) -> tuple[float, ...] | None:
        for probes in (PROBES, 0):
            q, k = self._side(step, 0, probes), self._side(step, 1, probes)
            if q is None or k is None:
                return None
            groups = np.broadcast_shapes(*(x.shape[:-n] for s in (q, k) for x, n in ((s.linear, 3), (s.offset, 2))))
            a, b, offset = (_whole(x, groups) for x in (q.linear, k.linear, q.offset))
            widest = np.zeros((len(a), a.shape[1]))
            for group, head in np.ndindex(*widest.shape):
                first, second = a[group, head], b[group, min(head, b.shape[1] - 1)]
                shift = offset[group, min(head, offset.shape[1] - 1)]
                most = _seen(first, shift, second) if probes else _most(q.radius, k.radius, first, shift, second)
                widest[group, head] = abs(factor) * most
            widest = widest.reshape(*groups, -1).max(axis=self._examples(step)).reshape(-1, widest.shape[1])
            if not (widest.max(axis=1) < self.least).any():
                return None
        return tuple(np.where(widest < self.least, widest, np.inf).max(axis=1).tolist())

    def _examples(self, step: Einsum) -> tuple[int, ...]:
        """Which labels of the groups tell no heads but examples or places: no weight has them."""
        axes, weights = self.context.structure.axes, self.program.weights.keys()
        found: list[int] = []
        for place, label in enumerate(_groups(step)):
            held = [f for f, axis in zip(axes.of[step.operands[0]], step.specs[0], strict=True) if axis == (label,)]
            leaves = {x for f in held for x in axes.factors.leaves(f)}
            if held and all(weights.isdisjoint(axes.factors.holders.get(x, ())) for x in leaves):
                found.append(place)
        return tuple(found)

    def _side(self, step: Einsum, k: int, probes: int) -> _Side | None:
        found = self.normalised.affine(step.operands[k], probes)
        if found is None:
            return None
        linear, offset = _parts(step, k, found.linear, 1), _parts(step, k, found.offset, 0)
        return None if linear is None or offset is None else _Side(found.radius, linear, offset[..., 0, :])

    def _space(self, step: Einsum) -> Space | None:
        """The space of the units that are summed over."""
        structure = self.context.structure
        lost = _contracted(step)
        leaves = {
            x
            for axis, f in zip(step.specs[0], structure.axes.of[step.operands[0]], strict=True)
            if lost.intersection(axis)
            for x in structure.axes.factors.leaves(f)
        }
        return next((space for leaf, space in self.linear if leaf in leaves), None)


def _parts(step: Einsum, k: int, values: Array, lead: int) -> Array | None:
    """(labels of the groups..., heads of the group, vectors, units), where nothing else varies, such as with the place.

    A label of the groups along which all is the same has size 1.
    """
    front = ("~",) if lead else ()
    spread = ungroup(values, (*((label,) for label in front), *step.specs[k]), step.sizes)
    groups, units = _groups(step), _contracted(step)
    own = {label for label in spread.labels if label not in front and label not in units and label not in groups}
    sizes = dict(zip(spread.labels, spread.values.shape, strict=True))
    if k == 1 and any(sizes[x] > 1 for x in own):
        return None
    order = [*([x] for x in groups), *([x for x in spread.labels if x in part] for part in (own, set(front), units))]
    moved = spread.values.transpose([spread.labels.index(x) for part in order for x in part])
    moved = np.broadcast_to(moved, [step.sizes[x] if x in units else sizes[x] for part in order for x in part])
    return moved.reshape([prod(step.sizes[x] if x in units else sizes[x] for x in part) for part in order])


def _groups(step: Einsum) -> list[str]:
    """The labels that queries, keys and scores share, in the order of the queries."""
    shared = set(_every(step.specs[1])) & set(_every(step.result))
    return [label for label in _every(step.specs[0]) if label in shared]


def _whole(x: Array, groups: Sequence[int]) -> Array:
    """Values for every group, one behind the other."""
    rest = x.shape[len(groups) :]
    return np.broadcast_to(x, (*groups, *rest)).reshape(-1, *rest)


def _masking(tensor: Tensor) -> bool:
    """Whether a stored number is one of those that masks are made of."""
    return tensor.size == 1 and (not np.any(tensor.read()) or bool(np.all(tensor.read() <= GONE)))


def _most(r: float, s: float, a: Array, offset: Array, b: Array) -> float:
    """The bound, from what queries and keys make of a basis of the vectors."""
    sigma = float(np.linalg.norm(np.linalg.qr(a)[1] @ np.linalg.qr(b)[1].T, 2))
    return 2 * s * (r * sigma + float(np.linalg.norm(b @ offset)))


def _seen(a: Array, offset: Array, b: Array) -> float:
    """What some vectors show: never more than the bound."""
    return float(np.ptp((a + offset) @ b.T, axis=1).max())


def _every(spec: Sequence[Sequence[str]]) -> list[str]:
    return [label for axis in spec for label in axis]


def _contracted(step: Einsum) -> set[str]:
    return {x for spec in step.specs for x in _every(spec)} - set(_every(step.result))


def _only(step: Einsum, k: int) -> set[str]:
    return set(_every(step.specs[k])) - set(_every(step.specs[1 - k]))
