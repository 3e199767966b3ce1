"""Branches: parts of a network that compute alike on weights of their own, and so can change places.

Towers, experts, groups and gates that an exporter wrote out one by one are no axis of any tensor; an exchange of two is
an automorphism of the program. Vertices whose colour, refined by their neighbours' until nothing changes
(Weisfeiler and Leman), is theirs alone stay where they are; without them the graph falls apart, and the parts that are
isomorphic hang on the rest in the same way.

A program as a coloured graph: its automorphisms are the ways to exchange branches that compute alike.

Connected components of an undirected graph.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import numpy as np

from symlint.model.graph import Array, Graph, Node
from symlint.model.records import dataclass
from symlint.program.flow import Passages
from symlint.program.functions import dispatched
from symlint.program.steps import Affine, Concat, Einsum, Normalise, Pointwise, Program, Slice, Step, Unknown
from symlint.symmetry.axes.arena import Form
from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.motion.action import Index

Vertex = tuple[str, str | int]
"""``("tensor", name)``, ``("step", number)``, ``("node", id)``, ``("shapeless", name)`` of a value of the model,
``("factor", root)`` or ``("member", ...)`` of one."""
Edge = tuple[Vertex, Vertex, str]

COMMUTATIVE = frozenset(("Add", "Mul", "Sum", "Max", "Min", "Mean", "And", "Or", "Xor", "Equal"))
ASSOCIATIVE = frozenset(("Add", "Mul", "Sum", "Max", "Min"))
NORMS = ("Norm", "Softmax", "Hardmax")
"""In the names of operators that normalise; a norm that was recognised in others does not keep its epsilon."""
SMALL = 1 << 16
"""Elements of a constant up to which its value is compared, and not its name."""


@dataclass(frozen=True, slots=True)
class Call:
    """A step, or a tree of sums, as a vertex."""

    vertex: Vertex
    step: Step
    operands: tuple[str, ...]
    results: tuple[str, ...]


class Coloured:
    """Tensors, steps and factors as vertices; the colour says all of a vertex that an exchange must keep."""

    def __init__(self, program: Program, axes: Axes) -> None:
        self.program, self.axes, self.factors = program, axes, axes.factors
        self.colours: dict[Vertex, Hashable] = {}
        self.edges: list[Edge] = []
        self.calls = tuple(self._called())
        for name in {name: None for call in self.calls for name in (*call.operands, *call.results)}:
            self._tensor(name)
        for call in self.calls:
            alike = self.commutes(call.step)
            for k, name in enumerate(call.operands):
                self.edges.append((("tensor", name), call.vertex, "reads" if alike else f"reads {k}"))
            self.edges += [(call.vertex, ("tensor", name), f"makes {k}") for k, name in enumerate(call.results)]
            if not call.step.complete:
                # One step of a node may read what decides the values of another: the indices of a lookup.
                node = ("node", id(call.step.node))
                self.colours[node] = "node"
                self.edges += [(call.vertex, node, "of"), *self._shapeless(call.step.node)]
        todo = [root for kind, root in dict.fromkeys(b for _, b, _ in self.edges) if kind == "factor"]
        while todo:
            todo += self._factor(int(todo.pop()))

    def _called(self) -> Iterator[Call]:
        """The steps in order; a sum of sums, or another operation that is associative, is one."""
        program, made = self.program, Counter[int]()
        inner: dict[str, tuple[str, ...]] = {}
        readers = {name: step for step in program.steps for name in step.operands}
        for number, step in enumerate(program.steps):
            made[id(step.node)] += 1
            read = tuple(part for name in step.operands for part in inner.get(name, (name,)))
            if step.function in ASSOCIATIVE:
                (out,) = step.results
                last = out in program.outputs or program.reads[out] != 1
                if not last and out in readers and readers[out].function == step.function:
                    inner[out] = read
                    continue
                colour: Hashable = (step.function, len(read))
            elif step.complete:
                colour = (type(step).__name__, self._kept(step))
            else:
                colour = (type(step).__name__, made[id(step.node)], self._signature(step.node), self._kept(step))
            vertex = ("step", number)
            self.colours[vertex] = colour
            yield Call(vertex, step, read, step.results)

    def free(self, f: int) -> bool:
        """Whether the pieces of a sum may change places: each is told from the others, and none must keep its place."""
        pieces = self.factors.pieces(f)
        loose = self.factors.form(f) is Form.SUM and len(set(pieces)) == len(pieces)
        return loose and not self._fixed.intersection(self.factors.below(f))

    @cached_property
    def _fixed(self) -> set[int]:
        """Factors, single units too, whose order the outside sees, or by which a step acts."""
        program, of = self.program, self.axes.of
        held = [f for name in (*program.inputs, *program.outputs) for f in of.get(name, ())]
        held += [f for step in program.unknowns for name in (*step.operands, *step.outs) for f in of[name]]
        for mix in program.mixes:
            held += [of[mix.x][k] for k in mix.across(len(of[mix.x]))]
            held += [f for k, f in zip(mix.keep, of[mix.out], strict=True) if k is None]
        for name, table in program.tables.items():
            held += [f for k, f in enumerate(of[name]) if table.size and (table != table.take([0], axis=k)).any()]
        return {x for f in held for x in self.factors.below(f)} | set(self.factors.pins)

    def _shapeless(self, node: Node) -> Iterator[Edge]:
        """What joins a node to others by values that are no tensors of the program, since their shape is unknown."""
        model = self.program.model
        for word, names in (("takes", node.inputs), ("gives", node.outputs)):
            for k, name in enumerate(names):
                if name and name not in model.shapes:
                    vertex = ("shapeless", name)
                    self.colours[vertex] = ("outside", name) if name in model.graph.outputs else "shapeless"
                    yield ("node", id(node)), vertex, f"{word} {k}"

    def _tensor(self, name: str) -> None:
        program, vertex = self.program, ("tensor", name)
        colour: tuple[Hashable, ...]
        if name in program.inputs or name in program.outputs:
            colour = ("outside", name)
        elif name in program.detached:
            colour = ("detached", program.detached[name])
        elif name in program.weights:
            stored = program.model.tensors[program.weights[name]]
            colour = ("weight", stored.shape, stored.dtype)
        elif name in program.tables:
            colour = ("table", _digest(program.tables[name]))
        else:
            colour = ("value", program.shapes[name])
        self.colours[vertex] = colour
        self.edges += [
            (vertex, ("factor", self.factors.find(f)), f"axis {k}") for k, f in enumerate(self.axes.of[name])
        ]

    @dispatched
    def commutes(self, step: Step) -> bool:
        """Whether the order of a step's operands is of no account."""
        return step.function in COMMUTATIVE

    @commutes.register
    def _(self, step: Concat) -> bool:
        return self.free(self.axes.of[step.out][step.axis])

    @commutes.register
    def _(self, step: Einsum) -> bool:
        return len(set(step.specs)) == 1

    @dispatched
    def _kept(self, step: Step) -> Hashable:
        """What of a step is neither an operand nor in its node."""
        return tuple(repr(getattr(step, word, None)) for word in ("keep", "axes", "chosen"))

    @_kept.register
    def _(self, step: Concat) -> Hashable:
        return step.axis

    @_kept.register
    def _(self, step: Slice) -> Hashable:
        free = self.free(self.axes.of[step.x][step.axis])
        return step.axis, step.stop - step.start, None if free else step.start

    @_kept.register
    def _(self, step: Einsum) -> Hashable:
        return step.specs, step.result

    @_kept.register
    def _(self, step: Pointwise) -> Hashable:
        return step.function

    @_kept.register
    def _(self, step: Normalise) -> Hashable:
        named = any(word in step.node.op for word in NORMS)
        return step.function, step.axes, None if named else step.out

    @_kept.register
    def _(self, step: Affine) -> Hashable:
        return step.epsilon

    @_kept.register
    def _(self, step: Unknown) -> Hashable:
        return step.missing

    def _signature(self, node: Node) -> Hashable:
        """The operator, its attributes, and the constants that it reads."""
        model = self.program.model
        read = [_digest(np.asarray(model.constants[name])) for name in node.inputs if name in model.constants]
        read += [
            _digest(tensor.read()) if tensor.size <= SMALL else name
            for name in node.inputs
            if (tensor := model.tensors.get(name)) is not None and name not in self.program.weights
        ]
        attributes = tuple((key, _attribute(value)) for key, value in sorted(node.attributes.items()))
        return node.op, node.opset, attributes, tuple(read)

    def _factor(self, root: int) -> list[int]:
        """The vertex of a factor, and the factors under it that have none yet."""
        factors, vertex = self.factors, ("factor", root)
        form = factors.form(root)
        if vertex in self.colours:
            return []
        arranged = tuple(map(bytes, factors.places(root))) if form is Form.ARRANGED else ()
        self.colours[vertex] = ("factor", form, factors.size(root), arranged)
        parts = factors.pieces(root) if form is Form.SUM else factors.parts(root)
        if form is not Form.FAMILY:
            named = form is Form.PRODUCT or not self.free(root)
            self.edges += [(vertex, ("factor", p), f"part {k}" if named else "part") for k, p in enumerate(parts)]
            return list(parts)
        index = factors.index(root)
        self.edges.append((vertex, ("factor", index), "depends"))
        for k, (part, (start, stop)) in enumerate(zip(parts, pairwise(factors.cuts(root)), strict=True)):
            member = ("member", f"{root} {k}")
            self.colours[member] = ("member", stop - start)
            self.edges += [(member, vertex, "of"), (member, ("factor", part), "is")]
            self.edges += [(member, ("factor", p), "where") for p in self._between(index, start, stop)]
        return [index, *parts]

    def _between(self, index: int, start: int, stop: int) -> Iterator[int]:
        """The pieces of a sum that lie between two of its indices."""
        passed = 0
        for piece in self.factors.pieces(index):
            if start <= passed < stop:
                yield piece
            passed += self.factors.size(piece)


