"""Branches: parts of a network that compute alike on weights of their own, and so can change places.

Towers, experts, groups and gates that an exporter wrote out one by one are no axis of any tensor; an exchange of two is
an automorphism of the program. Vertices whose colour, refined by their neighbours' until nothing changes
(Weisfeiler and Leman), is theirs alone stay where they are; without them the graph falls apart, and the parts that are
isomorphic hang on the rest in the same way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from symlint.axes.arena import Form
from symlint.axes.factor import Factors
from symlint.axes.walk import Axes
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.flow import Passages
from symlint.program.steps import Program
from symlint.symmetry.kinds.coloured import Coloured, Vertex
from symlint.symmetry.kinds.components import components
from symlint.symmetry.motion.action import Index

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
