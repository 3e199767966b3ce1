"""Matching: which block of one network is which block of another, by structure first and by names last.

Blocks and leaves are the two sides of a graph, whose vertices are coloured by refinement (Weisfeiler and Leman): at
first by sizes, uses and the inputs and outputs of the network, then again and again by what is around. Blocks with one
colour after many rounds are matched first; among several the one that shares most leaves with what is matched already,
then the one with the same numbers, the same name, the same place in the order of the program.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import field

import numpy as np

from symlint.comparison.weights import Block, Weights
from symlint.model.graph import Array
from symlint.model.records import dataclass

# One side of a matching: the blocks of a network as a coloured graph, and samples of their numbers.

SAMPLE = 512
"""Elements of a block that are compared where several could be meant."""
TINY = 1e-30
_WORDS = re.compile(r"[A-Za-z]+|[0-9]+")


class Side:
    """The blocks of one network, their colours and some of their numbers."""

    def __init__(self, weights: Weights, blocks: Sequence[Block]) -> None:
        self.weights, self.blocks = weights, blocks
        self.order = {block: weights.all[block.weight].order for block in blocks}
        self.holders: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for k, block in enumerate(blocks):
            for place, dim in enumerate(block.dims):
                self.holders[dim.leaf].append((k, place))
        self.words = [Counter(_WORDS.findall(weight.name)) for weight in weights.all]
        self._drawn: dict[Block, Array | None] = {}

    def first(self) -> tuple[list[int], dict[int, int]]:
        """The colours of blocks and of leaves before any refinement."""
        ends: dict[int, set[str]] = defaultdict(set)
        program, axes = self.weights.program, self.weights.axes
        for word, names in (("input", program.inputs), ("output", program.outputs)):
            for k, name in enumerate(names):
                for leaf in {x for f in axes.of.get(name, ()) for x in axes.factors.leaves(f)}:
                    ends[leaf].add(f"{word} {k}")
        blocks = [hash((self.weights.all[b.weight].kind, tuple((d.use, d.size) for d in b.dims))) for b in self.blocks]
        sizes = {d.leaf: d.size for b in self.blocks for d in b.dims}
        return blocks, {leaf: hash((size, frozenset(ends[leaf]))) for leaf, size in sizes.items()}

    def refine(self, blocks: Sequence[int], leaves: Mapping[int, int]) -> tuple[list[int], dict[int, int]]:
        """The colours of the next round."""
        fresh = {
            leaf: hash((leaves[leaf], tuple(sorted((blocks[k], place) for k, place in held))))
            for leaf, held in self.holders.items()
        }
        found = [hash((c, tuple(fresh[d.leaf] for d in b.dims))) for c, b in zip(blocks, self.blocks, strict=True)]
        return found, fresh

    def sample(self, block: Block) -> Array | None:
        """Some elements of a block, less their mean and of length one; None where they are all alike."""
        drawn = self.drawn(block)
        if drawn is None or drawn.size < 3:
            return None
        with np.errstate(all="ignore"):
            centred = drawn - drawn.mean()
            size = float(np.linalg.norm(centred))
        return np.asarray(centred / size) if np.isfinite(size) and size > TINY else None

    def imprint(self, block: Block) -> bytes | None:
        """The same elements as they are."""
        drawn = self.drawn(block)
        return None if drawn is None else drawn.tobytes()

    def drawn(self, block: Block) -> Array | None:
        """Some elements of a block in float64; None where they cannot be told."""
        if block not in self._drawn:
            values = self.weights.read(self.weights.all[block.weight])
            if values is None:
                self._drawn[block] = None
            else:
                flat = block.cut(values).reshape(-1)
                places = np.linspace(0, flat.size - 1, min(SAMPLE, flat.size)).astype(np.int64)
                self._drawn[block] = flat[places].astype(np.float64) + 0.0
        return self._drawn[block]


ROUNDS = 40
"""Refinement stops here at the latest: what is further away tells no difference."""
NEIGHBOURS = 300
"""Of many equals only so many, before and after in the order of the program, are tried."""
ALIKE = 0.5
"""A correlation above this says that two blocks hold the same numbers, changed."""
CHANCE, SURE = 4.0, 0.95
"""A correlation of n elements above ``CHANCE / sqrt(n)``, or above ``SURE``, is none by chance."""


@dataclass
class Matching:
    """The blocks and leaves of the old network with those of the new one."""

    old: Weights
    new: Weights
    blocks: dict[Block, Block] = field(default_factory=dict)
    leaves: dict[int, int] = field(default_factory=dict)
    resized: dict[int, int] = field(default_factory=dict)
    """Old weight -> new weight of another size."""

    @property
    def back(self) -> Mapping[int, int]:
        """Leaf of the new network -> that of the old one."""
        return {b: a for a, b in self.leaves.items()}


def match(old: Weights, new: Weights, *, bold: bool = False) -> Matching:
    """As many blocks of two networks as structure, values and names can tell.

    Where two files cut an axis differently (a quantiser's blocks), whole axes are matched, and no leaves. A `bold`
    match goes by the order of the program where nothing else tells blocks of the same uses and sizes apart.
    """
    found = _Matcher(old, new, old.blocks, new.blocks, bold).run()
    mine, theirs = ({b.weight for b in side} for side in (found.blocks, found.blocks.values()))
    left = [old.whole(k) for k in range(len(old.all)) if k not in mine]
    right = [new.whole(k) for k in range(len(new.all)) if k not in theirs]
    if left and right:
        found.blocks |= _Matcher(old, new, left, right).run().blocks
    return found


class _Matcher:
    def __init__(
        self, old: Weights, new: Weights, mine: Sequence[Block], theirs: Sequence[Block], bold: bool = False
    ) -> None:
        self.bold = bold
        self.a, self.b = Side(old, mine), Side(new, theirs)
        self.found = Matching(old, new)
        self.back: dict[int, int] = {}
        self.taken: set[Block] = set()
        self.near: dict[tuple[int, int], float] = {}

    def run(self) -> Matching:
        for level, (mine, theirs) in reversed(list(enumerate(self._colours()))):
            groups = [_grouped(self.a, mine), _grouped(self.b, theirs)]
            shared = [(xs, groups[1][c]) for c, xs in groups[0].items() if c in groups[1]]
            # What can be told without doubt comes first, and matrices before vectors: they join leaves.
            for xs, ys in sorted(shared, key=lambda p: (max(len(p[0]), len(p[1])) > 1, -len(p[0][0].dims))):
                self._assign(xs, ys, sure=level > 1 or (self.bold and level == 1))
        return self.found

    def _colours(self) -> list[tuple[Sequence[Hashable], Sequence[Hashable]]]:
        """The colours of both sides' blocks, round after round; before them, sizes alone."""
        sizes = [[tuple(sorted(d.size for d in b.dims)) for b in s.blocks] for s in (self.a, self.b)]
        rounds: list[tuple[Sequence[Hashable], Sequence[Hashable]]] = [(sizes[0], sizes[1])]
        (x, p), (y, q) = self.a.first(), self.b.first()
        count = 0
        for _ in range(ROUNDS):
            rounds.append((x, y))
            if len(set(x) | set(y)) == count:
                break
            count = len(set(x) | set(y))
            (x, p), (y, q) = self.a.refine(x, p), self.b.refine(y, q)
        return rounds

    def _assign(self, xs: Sequence[Block], ys: Sequence[Block], *, sure: bool) -> None:
        xs = sorted((x for x in xs if x not in self.found.blocks), key=self.a.order.__getitem__)
        ys = sorted((y for y in ys if y not in self.taken), key=self.b.order.__getitem__)
        if not xs or not ys:
            return
        single = len(xs) == len(ys) == 1
        if not single:
            self._assign_equals(xs, ys)
        likeness = None if single and sure else self._likeness(xs, ys)
        sure = sure and (single or len(xs) == len(ys))
        for i, x in enumerate(xs):
            best: tuple[float, ...] | None = None
            chosen = None
            near_by = range(max(0, i - NEIGHBOURS), min(len(ys), i + NEIGHBOURS)) if x not in self.found.blocks else ()
            for j in near_by:
                y = ys[j]
                support = self._support(x, y)
                if y in self.taken or support is None:
                    continue
                near = float(likeness[i, j]) if likeness is not None else 0.0
                names = self._names(x, y)
                if not sure and near < ALIKE and not (support and names > ALIKE) and support < len(x.dims):
                    continue
                told = tuple(round(value, 1) if value > ALIKE else 0.0 for value in (near, names))
                # Of so few elements some are alike by chance: name and place tell more.
                told = (told[1], x.lies_as(y), told[0]) if x.size < CHANCE**2 else told
                score = (support, *told, -abs(i - j))
                if best is None or score > best:
                    best, chosen = score, y
            if chosen is not None:
                self._take(x, chosen)

    def _assign_equals(self, xs: Sequence[Block], ys: Sequence[Block]) -> None:
        """Match the blocks with the same numbers, before others could take their counterparts."""
        there: dict[bytes, list[tuple[int, Block]]] = defaultdict(list)
        for j, y in enumerate(ys):
            if (mark := self.b.imprint(y)) is not None:
                there[mark].append((j, y))
        for i, x in enumerate(xs):
            mark = self.a.imprint(x)
            free = [(j, y, self._support(x, y)) for j, y in there.get(mark or b"", ()) if y not in self.taken]
            found = [(n, self._names(x, y) == 1.0, -abs(i - j), -j) for j, y, n in free if n is not None]
            if found:
                self._take(x, ys[-max(found)[3]])

    def _support(self, x: Block, y: Block) -> int | None:
        """How many leaves of two blocks are matched already; None where they contradict each other."""
        count = 0
        for p, q in zip(x.dims, y.dims, strict=True):
            if p.size != q.size:
                return None
            mine, theirs = self.found.leaves.get(p.leaf), self.back.get(q.leaf)
            if mine is None and theirs is None:
                continue
            if mine != q.leaf:
                return None
            count += 1
        return count

    def _take(self, x: Block, y: Block) -> None:
        self.found.blocks[x] = y
        self.taken.add(y)
        for p, q in zip(x.dims, y.dims, strict=True):
            self.found.leaves[p.leaf] = q.leaf
            self.back[q.leaf] = p.leaf

    def _likeness(self, xs: Sequence[Block], ys: Sequence[Block]) -> Array:
        """Correlations of the blocks' elements, shape (xs, ys)."""
        size = max(
            (len(v) for s, bs in ((self.a, xs), (self.b, ys)) for b in bs if (v := s.sample(b)) is not None), default=0
        )
        tables = [
            np.stack([v if (v := s.sample(b)) is not None and len(v) == size else np.zeros(size) for b in bs])
            for s, bs in ((self.a, xs), (self.b, ys))
        ]
        # Of few elements chance makes a high correlation.
        found, chance = np.asarray(tables[0] @ tables[1].T), min(CHANCE / max(size, 1) ** 0.5, SURE)
        return np.where(found >= chance, found, 0.0)

    def _names(self, x: Block, y: Block) -> float:
        """How many words two names share; 1 where they are the same."""
        if (x.weight, y.weight) not in self.near:
            one, two = self.a.words[x.weight], self.b.words[y.weight]
            self.near[x.weight, y.weight] = sum((one & two).values()) / max(sum((one | two).values()), 1)
        return self.near[x.weight, y.weight]


def _grouped(side: Side, colours: Sequence[Hashable]) -> dict[Hashable, list[Block]]:
    groups: dict[Hashable, list[Block]] = defaultdict(list)
    for block, colour in zip(side.blocks, colours, strict=True):
        groups[colour].append(block)
    return groups
