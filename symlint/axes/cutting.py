"""Cutting an axis: where the cut falls, and which other axes of the tensor then depend on the piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from symlint.axes.arena import Form
from symlint.axes.factor import Factors, Span

SINGLE = 8
"""An axis of at most this size of which one index is taken is cut into all its single indices at once."""


def cut(
    factors: Factors, of: Mapping[str, Sequence[int]], axes: Sequence[int], k: int, start: int, stop: int
) -> list[int]:
    """The axes of a tensor of which only the indices from `start` to `stop` of axis `k` are left.

    Args:
        of: the axes of all tensors so far; what no other tensor holds without the cut axis gets an instance per piece.
    """
    f = axes[k]
    assert 0 <= start < stop <= factors.size(f), "a slice takes something, and of its axis: the lowering sees to it"
    target, width = f, 1
    if factors.form(f) is Form.PRODUCT:
        target = factors.parts(f)[0]
        width = factors.size(f) // factors.size(target)
    span: Span | None = None
    if start % width == 0 and stop % width == 0:
        first, last, size = start // width, stop // width, factors.size(target)
        cuts = tuple(sorted({0, first, last, size}))
        if last - first == 1 and size <= SINGLE and factors.form(target) is Form.LEAF:
            cuts = tuple(range(size + 1))
        spans = factors.spans(target, cuts)
        _instance(factors, of, axes, target, cuts)
        span = next(s for s in spans if s[0] == first)
    cuts = tuple(sorted({0, start, stop, factors.size(f)}))
    piece = next(p for a, _, p in factors.spans(f, cuts) if a == start)
    return [piece if j == k else g if span is None else factors.restrict(g, target, span) for j, g in enumerate(axes)]


def _instance(
    factors: Factors, of: Mapping[str, Sequence[int]], axes: Sequence[int], index: int, cuts: tuple[int, ...]
) -> None:
    """Give every leaf beside `index` one instance per piece of it, if all tensors that hold the leaf hold `index`."""
    root = factors.find(index)
    inside = set(factors.leaves(index))
    over = {leaf for f in axes for g in factors.families(f) if factors.index(g) == root for leaf in factors.leaves(g)}
    for leaf in sorted({x for f in axes for x in factors.leaves(f)} - inside - over):
        if leaf in factors.pins or factors.form(leaf) is not Form.LEAF:
            continue
        if all(root in {s for f in of[name] for s in factors.sums(f)} for name in factors.holders[leaf]):
            members = [factors.leaf(factors.size(leaf)) for _ in cuts[1:]]
            factors.become(leaf, factors.family(root, cuts, members))
