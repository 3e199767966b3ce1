"""The laws of the exact nullspace, against dense linear algebra."""

from __future__ import annotations

from fractions import Fraction
from math import gcd

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from symlint.symmetry.charges.linear_system import LARGEST, nullspace

VARIABLES = 7
rationals = st.builds(Fraction, st.integers(-3, 3), st.integers(1, 3))
rows = st.dictionaries(st.integers(0, VARIABLES - 1), rationals.filter(bool), min_size=1, max_size=4)
equalities = st.tuples(st.integers(0, VARIABLES - 1), st.integers(0, VARIABLES - 1)).filter(lambda p: p[0] != p[1])
systems = st.lists(rows | equalities.map(lambda p: {p[0]: Fraction(1), p[1]: Fraction(-1)}), max_size=9)


def dense(system):
    matrix = np.zeros((len(system), VARIABLES))
    for k, row in enumerate(system):
        for v, c in row.items():
            matrix[k, v] = float(c)
    return matrix


@settings(max_examples=400, deadline=None)
@given(systems)
def test_the_solutions_are_a_basis(system):
    """Every solution satisfies every equation exactly, they are independent, and there are variables less rank."""
    found = nullspace(system, range(VARIABLES))
    for solution in found:
        for row in system:
            assert sum((c * solution.get(v, Fraction(0)) for v, c in row.items()), Fraction(0)) == 0
    rank = np.linalg.matrix_rank(dense(system)) if system else 0
    assert len(found) == VARIABLES - rank
    if found:
        basis = np.array([[float(s.get(v, 0)) for v in range(VARIABLES)] for s in found])
        assert np.linalg.matrix_rank(basis) == len(found)


@settings(max_examples=200, deadline=None)
@given(systems, st.sets(st.integers(0, VARIABLES - 1)))
def test_the_wanted_variables_see_the_projection(system, wanted):
    """Restricted to some variables, the solutions span the projection of all solutions."""
    some = nullspace(system, sorted(wanted))
    everything = nullspace(system, range(VARIABLES))
    columns = sorted(wanted)
    full = np.array([[float(s.get(v, 0)) for v in columns] for s in everything] or [[0.0] * len(columns)])
    mine = np.array([[float(s.get(v, 0)) for v in columns] for s in some] or [[0.0] * len(columns)])
    if columns:
        rank = np.linalg.matrix_rank(full)
        assert np.linalg.matrix_rank(mine) == rank == np.linalg.matrix_rank(np.vstack([full, mine]))
    assert all(set(s) <= wanted and all(s.values()) for s in some)


@settings(max_examples=200, deadline=None)
@given(systems)
def test_solutions_are_the_smallest_whole_numbers(system):
    """The entries of a solution are whole, small and have no common divisor, or the largest is one."""
    for solution in nullspace(system, range(VARIABLES)):
        whole = all(value.denominator == 1 for value in solution.values())
        largest = max(map(abs, solution.values()))
        assert largest == 1 or (whole and largest <= LARGEST and gcd(*map(int, solution.values())) == 1)


def test_powers_that_no_number_could_take_are_small():
    """Three to the power of two million, which an exponent of 2.0001 in float32 would ask for, is infinite."""
    (solution,) = nullspace([{0: Fraction(float(np.float32(2.0001))), 1: Fraction(-1)}], range(2))
    assert solution[1] == 1
    assert float(solution[0]) == 1 / float(np.float32(2.0001))


@settings(max_examples=100, deadline=None)
@given(systems, st.randoms())
def test_the_order_of_the_equations_does_not_matter(system, random):
    """The solutions span the same space in whatever order the equations come."""
    shuffled = list(system)
    random.shuffle(shuffled)
    found = [nullspace(s, range(VARIABLES)) for s in (system, shuffled)]
    spans = [
        np.array([[float(s.get(v, 0)) for v in range(VARIABLES)] for s in f] or [[0.0] * VARIABLES]) for f in found
    ]
    ranks = [np.linalg.matrix_rank(m) for m in (*spans, np.vstack(spans))]
    assert len(set(ranks)) == 1


def test_a_long_chain_costs_next_to_nothing():
    """A chain of 100,000 equalities, and one of 3,000 doublings, are solved without recursion."""
    chain = [{k: Fraction(1), k + 1: Fraction(-1)} for k in range(100_000)]
    assert nullspace(chain, (0, 100_000)) == [{0: Fraction(1), 100_000: Fraction(1)}]
    doubling = [{k: Fraction(2), k + 1: Fraction(-1)} for k in range(3_000)]
    (solution,) = nullspace(doubling, (0, 3_000))
    assert solution[3_000] / solution[0] == 2**3_000


def test_what_no_equation_names_is_free():
    """A variable without an equation is a solution of its own; one that is zero is none."""
    assert nullspace([], (3,)) == [{3: Fraction(1)}]
    assert nullspace([{3: Fraction(2)}], (3,)) == []
    assert nullspace([], ()) == []
