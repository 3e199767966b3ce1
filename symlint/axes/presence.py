"""Presence: whether a tensor holds the index of a family once, so that its value there is one number.

The same sum may stand at two places at once: both axes of a square weight, a factor against itself in a Gram matrix,
a shuffle of what was shuffled before. No family can depend on "its index" there, and no piece at one place says
anything of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from symlint.axes.arena import Form
from symlint.axes.factor import Factors


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


def unsure(factors: Factors, axes: Sequence[int]) -> list[int]:
    """The families that stand in a tensor at each of its indices, and their own index only at some.

    A sum and a piece of it, one behind the other on an axis, hold the sum at the first places only.
    """
    parts = [p for f in axes for p in (factors.parts(f) if factors.form(f) is Form.PRODUCT else (f,))]
    standing = [p for p in parts if factors.form(p) is Form.FAMILY]
    if not standing:
        return []
    known: dict[int, frozenset[int]] = {}
    for f in axes:
        for root in _upward(factors, f):
            known[root] = _certain(factors, root, known)
    there = frozenset[int]().union(*(known[factors.find(f)] for f in axes))
    return [g for g in standing if factors.index(g) not in there]


def _certain(factors: Factors, root: int, known: dict[int, frozenset[int]]) -> frozenset[int]:
    """The indices that are there whatever the place: all of a product's, of pieces and members what they share."""
    inner = [known[p] for p in factors.children(root)]
    if factors.form(root) is Form.PRODUCT:
        return frozenset[int]().union(*inner)
    shared = frozenset.intersection(*inner) if inner else frozenset[int]()
    return shared | {root} if factors.form(root) is Form.SUM else shared


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
