"""The laws of the axis algebra: refinement, unification and the terms that both come to."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symlint.symmetry.axes.arena import INPUT, OUTPUT, Pin, PinKind
from symlint.symmetry.axes.factor import ONE, Factors, Form, collapse, unify
from symlint.symmetry.axes.terms import Expansion, meet

HERE = Pin(PinKind.JOINED, op="Add", node="here")
Shown = list[tuple[tuple[int, ...], list[int]]]


def shown(factors: Factors, f: int) -> Shown:
    """The terms of a factor: leaves and positions, in order."""
    return [(t.leaves, t.positions.reshape(-1).tolist()) for t in Expansion(factors).terms(f)]


def units(factors: Factors, f: int) -> list[tuple[tuple[int, int], ...]]:
    """What stands at each position of an axis without families: pairs of leaf and unit."""
    made: list[tuple[tuple[int, int], ...]] = [()] * factors.size(f)
    for term in Expansion(factors).terms(f):
        for place in np.ndindex(term.positions.shape):
            made[int(term.positions[place])] = tuple(zip(term.leaves, place, strict=True))
    return made


def classes(factors: Factors, axes: list[int]) -> set[frozenset[tuple[int, int]]]:
    """The reference model: which positions of which axes are one unit, as a partition of all positions."""
    found: dict[tuple[tuple[int, int], ...], set[tuple[int, int]]] = {}
    for k, f in enumerate(axes):
        for i, unit in enumerate(units(factors, f)):
            found.setdefault(unit, set()).add((k, i))
    return {frozenset(c) for c in found.values()}


@st.composite
def expressions(draw: st.DrawFn, factors: Factors, size: int, depth: int = 3) -> int:
    """An expression of products and sums over fresh leaves."""
    kind = draw(st.sampled_from(["leaf", "product", "sum"])) if depth and size > 1 else "leaf"
    if kind == "product":
        lead = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        parts = [draw(expressions(factors, n, depth - 1)) for n in (lead, size // lead)]
        return factors.product(parts)
    if kind == "sum":
        at = draw(st.integers(1, size - 1))
        return factors.sum([draw(expressions(factors, n, depth - 1)) for n in (at, size - at)])
    return factors.leaf(size)


def well_formed(factors: Factors, f: int) -> None:
    """Sizes add up and multiply on every level, and terms without conditions cover each position once."""
    root = factors.find(f)
    parts = factors.parts(root)
    if factors.form(root) is Form.PRODUCT:
        assert prod(factors.size(p) for p in parts) == factors.size(root)
    if factors.form(root) is Form.SUM:
        assert sum(factors.size(p) for p in parts) == factors.size(root)
    if factors.form(root) is Form.FAMILY:
        assert {factors.size(p) for p in parts} == {factors.size(root)}
        assert factors.cuts(root)[-1] == factors.size(factors.index(root))
    ends = factors.boundaries(root)
    assert ends[0] == 0
    assert ends[-1] == factors.size(root)
    assert [b - a for a, b in pairwise(ends)] == [factors.size(p) for p in factors.pieces(root)]
    for part in parts:
        well_formed(factors, part)
    if not list(factors.families(root)):
        positions = sorted(i for _, row in shown(factors, root) for i in row)
        assert positions == list(range(factors.size(root)))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([2, 4, 6, 8, 12]))
def test_split_and_product_are_inverse(data, size):
    """Where a split fits, it refines f into a product of its halves, of the sizes asked for."""
    factors = Factors()
    f = data.draw(expressions(factors, size))
    lead = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    halves = factors.split(f, lead)
    if halves is None:
        well_formed(factors, f)
        return
    assert tuple(map(factors.size, halves)) == (lead, size // lead)
    assert shown(factors, f) == shown(factors, factors.product(halves))
    well_formed(factors, f)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([2, 3, 4, 6, 8, 12]))
def test_cut_and_sum_are_inverse(data, size):
    """Cutting f anywhere makes it the sum of its pieces, in order."""
    factors = Factors()
    f = data.draw(expressions(factors, size))
    at = data.draw(st.integers(1, size - 1))
    left, right = factors.cut(f, at)
    assert (factors.size(left), factors.size(right)) == (at, size - at)
    first, second = units(factors, left), units(factors, right)
    assert units(factors, f) == [*first, *second] == units(factors, factors.sum((left, right)))
    well_formed(factors, f)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([4, 6, 8, 12]))
def test_spans_are_the_pieces_at_all_cuts(data, size):
    """spans(f, cuts) are pieces of the sizes between the cuts, and their concatenation is f."""
    factors = Factors()
    f = data.draw(expressions(factors, size))
    cuts = (0, *sorted(data.draw(st.sets(st.integers(1, size - 1), max_size=3))), size)
    found = factors.spans(f, cuts)
    assert [(a, b) for a, b, _ in found] == list(pairwise(cuts))
    assert [u for _, _, p in found for u in units(factors, p)] == units(factors, f)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from([2, 4, 6, 12]))
def test_unify_makes_two_factors_one(data, size):
    """After unify(f, g) both have the same terms, unless they clash, and then all of both is frozen."""
    factors = Factors()
    f, g = data.draw(expressions(factors, size)), data.draw(expressions(factors, size))
    unify(factors, f, g, HERE)
    if factors.rigid:
        return
    assert shown(factors, f) == shown(factors, g)
    well_formed(factors, f)


def replay(plan: list[tuple[str, int]], size: int, pairs: list[tuple[int, int]]) -> tuple[Factors, list[int]]:
    """Axes refined as planned, then unified in the order of the pairs."""
    factors = Factors()
    axes: list[int] = []
    for kind, n in plan:
        f = factors.leaf(size)
        if kind == "split":
            factors.split(f, n)
        elif kind == "cut":
            factors.cut(f, n)
        axes.append(f)
    for a, b in pairs:
        unify(factors, axes[a], axes[b], HERE)
    return factors, axes


plans = st.lists(
    st.sampled_from([("leaf", 0), ("split", 2), ("split", 3), ("split", 6), ("cut", 3), ("cut", 6), ("cut", 8)]),
    min_size=3,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(plans, st.data())
def test_unify_is_idempotent_symmetric_and_associative(plan, data):
    """In whatever order and direction axes are unified, and however often, the units that are one are the same."""
    pairs = [(k, k + 1) for k in range(len(plan) - 1)]
    factors, axes = replay(plan, 12, pairs)
    reference = (
        classes(factors, axes) if not factors.rigid and not any(list(factors.families(f)) for f in axes) else None
    )
    shuffled = [data.draw(st.sampled_from([p, p[::-1]])) for p in data.draw(st.permutations(pairs))]
    again, others = replay(plan, 12, [*shuffled, *shuffled, (0, len(plan) - 1)])
    assert bool(again.rigid) == bool(factors.rigid)
    if reference is not None and not any(list(again.families(f)) for f in others):
        assert classes(again, others) == reference


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([6, 8, 12]))
def test_refinement_is_everywhere_at_once(data, size):
    """A tensor seen before a refinement resolves to the same terms as one that is seen after."""
    factors = Factors()
    f = factors.leaf(size)
    holder = factors.product((factors.leaf(2), f))
    total = factors.sum((f, factors.leaf(3), f))
    if data.draw(st.booleans()):
        factors.cut(f, data.draw(st.integers(1, size - 1)))
    else:
        factors.split(f, 2)
    inner = units(factors, f)
    assert units(factors, holder) == [(((factors.parts(holder)[0]), k), *u) for k in range(2) for u in inner]
    assert units(factors, total)[:size] == inner == units(factors, total)[-size:]


# -- hard cases ---------------------------------------------------------------------------------------------------


def test_a_product_against_a_sum():
    """A channel shuffle that is then split: (g c) cut into halves along g leaves c one factor, and g in two pieces."""
    factors = Factors()
    g, c = factors.leaf(4), factors.leaf(3)
    shuffled = factors.product((g, c))
    left, right = factors.cut(shuffled, 6)
    assert factors.parts(left)[-1] == factors.parts(right)[-1] == factors.find(c)
    assert factors.form(g) is Form.SUM
    assert units(factors, shuffled) == [*units(factors, left), *units(factors, right)]
    inside = factors.product((factors.leaf(2), factors.leaf(5)))
    before, after = factors.cut(inside, 3)
    assert (factors.size(before), factors.size(after)) == (3, 7)
    assert sorted(i for _, row in shown(factors, inside) for i in row) == list(range(10))


def test_a_concatenation_read_as_rows():
    """x + y of 6 and 9 in rows of 3: 2 + 3 rows, whose columns are those of x and those of y apart."""
    factors = Factors()
    x, y = factors.leaf(6), factors.leaf(9)
    halves = factors.split(factors.sum((x, y)), 5)
    assert halves is not None
    rows, columns = halves
    assert [factors.size(p) for p in factors.pieces(rows)] == [2, 3]
    assert factors.form(columns) is Form.FAMILY
    assert factors.index(columns) == factors.find(rows)
    assert factors.parts(columns) == (factors.parts(x)[1], factors.parts(y)[1])
    covered = sorted(int(i) for t in Expansion(factors).terms(factors.product(halves)) for i in t.positions.flat)
    assert covered == list(range(15))


def test_rows_across_the_seam_of_a_sum():
    """x + y of 4 and 4 in rows of 6 and 2 has no rows; in rows of 8 one, in rows of 2 four."""
    factors = Factors()
    total = factors.sum((factors.leaf(4), factors.leaf(4)))
    assert factors.split(total, 4) is not None
    assert factors.split(factors.sum((factors.leaf(3), factors.leaf(3))), 3) is not None


def test_one_factor_twice_in_a_sum():
    """Rotary halves: p + p is cut into p and p, and refining p refines both."""
    factors = Factors()
    p = factors.leaf(4)
    total = factors.sum((p, p))
    left, right = factors.cut(total, 4)
    assert left == right == factors.find(p)
    factors.split(p, 2)
    first, second = units(factors, total)[:4], units(factors, total)[4:]
    assert first == second
    other = factors.leaf(8)
    unify(factors, other, total, HERE)
    assert units(factors, other)[:4] == units(factors, other)[4:]


def test_fused_queries_keys_and_values():
    """(3 h d) sliced along 3 gives d and h an instance per index; unifying q with k ties those two and leaves v."""
    factors = Factors()
    three, h, d = (factors.leaf(n) for n in (3, 2, 4))
    factors.spans(three, (0, 1, 2, 3))
    cuts = (0, 1, 2, 3)
    for leaf, n in ((h, 2), (d, 4)):
        factors.become(leaf, factors.family(three, cuts, [factors.leaf(n) for _ in range(3)]))
    parts = [[factors.restrict(f, three, span) for f in (h, d)] for span in factors.spans(three, cuts)]
    assert len({factors.find(f) for row in parts for f in row}) == 6
    q, k, v = parts
    for a, b in zip(q, k, strict=True):
        unify(factors, a, b, HERE)
    assert [factors.find(f) for f in q] == [factors.find(f) for f in k]
    assert factors.find(v[0]) != factors.find(q[0])
    assert factors.find(v[1]) != factors.find(q[1])
    terms = [Expansion(factors).terms(f) for f in (three, factors.product((h, d)))]
    count = np.zeros((3, 8), int)
    for a in terms[0]:
        for b in terms[1]:
            if meet(a.condition, b.condition) is not None:
                count[np.ix_(a.positions.reshape(-1), b.positions.reshape(-1))] += 1
    assert (count == 1).all()


def test_a_family_that_meets_itself_terminates():
    """Unifying a family with a family that holds it, or with its own member, ends with all of them one."""
    factors = Factors()
    a, b = factors.leaf(2), factors.leaf(3)
    index, outer = factors.sum((a, b)), factors.sum((b, a))
    x, y, z = (factors.leaf(4) for _ in range(3))
    inner = factors.family(index, (0, 2, 5), (x, y))
    nested = factors.family(outer, (0, 3, 5), (inner, z))
    unify(factors, nested, inner, HERE)
    assert factors.find(nested) == factors.find(inner)
    unify(factors, inner, x, HERE)
    assert factors.find(inner) == factors.find(x) == factors.find(y)


def test_collapse_removes_families_without_their_index():
    """A tensor that lacks the index of a family makes its members one."""
    factors = Factors()
    index = factors.sum((factors.leaf(2), factors.leaf(3)))
    x, y = factors.leaf(4), factors.leaf(4)
    family = factors.family(index, (0, 2, 5), (x, y))
    collapse(factors, [(index, family)])
    assert factors.find(x) != factors.find(y)
    collapse(factors, [(index, family), (family,)])
    assert factors.find(x) == factors.find(y) == factors.find(family)


def test_groupings_without_a_common_refinement_are_frozen():
    """(3 4) against (4 3): all four factors are frozen, with the place in the reason."""
    factors = Factors()
    f, g = (factors.product((factors.leaf(a), factors.leaf(b))) for a, b in ((3, 4), (4, 3)))
    unify(factors, f, g, HERE)
    assert set(factors.rigid) == {*factors.leaves(f), *factors.leaves(g)}
    assert all(pin.kind is PinKind.GROUPING and pin.place == "Add 'here'" for pin in factors.rigid.values())
    assert set(factors.rigid) <= set(factors.pins)


@pytest.mark.parametrize("text", ["no rule", "opaque: a name of theirs", "cut at Add 'there'", "in place"])
def test_the_words_of_a_pin_decide_nothing(text):
    """A pin of a missing rule gives way to a true one, and no other does, whatever either says."""
    missing = Pin(PinKind.OPAQUE, text, "Odd", "it's at 'x'")
    true = Pin(PinKind.OBSTACLE, text, "Odd", "it's at 'x'")
    for first, second, kept in ((missing, true, true), (true, missing, true), (true, OUTPUT, true)):
        factors = Factors()
        f = factors.leaf(3, first)
        factors.pin(f, second)
        assert factors.pins[f] == kept
    assert str(missing) == f"opaque: {true}" == f"""opaque: {text} at Odd "it's at 'x'\""""


