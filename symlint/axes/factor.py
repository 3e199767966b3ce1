"""Factors: the algebra in which axes are written.

An axis is an expression over factors. A factor starts as a *leaf* and is refined, everywhere at once, into

- a *product* ``(h d)``: a row-major grouping, as Reshape demands;
- a *sum* ``q + k + v``: a concatenation, as Concat, Split and Slice demand;
- a *family* ``A ? x | y``: the factor that it is depends on the index of another factor ``A`` (a sum) of the same
  tensor. Families make the distributive law hold: a reshape of ``x + y`` to rows is ``A * (A ? x | y)``, and the head
  dimensions of a fused ``qkv`` are ``3 ? d_q | d_k | d_v``.

Union-find joins factors. Refinement never forgets: a refined factor keeps its identity and resolves to what it became,
so that tensors seen before and after agree. Sizes are element counts; factors of size 1 carry nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from symlint.axes.arena import ONE, Arena, Form

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
