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

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from math import prod

ONE = 0

Span = tuple[int, int, int]
"""A piece of a sum: first index, index behind the last, and the factor that the piece is."""


class Form(Enum):
    """What a factor has become."""

    LEAF = "leaf"
    PRODUCT = "product"
    SUM = "sum"
    FAMILY = "family"


class Factors:
    """The arena of all factors of one network, with union-find and refinement."""

    def __init__(self) -> None:
        self._parent = [0]
        self._size = [1]
        self._form = [Form.LEAF]
        self._children: list[tuple[int, ...]] = [()]
        self._index: dict[int, int] = {}
        self._cuts: dict[int, tuple[int, ...]] = {}
        self._indices: set[int] = set()
        self.pins: dict[int, str] = {}
        """Leaf -> why its units cannot be permuted."""
        self.rigid: dict[int, str] = {}
        """Leaf -> why nothing at all may act on it."""
        self.holders: dict[int, set[str]] = {}
        """Leaf -> the tensors that hold it."""
        self.why: dict[int, list[str]] = {}
        """Leaf -> what joined or limited it, in order."""

    # -- making ---------------------------------------------------------------------------------------------------
    def _new(self, size: int, form: Form, children: tuple[int, ...] = ()) -> int:
        self._parent.append(len(self._parent))
        self._size.append(size)
        self._form.append(form)
        self._children.append(children)
        return len(self._parent) - 1

    def leaf(self, size: int, pin: str | None = None) -> int:
        """A fresh leaf of `size` units; `pin` is the reason why they cannot be permuted."""
        if size == 1:
            return ONE
        f = self._new(size, Form.LEAF)
        if pin is not None:
            self.pins[f] = pin
        return f

    def product(self, parts: Iterable[int]) -> int:
        """The row-major grouping of `parts`; parts of size 1 vanish."""
        kept: list[int] = []
        for part in map(self.find, parts):
            if self._form[part] is Form.PRODUCT:
                kept.extend(self.parts(part))
            elif self._size[part] > 1:
                kept.append(part)
        if len(kept) <= 1:
            return kept[0] if kept else ONE
        return self._new(prod(self._size[k] for k in kept), Form.PRODUCT, tuple(kept))

    def sum(self, pieces: Iterable[int]) -> int:
        """The concatenation of `pieces`; sums that index no family are flattened."""
        kept: list[int] = []
        for piece in map(self.find, pieces):
            if self._form[piece] is Form.SUM and piece not in self._indices:
                kept.extend(self._children[piece])
            else:
                kept.append(piece)
        if len(kept) == 1:
            return kept[0]
        return self._new(sum(self._size[k] for k in kept), Form.SUM, tuple(kept))

    def family(self, index: int, cuts: tuple[int, ...], members: Iterable[int]) -> int:
        """The factor that is ``members[i]`` where `index` lies between ``cuts[i]`` and ``cuts[i + 1]``."""
        parts = tuple(self.find(m) for m in members)
        if len(set(parts)) == 1:
            return parts[0]
        f = self._new(self._size[parts[0]], Form.FAMILY, parts)
        self._index[f] = index
        self._cuts[f] = cuts
        self._indices.add(self.find(index))
        return f

    # -- reading --------------------------------------------------------------------------------------------------
    def find(self, f: int) -> int:
        """What `f` is now: the root of its class."""
        parent = self._parent
        root = f
        while parent[root] != root:
            root = parent[root]
        while parent[f] != root:
            parent[f], f = root, parent[f]
        return root

    def size(self, f: int) -> int:
        """Number of indices of `f`."""
        return self._size[f]

    def form(self, f: int) -> Form:
        """The form of the class of `f`."""
        return self._form[self.find(f)]

    def parts(self, f: int) -> tuple[int, ...]:
        """The resolved children of a product, sum or family; nested products are flattened."""
        root = self.find(f)
        children = [self.find(c) for c in self._children[root]]
        if self._form[root] is not Form.PRODUCT:
            return tuple(children)
        flat: list[int] = []
        for child in children:
            flat.extend(self.parts(child) if self._form[child] is Form.PRODUCT else [child])
        return tuple(c for c in flat if self._size[c] > 1)

    def index(self, f: int) -> int:
        """The factor that a family depends on."""
        return self.find(self._index[self.find(f)])

    def cuts(self, f: int) -> tuple[int, ...]:
        """Where a family's members begin and end along its index."""
        return self._cuts[self.find(f)]

    def boundaries(self, f: int) -> tuple[int, ...]:
        """0, the ends of a sum's flattened pieces, in order."""
        ends = [0]
        for piece in self.pieces(f):
            ends.append(ends[-1] + self._size[piece])
        return tuple(ends)

    def pieces(self, f: int) -> tuple[int, ...]:
        """The flattened pieces of a sum; any other factor is its own single piece."""
        root = self.find(f)
        if self._form[root] is not Form.SUM:
            return (root,)
        return tuple(p for child in self._children[root] for p in self.pieces(child))

    def leaves(self, f: int) -> Iterator[int]:
        """Every leaf of more than one unit under `f`, repeated where it occurs twice."""
        root = self.find(f)
        if self._form[root] is Form.LEAF:
            if self._size[root] > 1:
                yield root
            return
        for child in self._children[root]:
            yield from self.leaves(child)

    def families(self, f: int) -> Iterator[int]:
        """Every family under `f`."""
        root = self.find(f)
        if self._form[root] is Form.FAMILY:
            yield root
        for child in self._children[root]:
            yield from self.families(child)

    def sums(self, f: int) -> Iterator[int]:
        """Every sum on the way down from `f`."""
        root = self.find(f)
        if self._form[root] is Form.SUM:
            yield root
        for child in self._children[root]:
            yield from self.sums(child)

    # -- refinement -----------------------------------------------------------------------------------------------
    def become(self, leaf: int, f: int) -> None:
        """Replace a root by `f`, everywhere at once; pins and reasons of a leaf pass to the leaves of `f`."""
        root, target = self.find(leaf), self.find(f)
        if root == target:
            return
        self._parent[root] = target
        if root in self._indices:
            self._indices.add(target)
        for notes in (self.pins, self.rigid):
            if root in notes:
                reason = notes.pop(root)
                for part in self.leaves(target):
                    self._note(notes, part, reason)
        if root in self.holders:
            names = self.holders.pop(root)
            for part in set(self.leaves(target)):
                self.holders.setdefault(part, set()).update(names)
        if root in self.why:
            reasons = self.why.pop(root)
            for part in set(self.leaves(target)):
                mine = self.why.setdefault(part, [])
                mine.extend(r for r in reasons if r not in mine)

    def explain(self, f: int, reason: str) -> None:
        """Note why the leaves of `f` are joined or limited."""
        for part in self.leaves(f):
            reasons = self.why.setdefault(part, [])
            if reason not in reasons and len(reasons) < 12:
                reasons.append(reason)

    def pin(self, f: int, reason: str) -> None:
        """Forbid permutations of every leaf of `f`."""
        for part in self.leaves(f):
            self._note(self.pins, part, reason)

    @staticmethod
    def _note(notes: dict[int, str], leaf: int, reason: str) -> None:
        """Keep the first reason, but a true one before a missing rule."""
        if leaf not in notes or notes[leaf].startswith("opaque"):
            notes[leaf] = reason

    def freeze(self, f: int, reason: str) -> None:
        """Forbid every generator on every leaf of `f`."""
        for part in self.leaves(f):
            self.pins.setdefault(part, reason)
            self.rigid.setdefault(part, reason)

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

    @staticmethod
    def boundaries_of(sizes: Iterable[int]) -> tuple[int, ...]:
        """0 and the running sums of `sizes`."""
        ends = [0]
        for size in sizes:
            ends.append(ends[-1] + size)
        return tuple(ends)

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
        for start, stop in zip(cuts[:-2], cuts[1:-1], strict=True):
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
        if root in path and form is Form.SUM:
            return path[root][2]
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