def test_pins_pass_to_what_a_leaf_becomes():
    """A pinned leaf that is split, cut or unified leaves its reason with every part; holders and reasons as well."""
    factors = Factors()
    f = factors.leaf(12, INPUT)
    factors.holders[f] = {"x"}
    factors.split(f, 3)
    first, second = factors.parts(f)
    factors.cut(first, 1)
    assert {factors.pins[x] for x in factors.leaves(f)} == {INPUT}
    other = factors.leaf(4)
    unify(factors, other, second, HERE)
    assert factors.pins[factors.find(other)] == INPUT
    assert all(factors.holders[x] == {"x"} for x in factors.leaves(second))


def test_factors_of_one_unit_vanish():
    """Size 1 carries nothing in a product; in a sum a piece of one unit keeps its place."""
    factors = Factors()
    a = factors.leaf(4)
    assert factors.leaf(1) == ONE
    assert factors.product((ONE, a, ONE)) == a
    assert factors.product(()) == ONE
    left, right = factors.cut(a, 1)
    assert (factors.size(left), factors.size(right)) == (1, 3)
    assert [len(row) for _, row in shown(factors, a)] == [1, 3]


# -- depth ---------------------------------------------------------------------------------------------------------


def test_a_long_chain_of_unify():
    """20,000 axes that are unified one after another are one factor."""
    factors = Factors()
    leaves = [factors.leaf(8) for _ in range(20_000)]
    for a, b in pairwise(leaves):
        unify(factors, a, b, HERE)
    assert {factors.find(f) for f in leaves} == {factors.find(leaves[0])}


