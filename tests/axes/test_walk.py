"""The law of the walk: on random networks of cuts, groupings, sums and products, what is claimed is true.

A network here is a list of primitive steps with their meaning in numpy. Every weight's axes are free; each generator
that the engine claims moves the weights, and then every tensor of the network must have moved as claimed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations, product
from math import prod

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symlint.model.graph import Graph, Model, Node, Tensor
from symlint.program.lower import Ref, Tracer
from symlint.program.steps import SUM, Program
from symlint.symmetry.axes.terms import Expansion, together
from symlint.symmetry.axes.walk import walk
from symlint.symmetry.inference import _Report
from symlint.symmetry.motion.action import permute, scale, stands
from symlint.symmetry.structure import Action

Values = dict[str, np.ndarray]


@dataclass
class Net:
    """Primitive steps, and what each of them computes."""

    tracer: Tracer = field(default_factory=lambda: Tracer(Node("Test", "test", (), ("t",), {}, 21), []))
    weights: Values = field(default_factory=dict)
    meaning: list[tuple[str, Callable[[Values], np.ndarray]]] = field(default_factory=list)
    refs: list[Ref] = field(default_factory=list)

    def weight(self, *shape: int) -> Ref:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.random.default_rng(len(self.weights)).normal(size=shape)
        return self._keep(Ref(name, shape))

    def _keep(self, ref: Ref) -> Ref:
        self.refs.append(ref)
        return ref

    def _means(self, ref: Ref, function: Callable[[Values], np.ndarray]) -> Ref:
        self.meaning.append((ref.name, function))
        return self._keep(ref)

    def reshape(self, x: Ref, shape: tuple[int, ...]) -> Ref:
        return self._means(self.tracer.reshape(x, shape), lambda v: v[x.name].reshape(shape))

    def transpose(self, x: Ref, order: tuple[int, ...]) -> Ref:
        return self._means(self.tracer.transpose(x, order), lambda v: v[x.name].transpose(order))

    def concat(self, parts: list[Ref], axis: int) -> Ref:
        return self._means(self.tracer.concat(parts, axis), lambda v: np.concatenate([v[p.name] for p in parts], axis))

    def slice(self, x: Ref, axis: int, start: int, stop: int) -> Ref:
        cut = (*[slice(None)] * axis, slice(start, stop))
        return self._means(self.tracer.slice(x, axis, start, stop), lambda v: v[x.name][cut])

    def add(self, a: Ref, b: Ref) -> Ref:
        return self._means(self.tracer.pointwise(SUM, a, b), lambda v: v[a.name] + v[b.name])

    def multiply(self, a: Ref, b: Ref) -> Ref:
        return self._means(self.tracer.multiply(a, b), lambda v: v[a.name] * v[b.name])

    def relu(self, a: Ref) -> Ref:
        return self._means(self.tracer.apply(a, 1, "Relu"), lambda v: np.maximum(v[a.name], 0))

    def tanh(self, a: Ref) -> Ref:
        return self._means(self.tracer.apply(a, None, "Tanh"), lambda v: np.tanh(v[a.name]))

    def total(self, a: Ref, axis: int) -> Ref:
        labels = [f"a{k}" for k in range(a.rank)]
        made = " ".join(x for k, x in enumerate(labels) if k != axis)
        return self._means(self.tracer.einsum(f"{' '.join(labels)} -> {made}", a), lambda v: v[a.name].sum(axis))

    def matmul(self, a: Ref, b: Ref) -> Ref:
        return self._means(self.tracer.einsum("m k, k n -> m n", a, b), lambda v: v[a.name] @ v[b.name])

    def gram(self, a: Ref) -> Ref:
        return self.matmul(a, self.transpose(a, (1, 0)))

    def pairs(self, a: Ref) -> Ref:
        """Every row against every row: a sum that holds the first axis twice."""
        first = self.reshape(a, (a.shape[0], 1, *a.shape[1:]))
        second = self.reshape(a, (1, *a.shape))
        return self._means(self.tracer.pointwise(SUM, first, second), lambda v: v[first.name] + v[second.name])

    def softmax(self, a: Ref, axis: int) -> Ref:
        def meaning(v: Values) -> np.ndarray:
            e = np.exp(v[a.name] - v[a.name].max(axis, keepdims=True))
            return e / e.sum(axis, keepdims=True)

        return self._means(self.tracer.normalise(a, [axis]), meaning)

    def values(self, weights: Values) -> Values:
        made = dict(weights)
        for name, function in self.meaning:
            if name not in made:
                made[name] = function(made)
        return made

    def program(self) -> Program:
        def stored(name: str, values: np.ndarray) -> Tensor:
            return Tensor(name, values.shape, "float32", lambda: values)

        tensors = {name: stored(name, values) for name, values in self.weights.items()}
        model = Model("m", None, 21, "", Graph((), (), ()), tensors, {}, {}, {}, {})
        shapes = {**{n: v.shape for n, v in self.weights.items()}, **self.tracer.shapes}
        return Program(
            model, tuple(self.tracer.steps), shapes, (), (), {n: n for n in self.weights}, self.tracer.tables
        )


KINDS = ("permutation", "rescaling", "sign")


def broken(net: Net) -> list[str]:
    """Which claims about a network are false."""
    program = net.program()
    axes = walk(program)
    report = _Report(program, axes, Expansion(axes.factors))
    before = net.values(net.weights)
    found: list[str] = []
    for action in report.generators.actions():
        if action.kind not in KINDS:
            continue
        g = element(report, action)

        def act(name: str, action: Action = action, g: np.ndarray = g) -> np.ndarray:
            charge = {(o.axis, o.term, o.place): c for o, c in action.charge.items() if o.tensor == name}
            if action.kind != "permutation" and not charge:
                return before[name]
            places = list(stands(report.expansion, axes.of[name], action.leaf, action.copies))
            return (
                permute(before[name], places, g)
                if action.kind == "permutation"
                else scale(before[name], places, g, charge)
            )

        after = net.values({name: act(name) for name in net.weights})
        found.extend(
            f"{action.kind} of leaf {action.leaf} (copies {action.copies}) at {name}"
            for name in before
            if name in axes.of and not np.allclose(act(name), after[name], rtol=1e-9, atol=1e-9)
        )
    return found


def element(report: _Report, action: Action) -> np.ndarray:
    """A cycle of the units, or factors away from 1, for every copy."""
    rng = np.random.default_rng(5)
    shape = (*(report.factors.size(c) for c in action.copies), report.factors.size(action.leaf))
    if action.kind == "sign":
        return np.full(shape, -1.0)
    if action.kind == "rescaling":
        return np.exp(rng.uniform(0.2, 1.0, shape))
    rows = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
    order = np.empty(shape, np.int64)
    np.put_along_axis(order, rows, np.roll(rows, 1, axis=-1), axis=-1)
    return order


def groupings(size: int, rank: int = 3) -> list[tuple[int, ...]]:
    """Every shape of `size` elements with up to `rank` axes of two or more."""
    if rank == 1 or size == 1:
        return [(size,)]
    inner = [(n, *rest) for n in range(2, size) if size % n == 0 for rest in groupings(size // n, rank - 1)]
    return [(size,), *inner]


@st.composite
def nets(draw: st.DrawFn, steps: int = 7) -> Net:
    """A random network of up to `steps` steps over a few small weights."""
    net = Net()
    for _ in range(draw(st.integers(1, 3))):
        net.weight(*draw(st.sampled_from([(2,), (4,), (6,), (12,), (2, 3), (3, 4), (4, 6), (6, 4), (2, 2, 3)])))
    for _ in range(draw(st.integers(1, steps))):
        x = draw(st.sampled_from(net.refs))
        choices = ["reshape", "relu", "tanh"]
        axis = draw(st.integers(0, x.rank - 1))
        size = x.shape[axis]
        same = [r for r in net.refs if r.shape == x.shape]
        fits = [r for r in net.refs if r.rank == x.rank and _without(r.shape, axis) == _without(x.shape, axis)]
        right = [r for r in net.refs if x.rank == r.rank == 2 and x.shape[1] == r.shape[0]]
        rows = [r for r in net.refs if r.rank < x.rank and x.shape[x.rank - r.rank :] == r.shape]
        choices += ["transpose", "total", "softmax"] * (x.rank > 1) + ["matmul"] * bool(right)
        choices += ["slice", "slice"] * (size > 1) + ["add", "multiply"] + ["broadcast"] * bool(rows)
        choices += ["concat", "concat"] * (prod(x.shape) <= 48)
        choices += ["gram"] * (x.rank == 2) + ["pairs"] * (x.rank < 3 and size > 1 and x.shape[0] > 1)
        match draw(st.sampled_from(choices)):
            case "reshape":
                net.reshape(x, draw(st.sampled_from(groupings(prod(x.shape)))))
            case "relu":
                net.relu(x)
            case "tanh":
                net.tanh(x)
            case "transpose":
                net.transpose(x, tuple(draw(st.permutations(range(x.rank)))))
            case "total":
                net.total(x, axis)
            case "softmax":
                net.softmax(x, axis)
            case "matmul":
                net.matmul(x, draw(st.sampled_from(right)))
            case "gram":
                net.gram(x)
            case "pairs":
                net.pairs(x)
            case "slice":
                start = draw(st.integers(0, size - 1))
                net.slice(x, axis, start, draw(st.integers(start + 1, size)))
            case "add":
                net.add(x, draw(st.sampled_from(same)))
            case "multiply":
                net.multiply(x, draw(st.sampled_from(same)))
            case "broadcast":
                net.add(x, draw(st.sampled_from(rows)))
            case "concat":
                net.concat([x, draw(st.sampled_from(fits))], axis)
    return net


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(nets())
def test_every_claim_about_a_random_network_holds(net):
    """Moving the weights by a claimed generator moves every tensor of a random network as claimed."""
    assert not broken(net), [(type(s).__name__, s) for s in net.program().steps]


def partition(expansion: Expansion, axes: tuple[int, ...]) -> bool:
    """Whether the consistent terms of a tensor's axes cover every element exactly once."""
    rows = [expansion.terms(f) for f in axes]
    count = np.zeros([expansion.factors.size(f) for f in axes], int)
    for picks in product(*rows):
        if all(together(a, b) is not None for a, b in combinations(picks, 2)):
            count[np.ix_(*(term.positions.reshape(-1) for term in picks))] += 1
    return bool((count == 1).all())


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(nets())
def test_terms_cover_every_element_once(net):
    """The terms of a tensor's axes whose conditions agree are a partition of its elements."""
    axes = walk(net.program())
    expansion = Expansion(axes.factors)
    for name, factors in axes.of.items():
        assert partition(expansion, factors), name