def _digest(values: Array) -> str:
    return hashlib.sha256(repr((values.shape, values.dtype.str)).encode() + values.tobytes()).hexdigest()


def _attribute(value: object) -> Hashable:
    if isinstance(value, Graph):
        return id(value)
    return _digest(value) if isinstance(value, np.ndarray) else repr(value)


V = TypeVar("V", bound=Hashable)


def components(neighbours: Mapping[V, Collection[V]]) -> Iterator[set[V]]:
    """The connected components, by their first vertices; every edge is listed at both of its ends."""
    seen = set[V]()
    for start in neighbours:
        if start in seen:
            continue
        component, waiting = {start}, [start]
        while waiting:
            fresh = [v for v in neighbours[waiting.pop()] if v not in component]
            component.update(fresh)
            waiting += fresh
        seen |= component
        yield component


ROUNDS = 40
"""Refinements of the colours; what still changes then is left alone."""
Image = dict[Vertex, Vertex]
"""Where the vertices of one part lie in another."""
Neighbours = Mapping[Vertex, Sequence[tuple[str, Vertex]]]


@dataclass(frozen=True, slots=True)
class Branches:
    """Parts that can change places in any order."""

    images: tuple[Mapping[Vertex, Vertex], ...]
    """For every part, where the vertices of the first one lie in it."""
    weights: tuple[str, ...]
    """The weights of the program that move, among them those whose units do because they feed or read the parts."""


