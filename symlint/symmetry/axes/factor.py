"""Factors: the algebra in which axes are written.

An axis is an expression over factors. A factor starts as a *leaf* and is refined, everywhere at once, into

- a *product* ``(h d)``: a row-major grouping, as Reshape demands;
- a *sum* ``q + k + v``: a concatenation, as Concat, Split and Slice demand;
- a *family* ``A ? x | y``: the factor that it is depends on the index of another factor ``A`` (a sum) of the same
  tensor. Families make the distributive law hold: a reshape of ``x + y`` to rows is ``A * (A ? x | y)``, and the head
  dimensions of a fused ``qkv`` are ``3 ? d_q | d_k | d_v``.

Union-find joins factors. Refinement never forgets: a refined factor keeps its identity and resolves to what it became,
so that tensors seen before and after agree. Sizes are element counts; factors of size 1 carry nothing.

Unification: two factors that an operator reads as the same axis become one, refined as far as both need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from symlint.symmetry.axes.arena import ONE, UNSEEN, Arena, Form, Pin, clashing

Span = tuple[int, int, int]
"""A piece of a sum: first index, index behind the last, and the factor that the piece is."""


class Factors(Arena):
    """The factors of one network, with their refinement into products, sums and families."""

    def split(self, f: int, lead: int) -> tuple[int, int] | None:
        """`f` as (leading factor of size `lead`, the rest), refining it; None where no grouping fits."""
        root = self.find(f)
        size, form = self._size[root], self._form[root]
        if lead == 1:
            return ONE, root
        if lead == size:
            return root, ONE
        if size % lead:
            return None
        rest = size // lead
        if form is Form.LEAF:
            first, second = self.leaf(lead), self.leaf(rest)
            self.become(root, self.product((first, second)))
            return first, second
        if form is Form.PRODUCT:
            return self._split_product(root, lead)
        if form is Form.SUM:
            rows = self._rows(root, rest)
            if rows is None:
                return None
            first = self.sum(a for a, _ in rows)
            cuts = self.boundaries_of([self._size[a] for a, _ in rows])
            second = self.family(first, cuts, [b for _, b in rows])
        else:
            halves = [self.split(m, lead) for m in self.parts(root)]
            if any(h is None for h in halves):
                return None
            index, cuts = self._index[root], self._cuts[root]
            first = self.family(index, cuts, [h[0] for h in halves if h])
            second = self.family(index, cuts, [h[1] for h in halves if h])
        self.become(root, self.product((first, second)))
        return first, second

    def _split_product(self, root: int, lead: int) -> tuple[int, int] | None:
        parts = self.parts(root)
        taken: list[int] = []
        for k, part in enumerate(parts):
            size = self._size[part]
            if lead % size == 0:
                taken.append(part)
                lead //= size
                if lead == 1:
                    return self.product(taken), self.product(parts[k + 1 :])
                continue
            inner = self.split(part, lead) if size % lead == 0 else None
            if inner is None:
                return None
            return self.product([*taken, inner[0]]), self.product([inner[1], *parts[k + 1 :]])
        return None

    def _rows(self, root: int, width: int) -> list[tuple[int, int]] | None:
        """A sum cut into rows of `width`: (how many rows, what a row is), piece by piece."""
        rows: list[tuple[int, int]] = []
        pending: list[int] = []
        filled = 0
        for piece in self.pieces(root):
            rest: int | None = piece
            while rest is not None:
                size = self._size[rest]
                if not filled and size % width == 0:
                    halves = self.split(rest, size // width)
                    if halves is None:
                        return None
                    rows.append(halves)
                    rest = None
                elif filled + size <= width:
                    pending.append(rest)
                    filled += size
                    rest = None
                else:
                    at = width - filled if filled else size - size % width
                    left, rest = self.cut(rest, at)
                    if filled:
                        pending.append(left)
                        filled = width
                    else:
                        halves = self.split(left, at // width)
                        if halves is None:
                            return None
                        rows.append(halves)
                if filled == width:
                    rows.append((self._new(1, Form.LEAF), self.sum(pending)))
                    pending, filled = [], 0
        return rows

    def cut(self, f: int, at: int) -> tuple[int, int]:
        """`f` as (its first `at` indices, the others), refining it into a sum."""
        root = self.find(f)
        form = self._form[root]
        if form is Form.LEAF:
            left, right = self._piece(at), self._piece(self._size[root] - at)
            self.become(root, self.sum((left, right)))
            return left, right
        if form is Form.SUM:
            return self._cut_sum(root, at)
        if form is Form.FAMILY:
            halves = [self.cut(m, at) for m in self.parts(root)]
            index, cuts = self._index[root], self._cuts[root]
            left = self.family(index, cuts, [h[0] for h in halves])
            right = self.family(index, cuts, [h[1] for h in halves])
            self.become(root, self.sum((left, right)))
            return left, right
        first, *others = self.parts(root)
        width = self._size[root] // self._size[first]
        row, inside = divmod(at, width)
        if not inside:
            spans = self.spans(first, (0, row, self._size[first]))
            left, right = (self.product([s[2], *(self.restrict(o, first, s) for o in others)]) for s in spans)
            return left, right
        cuts = tuple(sorted({0, row, row + 1, self._size[first]}))
        spans = self.spans(first, cuts)
        rows = [self.product([s[2], *(self.restrict(o, first, s) for o in others)]) for s in spans]
        here = cuts.index(row)
        before, after = self.cut(rows[here], inside)
        return self.sum([*rows[:here], before]), self.sum([after, *rows[here + 1 :]])

    def _piece(self, size: int) -> int:
        """A fresh piece of a sum; pieces of size 1 keep an identity of their own."""
        return self._new(size, Form.LEAF) if size == 1 else self.leaf(size)

    def _cut_sum(self, root: int, at: int) -> tuple[int, int]:
        children = self._children[root]
        passed = 0
        for k, child in enumerate(children):
            size = self._size[child]
            if at == passed:
                return self.sum(children[:k]), self.sum(children[k:])
            if at < passed + size:
                left, right = self.cut(child, at - passed)
                return self.sum([*children[:k], left]), self.sum([right, *children[k + 1 :]])
            passed += size
        raise ValueError(f"cannot cut {self._size[root]} indices at {at}")

    def spans(self, f: int, cuts: tuple[int, ...]) -> list[Span]:
        """Cut `f` at all of `cuts` (which begin with 0 and end with its size): its pieces in order."""
        pieces: list[int] = []
        rest = f
        for start, stop in pairwise(cuts[:-1]):
            piece, rest = self.cut(rest, stop - start)
            pieces.append(piece)
        pieces.append(rest)
        return [(a, b, p) for a, b, p in zip(cuts, cuts[1:], pieces, strict=False)]

    def restrict(self, f: int, index: int, span: Span) -> int:
        """`f` where `index` is known to lie in `span`: families over it become their member."""
        return self._restrict(f, self.path(index, span))

    def path(self, index: int, span: Span) -> Mapping[int, Span]:
        """The span in every sum on the way to it: a piece of a piece is a piece of both."""
        start, stop, piece = span
        root = self.find(index)
        found = {root: span}
        while self._form[root] is Form.SUM:
            passed = 0
            for child in self.parts(root):
                size = self._size[child]
                if passed <= start and stop <= passed + size and self._form[child] is Form.SUM:
                    start, stop, root = start - passed, stop - passed, child
                    found[root] = (start, stop, piece)
                    break
                passed += size
            else:
                break
        return found

    def _restrict(self, f: int, path: Mapping[int, Span]) -> int:
        root = self.find(f)
        form = self._form[root]
        if form is Form.LEAF:
            return root
        parts = self.parts(root)
        if form is Form.FAMILY and self.index(root) in path:
            start, stop, piece = path[self.index(root)]
            cuts = self._cuts[root]
            chosen = [
                (max(a, start) - start, min(b, stop) - start, self._restrict(m, path))
                for a, b, m in zip(cuts, cuts[1:], parts, strict=False)
                if a < stop and start < b
            ]
            return self.family(piece, (0, *(b for _, b, _ in chosen)), [m for _, _, m in chosen])
        fresh = [self._restrict(part, path) for part in parts]
        if all(a == b for a, b in zip(fresh, parts, strict=True)):
            return root
        if form is Form.FAMILY:
            return self.family(self._index[root], self._cuts[root], fresh)
        return self.product(fresh) if form is Form.PRODUCT else self.sum(fresh)


# Presence: whether a tensor holds the index of a family once, so that its value there is one number.
#
# The same sum may stand at two places at once: both axes of a square weight, a factor against itself in a Gram matrix,
# a shuffle of what was shuffled before. No family can depend on "its index" there, and no piece at one place says
# anything of the other.


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


def unify(factors: Factors, f: int, g: int, reason: Pin) -> None:
    """Make `f` and `g` one factor; where no common refinement exists, freeze both and say so in `reason`.

    An axis of size 1 has no units; one unit of several has, which a lookup may have chosen.
    """
    todo = [(f, g)] if factors.size(factors.find(f)) > 1 else []
    while todo:
        a, b = factors.find(todo[-1][0]), factors.find(todo.pop()[1])
        # A single unit that depends on others has nothing of its own that could change places.
        if a == b or (factors.size(a) == 1 and not factors.form(a) == factors.form(b) == Form.LEAF):
            continue
        if factors.size(a) != factors.size(b):
            clash(factors, a, b, reason)
            continue
        todo.extend(_meet(factors, a, b, reason))


def clash(factors: Factors, f: int, g: int, reason: Pin) -> None:
    """Freeze two factors that cannot be written in one way."""
    for x in (f, g):
        factors.freeze(x, clashing(reason))


def _meet(factors: Factors, a: int, b: int, reason: Pin) -> list[tuple[int, int]]:
    """One step of unification: what is left to unify."""
    forms = factors.form(a), factors.form(b)
    if Form.LEAF in forms:
        leaf, other = (a, b) if forms[0] is Form.LEAF else (b, a)
        if forms == (Form.LEAF, Form.LEAF) and len(factors.holders.get(a, ())) > len(factors.holders.get(b, ())):
            leaf, other = b, a  # so that merging costs no more than the smaller one
        if other != leaf and leaf in set(factors.leaves(other)):
            return _dissolve(factors, leaf, other, reason)
        factors.become(leaf, other)
        factors.explain(other, reason)
        return []
    if Form.FAMILY in forms:
        return _meet_family(factors, *((a, b) if forms[0] is Form.FAMILY else (b, a)), reason)
    if forms == (Form.SUM, Form.SUM):
        cuts = tuple(sorted(set(factors.boundaries(a)) | set(factors.boundaries(b))))
        pairs = [(x[2], y[2]) for x, y in zip(factors.spans(a, cuts), factors.spans(b, cuts), strict=True)]
        factors.become(b, a)
        return pairs
    if Form.SUM in forms:
        product, total = (a, b) if forms[0] is Form.PRODUCT else (b, a)
        cuts = factors.boundaries(total)
        pieces = factors.pieces(total)
        rows = factors.spans(product, cuts)
        factors.become(total, product)
        return [(row[2], piece) for row, piece in zip(rows, pieces, strict=True)]
    return _meet_products(factors, a, b, reason)


def _dissolve(factors: Factors, leaf: int, other: int, reason: Pin) -> list[tuple[int, int]]:
    """A leaf that meets an expression which holds it: only a family can be that, and its members are then equal."""
    if factors.form(other) is not Form.FAMILY:
        clash(factors, leaf, other, reason)
        return []
    members = factors.parts(other)
    factors.become(other, leaf)
    return [(leaf, m) for m in members]


def _meet_family(factors: Factors, a: int, b: int, reason: Pin) -> list[tuple[int, int]]:
    """A family against anything: member by member where both depend on one index, else through a common refinement."""
    members = factors.parts(a)
    for outer, inner in ((a, b), (b, a)):
        if factors.form(outer) is Form.FAMILY and inner in set(factors.families(outer)):
            others = factors.parts(outer)
            factors.become(outer, inner)
            return [(inner, m) for m in others]
    if factors.form(b) is Form.FAMILY:
        theirs = factors.parts(b)
        if factors.index(a) == factors.index(b) and factors.cuts(a) == factors.cuts(b):
            factors.become(b, a)
            return list(zip(members, theirs, strict=True))
        factors.become(a, members[0])
        factors.become(b, members[0])
        return [(members[0], m) for m in (*members[1:], *theirs)]
    if factors.form(b) is Form.PRODUCT:
        if factors.split(a, factors.size(factors.parts(b)[0])) is None:
            clash(factors, a, b, reason)
            return []
        return [(a, b)]
    factors.spans(a, factors.boundaries(b))
    return [(a, b)]


def _meet_products(factors: Factors, a: int, b: int, reason: Pin) -> list[tuple[int, int]]:
    """Two groupings: align them from the front, splitting the larger factor each time."""
    left, right = list(factors.parts(a)), list(factors.parts(b))
    pairs: list[tuple[int, int]] = []
    while left and right:
        x, y = left.pop(0), right.pop(0)
        n, m = factors.size(x), factors.size(y)
        if n != m:
            halves = factors.split(x, m) if n > m else factors.split(y, n)
            if halves is None:
                clash(factors, a, b, reason)
                return []
            if n > m:
                x, left = halves[0], [halves[1], *left]
            else:
                y, right = halves[0], [halves[1], *right]
        pairs.append((x, y))
    factors.become(b, a)
    return pairs


def collapse(factors: Factors, tensors: list[tuple[int, ...]]) -> None:
    """Remove every family whose index some tensor lacks somewhere, or holds twice: its members must then be one factor.

    Args:
        tensors: the axes of every tensor of the network, and of all that meet in one step.
    """
    below: dict[int, tuple[int, ...]] = {}  # factor -> the families under it, until something is joined
    clean: set[tuple[int, ...]] = set()  # the same of axes of which nothing is to be removed
    changed = factors.indexed
    while changed:
        changed = False
        for axes in tensors:
            if axes in clean:
                continue
            for f in axes:
                if f not in below:
                    below[f] = tuple(factors.families(f))
            families = {g for f in axes for g in below[f]}
            lacking: set[int] = set()
            if families:
                present = {s for f in axes for s in factors.sums(f)} - repeated(factors, axes)
                lacking = {*unsure(factors, axes), *(g for g in families if factors.index(g) not in present)}
            if not lacking:
                clean.add(axes)
            for g in lacking:
                if factors.form(g) is Form.FAMILY:
                    members = factors.parts(g)
                    factors.become(g, members[0])
                    for member in members[1:]:
                        unify(factors, members[0], member, UNSEEN)
                    changed = True
                    below.clear()
                    clean.clear()