def gram(net: Net) -> None:
    x = net.weight(2, 3)
    net.matmul(x, net.transpose(x, (1, 0)))


def gram_of_pieces(net: Net) -> None:
    x = net.weight(2, 3)
    net.slice(x, 0, 0, 1)
    net.matmul(x, net.transpose(x, (1, 0)))


def gram_of_stacked_rows(net: Net) -> None:
    """Rows of their own, every product of two of them, and of the flattened square its lower triangle."""
    x = net.concat([net.weight(1, 4) for _ in range(3)], 0)
    products = net.reshape(net.gram(x), (9,))
    net.concat([net.slice(products, 0, a, b) for a, b in ((3, 4), (6, 8))], 0)


def gram_cut_on_either_axis(net: Net) -> None:
    x = net.concat([net.weight(1, 4), net.weight(3, 4)], 0)
    products = net.gram(x)
    for axis in (0, 1):
        net.slice(net.slice(products, axis, 0, 1), 1 - axis, 1, 3)
        net.slice(products, axis, 2, 4)


def gram_of_cut_columns(net: Net) -> None:
    x = net.concat([net.weight(3, 2), net.weight(3, 4)], 1)
    square = net.matmul(net.transpose(x, (1, 0)), x)
    net.slice(net.reshape(square, (36,)), 0, 7, 20)


