"""One side of a matching: the blocks of a network as a coloured graph, and samples of their numbers."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from symlint.comparison.matching.blocks import Block
from symlint.comparison.matching.weights import Weights
from symlint.model.graph import Array

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
