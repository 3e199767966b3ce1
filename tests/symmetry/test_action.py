"""How elements of generators act on a tensor, against a computation index by index."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.axes.terms import Expansion
from symlint.symmetry.motion.action import permute, scale, stands

# An axis is a list of summands, each a list of leaves by name; the size of a leaf follows from its name.
SIZES = {"h": 2, "d": 3, "e": 4, "n": 2}
summands = st.lists(st.sampled_from("hden"), min_size=1, max_size=3)
layouts = st.lists(st.lists(summands, min_size=1, max_size=3), min_size=1, max_size=3).filter(
    lambda axes: prod(sum(prod(SIZES[x] for x in s) for s in axis) for axis in axes) <= 4000
)


class Layout:
    """The axes of a tensor in the engine's words, and index by index."""

    def __init__(self, axes: list[list[list[str]]]) -> None:
        self.axes = axes
        self.factors = Factors()
        self.leaf = {x: self.factors.leaf(n) for x, n in SIZES.items()}
        self.of = [
            self.factors.sum(self.factors.product(self.leaf[x] for x in summand) for summand in axis) for axis in axes
        ]
        self.expansion = Expansion(self.factors)
        self.units = [
            [self._units(axis, i) for i in range(self.factors.size(f))] for axis, f in zip(axes, self.of, strict=True)
        ]
        rng = np.random.default_rng(1)
        self.values = rng.normal(size=[self.factors.size(f) for f in self.of])

    @staticmethod
    def _units(axis: list[list[str]], i: int) -> tuple[int, list[tuple[str, int]]]:
        """The summand that holds position i, and its units there."""
        for k, summand in enumerate(axis):
            size = prod(SIZES[x] for x in summand)
            if i < size:
                return k, list(zip(summand, map(int, np.unravel_index(i, [SIZES[x] for x in summand])), strict=True))
            i -= size
        raise IndexError(i)

    def position(self, axis: int, summand: int, units: list[int]) -> int:
        """Where units of a summand lie."""
        before = sum(prod(SIZES[x] for x in s) for s in self.axes[axis][:summand])
        sizes = [SIZES[x] for x in self.axes[axis][summand]]
        return before + int(np.ravel_multi_index(units, sizes))

    def stands(self, name: str):
        return list(stands(self.expansion, self.of, self.leaf[name], ()))

    def permuted(self, name: str, order: np.ndarray) -> np.ndarray:
        """values[order on every occurrence]."""
        made = np.empty_like(self.values)
        for index in product(*(range(n) for n in self.values.shape)):
            source = []
            for k, i in enumerate(index):
                summand, units = self.units[k][i]
                source.append(self.position(k, summand, [int(order[u]) if x == name else u for x, u in units]))
            made[index] = self.values[tuple(source)]
        return made

    def scaled(self, name: str, factor: np.ndarray) -> np.ndarray:
        """values times the factor of every occurrence."""
        made = self.values.copy()
        for index in product(*(range(n) for n in self.values.shape)):
            for k, i in enumerate(index):
                made[index] *= prod(factor[u] for x, u in self.units[k][i][1] if x == name)
        return made


@settings(max_examples=80, deadline=None)
@given(layouts, st.sampled_from("hden"), st.randoms(use_true_random=False))
def test_a_permutation_moves_units_wherever_they_stand(axes, name, random):
    """In sums, products and on several axes at once, unit order[u] comes to where unit u was."""
    layout = Layout(axes)
    order = np.array(random.sample(range(SIZES[name]), SIZES[name]))
    assert np.array_equal(permute(layout.values, layout.stands(name), order), layout.permuted(name, order))


@settings(max_examples=80, deadline=None)
@given(layouts, st.sampled_from("hden"), st.randoms(use_true_random=False))
def test_a_permutation_and_its_inverse_are_the_identity(axes, name, random):
    """permute(inverse) undoes permute bit for bit."""
    layout = Layout(axes)
    found = layout.stands(name)
    order = np.array(random.sample(range(SIZES[name]), SIZES[name]))
    back = permute(permute(layout.values, found, order), found, np.argsort(order))
    assert np.array_equal(back, layout.values)


@settings(max_examples=80, deadline=None)
@given(layouts, st.sampled_from("hden"))
def test_a_scaling_multiplies_once_per_occurrence(axes, name):
    """A unit that stands twice in an element scales it twice."""
    layout = Layout(axes)
    found = layout.stands(name)
    factor = np.exp(np.random.default_rng(2).uniform(0.1, 1, SIZES[name]))
    charge = {(s.axis, s.term, s.place): Fraction(1) for s in found}
    assert np.allclose(scale(layout.values, found, factor, charge), layout.scaled(name, factor), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(layouts, st.sampled_from("hden"))
def test_scalings_multiply_and_invert(axes, name):
    """Charges of both signs: scaling by a then b is scaling by ab, and charge -1 undoes charge 1."""
    layout = Layout(axes)
    found = layout.stands(name)
    rng = np.random.default_rng(3)
    a, b = np.exp(rng.normal(size=(2, SIZES[name])))
    charge = {(s.axis, s.term, s.place): Fraction((-1) ** k, 1 + k % 2) for k, s in enumerate(found)}
    inverse = {place: -c for place, c in charge.items()}
    twice = scale(scale(layout.values, found, a, charge), found, b, charge)
    assert np.allclose(twice, scale(layout.values, found, a * b, charge), rtol=1e-10)
    assert np.allclose(scale(scale(layout.values, found, a, charge), found, a, inverse), layout.values, rtol=1e-10)


def test_copies_have_gauges_of_their_own():
    """With heads as copies, the head dimensions of every head move on their own, in axis ``(h d)`` and across axes."""
    factors = Factors()
    h, d, n = factors.leaf(2), factors.leaf(3), factors.leaf(4)
    together = [factors.product((h, d)), n]
    apart = [h, n, d]
    expansion = Expansion(factors)
    order = np.array([[1, 2, 0], [2, 1, 0]])
    x = np.random.default_rng(0).normal(size=(6, 4))
    moved = permute(x, list(stands(expansion, together, d, (h,))), order)
    rows = x.reshape(2, 3, 4)
    assert np.array_equal(moved.reshape(2, 3, 4), np.stack([rows[k][order[k]] for k in range(2)]))
    y = rows.transpose(0, 2, 1)
    moved = permute(y, list(stands(expansion, apart, d, (h,))), order)
    assert np.array_equal(moved, np.stack([y[k][:, order[k]] for k in range(2)]))
    factor = np.exp(np.random.default_rng(1).normal(size=(2, 3)))
    found = list(stands(expansion, apart, d, (h,)))
    charge = {(s.axis, s.term, s.place): Fraction(-1) for s in found}
    assert np.allclose(scale(y, found, factor, charge), y / factor[:, None, :])


def test_a_family_moves_only_where_it_stands():
    """``A ? x | y`` beside A: a permutation of x moves the rows of the first piece alone."""
    factors = Factors()
    a, b, x, y = factors.leaf(2), factors.leaf(3), factors.leaf(4), factors.leaf(4)
    index = factors.sum((a, b))
    axes = [index, factors.family(index, (0, 2, 5), (x, y))]
    expansion = Expansion(factors)
    values = np.random.default_rng(0).normal(size=(5, 4))
    order = np.array([1, 2, 3, 0])
    moved = permute(values, list(stands(expansion, axes, x, ())), order)
    assert np.array_equal(moved[:2], values[:2][:, order])
    assert np.array_equal(moved[2:], values[2:])
