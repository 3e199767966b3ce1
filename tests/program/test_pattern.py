"""Factor notation: what is read is what was written, and the sizes of labels follow from shapes."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symlint.program.lower import measure, parse, regroup, spread


def write(spec):
    """A spec in factor notation."""
    return " ".join("1" if not axis else axis[0] if len(axis) == 1 else f"({' '.join(axis)})" for axis in spec)


@pytest.mark.parametrize(
    ("pattern", "operands", "result"),
    [
        ("m k, k n -> m n", ((("m",), ("k",)), (("k",), ("n",))), (("m",), ("n",))),
        ("b (h d) -> b h d", ((("b",), ("h", "d")),), (("b",), ("h",), ("d",))),
        ("b c s -> b c 1", ((("b",), ("c",), ("s",)),), (("b",), ("c",), ())),
        ("k, ... k n -> ... n", ((("k",),), (("...",), ("k",), ("n",))), (("...",), ("n",))),
        ("a -> ", ((("a",),),), ()),
        ("b (g i) k0 o0, (g o) i k0 -> b (g o) o0", None, (("b",), ("g", "o"), ("o0",))),
        ("b () c -> b c", ((("b",), (), ("c",)),), (("b",), ("c",))),
    ],
)
def test_a_pattern_is_read_as_it_is_written(pattern, operands, result):
    """Operands, groups, axes of size 1 and an empty result have one reading."""
    read = parse(pattern)
    assert read[1] == result
    assert operands is None or read[0] == operands


labels = st.text("abcdefgh", min_size=1, max_size=2)
axes = st.lists(labels, max_size=3).map(tuple)
specs = st.lists(axes, min_size=1, max_size=4).map(tuple)


@settings(max_examples=200)
@given(st.lists(specs, min_size=1, max_size=3), specs)
def test_writing_and_reading_are_inverse(operands, result):
    """parse(write(spec)) is spec."""
    pattern = f"{', '.join(map(write, operands))} -> {write(result)}"
    assert parse(pattern) == (tuple(operands), result)


def test_a_pattern_without_an_arrow_is_refused():
    """The message quotes what was read."""
    with pytest.raises(ValueError, match=r"reads 'inputs -> output', not 'a b'"):
        parse("a b")


@pytest.mark.parametrize(
    ("pattern", "shapes", "written", "result"),
    [
        ("... m k, ... k n -> ... m n", [(2, 3, 4), (4, 5)], [".0 m k", "k n"], ".0 m n"),
        ("... m k, ... k n -> ... m n", [(2, 1, 3, 4), (6, 4, 5)], [".0 1 m k", ".1 k n"], ".0 .1 m n"),
        ("... m k, ... k n -> ... m n", [(1, 3, 4), (1, 4, 5)], ["1 m k", "1 k n"], "1 m n"),
        ("... k -> ...", [(2, 3, 4)], [".0 .1 k"], ".0 .1"),
        ("a b -> b a", [(2, 3)], ["a b"], "b a"),
    ],
)
def test_dots_are_aligned_from_the_right(pattern, shapes, written, result):
    """``...`` becomes labels as numpy broadcasts: from the right, and an axis of size 1 carries nothing."""
    operands, made = parse(pattern)
    found, out = spread(operands, shapes, made)
    assert [write(spec) for spec in found] == written
    assert write(out) == result


@settings(max_examples=200)
@given(st.data())
def test_sizes_are_found_from_shapes(data):
    """A label that stands alone somewhere, or beside known ones, has the size that the shapes imply."""
    sizes = {label: data.draw(st.integers(1, 5)) for label in "abcd"}
    spec = parse("a (a b) (b c) (d c) ->")[0]
    shape = tuple(prod(sizes[label] for label in axis) for axis in spec[0])
    assert measure(spec, [shape], {}) == sizes


def test_contradicting_sizes_are_refused():
    """The message names the axis, its size, and what the labels say."""
    with pytest.raises(ValueError, match="axis k has size 5, its labels say otherwise"):
        measure(parse("m k, k n ->")[0], [(3, 4), (5, 6)], {})
    with pytest.raises(ValueError, match="cannot be told apart"):
        measure(parse("(a b) ->")[0], [(6,)], {})
    with pytest.raises(ValueError, match="labels say otherwise"):
        measure(parse("1 a ->")[0], [(2, 3)], {})


def test_a_group_that_does_not_divide_is_refused():
    """An axis of 7 cannot be 2 groups of one size."""
    with pytest.raises(ValueError, match="labels say otherwise"):
        measure(parse("(a b) ->")[0], [(7,)], {"a": 2})


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        ((2, 12), (2, 3, 4), ("r0 (r1 r2)", "r0 r1 r2")),
        ((2, 3, 4), (6, 4), ("r0 r1 r2", "(r0 r1) r2")),
        ((6, 4), (3, 8), ("(r0 r1) r2", "r0 (r1 r2)")),
        ((4, 6), (6, 4), None),
        ((1, 6), (6, 1, 1), ("1 r0", "r0 1 1")),
        ((4, 6), (2, 12), ("(r0 r1) r2", "r0 (r1 r2)")),
        ((), (1, 1), ("", "1 1")),
        ((2, 3), (2, 4), None),
    ],
)
def test_a_reshape_is_a_regrouping(before, after, written):
    """Row-major groupings with a common refinement are written in its labels, others not at all."""
    found = regroup(before, after)
    assert (found and (write(found[0]), write(found[1]))) == written


@settings(max_examples=300)
@given(st.lists(st.integers(1, 4), max_size=4), st.data())
def test_a_regrouping_moves_no_element(fine, data):
    """Two groupings of one list of axes are regrouped, and the labels multiply to both shapes in one order."""
    shapes = []
    for _ in range(2):
        marks = [0, *sorted(data.draw(st.sets(st.integers(0, len(fine)), max_size=3))), len(fine)]
        shapes.append(tuple(prod(fine[a:b]) for a, b in pairwise(marks)))
    before, after = shapes
    found = regroup(before, after)
    assert found is not None
    old, new, sizes = found
    assert tuple(prod(sizes[x] for x in axis) for axis in old) == before
    assert tuple(prod(sizes[x] for x in axis) for axis in new) == after
    assert [x for axis in old for x in axis] == [x for axis in new for x in axis]


@pytest.mark.parametrize(("before", "after"), [((0, 3), (0,)), ((2, 0), (0, 5)), ((0,), (1, 0))])
def test_a_reshape_of_nothing_is_no_error(before, after):
    """An axis of no elements has no units; its reshape is a regrouping or None."""
    found = regroup(before, after)
    assert found is None or np.prod([found[2][x] for axis in found[1] for x in axis]) == 0
