"""Presence: whether a tensor holds the index of a family once, so that its value there is one number.

The same sum may stand at two places at once: both axes of a square weight, a factor against itself in a Gram matrix,
a shuffle of what was shuffled before. No family can depend on "its index" there, and no piece at one place says
anything of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from symlint.arena import Form
from symlint.factor import Factors


def repeated(factors: Factors, axes: Sequence[int]) -> frozenset[int]:
    """The sums that families depend on and that axes of one tensor hold at two places at once."""
    listed = Counter(s for f in axes for s in factors.sums(f) if factors.indexes(s))
    if all(count == 1 for count in listed.values()):
        return frozenset()
    known: dict[int, Counter[int]] = {}
    for f in axes:
        for root in _upward(factors, f):
            known[root] = _counted(factors, root, known)
    total = sum((known[factors.find(f)] for f in axes), Counter[int]())
    return frozenset(s for s, count in total.items() if count > 1)


def _counted(factors: Factors, root: int, known: dict[int, Counter[int]]) -> Counter[int]:
    """How often each index is there: parts of a product are there at once, pieces and members one at a time."""
    form = factors.form(root)
    inner = [known[p] for p in factors.children(root)]
    if form is Form.PRODUCT:
        return sum(inner, Counter())
    found: Counter[int] = Counter()
    for counts in inner:
        found |= counts
    if form is Form.SUM and factors.indexes(root):
        found[root] += 1
    if form is Form.FAMILY and found[factors.index(root)]:
        found[factors.index(root)] += 1  # what the family depends on is outside of it
    return found


def _upward(factors: Factors, f: int) -> list[int]:
    """`f` and all below it, what is below first."""
    order: dict[int, None] = {}
    todo = [factors.find(f)]
    while todo:
        root = todo[-1]
        missing = [p for p in factors.children(root) if p not in order] if root not in order else []
        todo.extend(missing)
        if not missing:
            order[todo.pop()] = None
    return list(order)