def nested(depth: int, *, seen: bool) -> tuple[Factors, int]:
    """A concatenation in a concatenation, `depth` times; `seen` makes each of them the index of a family."""
    factors = Factors()
    total = factors.leaf(2)
    for _ in range(depth):
        total = factors.sum((total, factors.leaf(2)))
        if seen:
            ends = (0, factors.size(total) - 2, factors.size(total))
            factors.family(total, ends, (factors.leaf(3), factors.leaf(3)))
    return factors, total


@pytest.mark.parametrize(
    "seen",
    [False, pytest.param(True, marks=pytest.mark.xfail(raises=RecursionError, strict=True, reason="it recurses"))],
)
def test_two_thousand_nested_concatenations(seen):
    """A chain of 2,000 concatenations, as in a dense network, is expanded, cut and unified without recursion."""
    factors, total = nested(2_000, seen=seen)
    assert len(list(factors.leaves(total))) == 2_001
    assert sum(t.positions.size for t in Expansion(factors).terms(total)) == 4_002
    left, _ = factors.cut(total, 1)
    assert factors.size(left) == 1
    unify(factors, total, factors.leaf(4_002), HERE)


def test_two_thousand_nested_cuts():
    """A factor that is cut 2,000 times from the back is still expanded without recursion."""
    factors = Factors()
    f = factors.leaf(4_000)
    rest = f
    for k in range(2_000):
        rest, _ = factors.cut(rest, 4_000 - 1 - k)
    assert sum(t.positions.size for t in Expansion(factors).terms(f)) == 4_000