def branches(program: Program, axes: Axes) -> Iterator[Branches]:
    """Every set of interchangeable parts, those inside of others too."""
    graph = Coloured(program, axes)
    colours = _swept(graph)
    moving = Passages(program).moving
    neighbours, bearing = (_neighbours(graph), _bearing(program, axes)) if _repeated(colours) else ({}, {})
    while _repeated(colours):
        stable = _refined(neighbours, colours)
        parts = list(_parts(graph, neighbours, stable)) if stable else []
        if not parts:
            return
        colours = stable
        for number, images in enumerate(parts):
            made = Branches(tuple(images), tuple(_moving(program, bearing, images)))
            if any(name in moving for kind, name in images[0] if kind == "tensor") and _orderly(axes, made):
                yield made
            for k, image in enumerate(images):
                colours |= {vertex: hash((colours[vertex], number, k)) for vertex in image.values()}


def exchanged(axes: Axes, found: Branches, order: Index, get: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """The weights once every part k does what part ``order[k]`` did; `get` has them as they are."""
    image = {found.images[j][v]: found.images[k][v] for k, j in enumerate(order.tolist()) for v in found.images[0]}
    for name in found.weights:
        target = str(image.get(("tensor", name), ("tensor", name))[1])
        values = get[name]
        for k, f in enumerate(axes.of[name]):
            places = _places(axes.factors, f, image)
            if places is not None:
                made = np.empty_like(values)
                made[(slice(None),) * k + (places,)] = values
                values = made
        yield target, values


def _places(factors: Factors, f: int, image: Mapping[Vertex, Vertex]) -> Index | None:
    """Where every index of a factor comes to lie; None where a family would need another order in every member."""
    root = factors.find(f)
    form, size = factors.form(root), factors.size(root)
    target = int(image.get(("factor", root), ("factor", root))[1])
    if form in (Form.LEAF, Form.ARRANGED):  # which is told from others by the places of its units
        return np.arange(size)
    below = factors.pieces(root) if form is Form.SUM else factors.parts(root)
    inner = [_places(factors, part, image) for part in below]
    if any(p is None for p in inner):
        return None
    parts = [p for p in inner if p is not None]
    if form is Form.PRODUCT:
        made = np.zeros(1, np.int64)
        for places in parts:
            made = (made[:, None] * len(places) + places).reshape(-1)
        return made
    if form is Form.FAMILY:
        return parts[0] if all(np.array_equal(p, parts[0]) for p in parts) else None
    where = [int(image.get(("factor", part), ("factor", part))[1]) for part in below]
    pieces = factors.pieces(target)
    starts = np.cumsum([0, *(factors.size(piece) for piece in pieces)]).tolist()
    if len(set(pieces)) < len(pieces):  # equal pieces are told by their order
        return np.concatenate([a + p for a, p in zip(starts, parts, strict=False)]) if where == list(pieces) else None
    return np.concatenate([starts[pieces.index(at)] + places for at, places in zip(where, parts, strict=True)])


def _moving(
    program: Program, bearing: Mapping[Vertex, Sequence[int]], images: Sequence[Mapping[Vertex, Vertex]]
) -> Iterator[str]:
    """Weights inside of the parts, and those outside whose axes hold what moves."""
    found = {k for image in images for vertex in image.values() for k in bearing.get(vertex, ())}
    names = tuple(program.weights)
    yield from (names[k] for k in sorted(found))


def _bearing(program: Program, axes: Axes) -> dict[Vertex, list[int]]:
    """Vertex -> the places of the weights that are it or hold it."""
    found: dict[Vertex, list[int]] = {}
    for k, name in enumerate(program.weights):
        if name not in program.detached:
            held: set[Vertex] = {("factor", x) for f in axes.of[name] for x in axes.factors.below(f)}
            for vertex in (("tensor", name), *held):
                found.setdefault(vertex, []).append(k)
    return found


def _orderly(axes: Axes, found: Branches) -> bool:
    """Whether something moves, and in an order that every weight can follow."""
    turn = np.roll(np.arange(len(found.images)), 1)
    image = {found.images[j][v]: found.images[k][v] for k, j in enumerate(turn.tolist()) for v in found.images[0]}
    orders = [_places(axes.factors, f, image) for name in found.weights for f in axes.of[name]]
    return bool(found.weights) and all(order is not None for order in orders)


# -- colours ------------------------------------------------------------------------------------------------------
def _swept(graph: Coloured) -> dict[Vertex, int]:
    """Colours that know all of what a tensor is made of and of what is made of it: one sweep down, one up."""
    colours = {vertex: hash(colour) for vertex, colour in graph.colours.items()}
    down = {name: colour for (kind, name), colour in colours.items() if kind == "tensor"}
    mixed: dict[Vertex, int] = {}
    for call in graph.calls:
        read = [down[name] for name in call.operands]
        mixed[call.vertex] = hash((colours[call.vertex], tuple(sorted(read) if graph.commutes(call.step) else read)))
        down |= {name: hash((down[name], mixed[call.vertex], k)) for k, name in enumerate(call.results)}
    up: defaultdict[str, list[int]] = defaultdict(list)
    for call in reversed(graph.calls):
        seen = hash((mixed[call.vertex], *(tuple(sorted(up[name])) for name in call.results)))
        colours[call.vertex] = seen
        for k, name in enumerate(call.operands):
            up[name].append(hash((seen, 0 if graph.commutes(call.step) else k)))
    return colours | {("tensor", name): hash((down[name], tuple(sorted(up[str(name)])))) for name in down}


def _repeated(colours: Mapping[Vertex, int]) -> bool:
    """Whether two steps have one colour."""
    steps = [colour for (kind, _), colour in colours.items() if kind == "step"]
    return len(set(steps)) < len(steps)


def _neighbours(graph: Coloured) -> Neighbours:
    found: defaultdict[Vertex, list[tuple[str, Vertex]]] = defaultdict(list)
    for a, b, label in graph.edges:
        found[a].append((f"to {label}", b))
        found[b].append((f"from {label}", a))
    return found


def _refined(neighbours: Neighbours, colours: dict[Vertex, int]) -> dict[Vertex, int]:
    """The coarsest colours finer than these in which equal vertices have equal neighbours; empty if too many rounds."""
    count = len(set(colours.values()))
    for _ in range(ROUNDS):
        colours = {
            vertex: hash(
                (colour, tuple(sorted((label, colours[other]) for label, other in neighbours.get(vertex, ()))))
            )
            for vertex, colour in colours.items()
        }
        before, count = count, len(set(colours.values()))
        if count == before:
            return colours
    return {}


def _parts(graph: Coloured, neighbours: Neighbours, colours: Mapping[Vertex, int]) -> Iterator[list[Image]]:
    """What falls apart once all vertices of a colour of their own are gone, isomorphic parts together."""
    sizes = Counter(colours.values())
    net: dict[Vertex, list[Vertex]] = {v: [] for v, c in colours.items() if sizes[c] > 1}
    for a, b, _ in graph.edges:
        if a in net and b in net:
            net[a].append(b)
            net[b].append(a)
    alike: defaultdict[tuple[int, ...], list[list[Vertex]]] = defaultdict(list)
    for vertices in components(net):
        part = sorted(vertices, key=str)
        alike[tuple(sorted(colours[v] for v in part))].append(part)
    for several in alike.values():
        images = _images(several, neighbours, colours) if len(several) > 1 else []
        kept = [image for image in images if _preserves(image, neighbours)]
        if len(kept) > 1:
            yield kept


def _preserves(image: Image, neighbours: Neighbours) -> bool:
    """Whether vertices that are joined lie at vertices that are joined in the same way."""
    return all(
        {(label, image[other]) for label, other in neighbours[v] if other in image}.issubset(neighbours[w])
        for v, w in image.items()
    )


def _images(parts: Sequence[Sequence[Vertex]], neighbours: Neighbours, colours: Mapping[Vertex, int]) -> list[Image]:
    """Where the vertices of the first part lie in each: those of one colour, once no two in a part have the same.

    Of several that have, one in each part is singled out, which changes the colours around it; what hangs together in
    the same way may be told apart in any way.
    """
    local = {v: colours[v] for part in parts for v in part}
    inner = {v: [(label, other) for label, other in neighbours[v] if other in local] for v in local}
    while True:
        sizes = Counter(local[v] for v in parts[0])
        repeated = [c for c in sizes if sizes[c] > 1]
        if not repeated:
            break
        colour = min(repeated, key=lambda c: sizes[c])
        for part in parts:
            single = next((v for v in part if local[v] == colour), None)
            local |= {single: hash((colour, "single"))} if single else {}
        local = _refined(inner, local)
        if not local:
            return []
    found = [{local[v]: v for v in part} for part in parts]
    return [{v: place[local[v]] for v in parts[0]} for place in found if place.keys() == found[0].keys()]