def rows_against_rows(net: Net) -> None:
    """A family that meets itself at two values of its index."""
    x = net.weight(4, 3)
    net.slice(x, 0, 0, 1)
    net.slice(net.pairs(x), 1, 1, 3)


def part_of_the_same_twice(net: Net) -> None:
    """A family on an axis beside a sum that is there once and a half."""
    x = net.weight(2, 3)
    net.slice(x, 1, 0, 1)
    net.slice(net.concat([x, x], 1), 1, 0, 4)


def group_behind_a_cut(net: Net) -> None:
    x = net.weight(2, 2, 3)
    net.slice(x, 0, 0, 1)
    net.reshape(x, (2, 6))


def group_across_a_cut(net: Net) -> None:
    x = net.weight(4, 6)
    net.slice(x, 0, 0, 1)
    net.reshape(x, (2, 12))


def square_weight_of_pieces(net: Net) -> None:
    """Both axes of a weight are a sum on which the columns that it mixes depended."""
    x = net.concat([net.weight(4, 3), net.weight(4, 3)], 0)
    net.add(x, net.matmul(net.weight(8, 8), x))


def shuffled(net: Net, a: Ref, b: Ref) -> Ref:
    """Two vectors of channels, in turns."""
    rows = [net.reshape(x, (1, *x.shape)) for x in (a, b)]
    return net.reshape(net.transpose(net.concat(rows, 0), (1, 0)), (2 * a.shape[0],))


def shuffle_of_a_shuffle(net: Net) -> None:
    """What passes a block by keeps the shuffle of the last one, and a shortcut makes both shuffles one factor."""
    first = net.weight(8)
    made = [first]
    for _ in range(2):
        x = made[-1]
        made.append(shuffled(net, net.tanh(net.slice(x, 0, 0, 4)), net.slice(x, 0, 4, 8)))
    last = net.add(net.multiply(made[-1], net.weight(8)), net.weight(8))
    for x in reversed(made):
        last = shuffled(net, net.tanh(net.slice(last, 0, 0, 4)), net.slice(last, 0, 4, 8))
        last = net.add(x, last)


@pytest.mark.parametrize(
    "build",
    [
        gram,
        square_weight_of_pieces,
        shuffle_of_a_shuffle,
        gram_of_pieces,
        gram_of_stacked_rows,
        gram_cut_on_either_axis,
        gram_of_cut_columns,
        rows_against_rows,
        part_of_the_same_twice,
        group_behind_a_cut,
        group_across_a_cut,
    ],
)
def test_what_random_networks_found(build):
    """Every claim holds on the smallest networks on which one once failed."""
    net = Net()
    build(net)
    assert not broken(net)
