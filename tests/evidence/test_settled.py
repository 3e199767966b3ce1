"""Settled weights: blocks against the whole worked out in the plain way, and entries that agree."""

from __future__ import annotations

import numpy as np
import pytest

from symlint.evidence.settled import Change, Settled, _repeated, cuts
from symlint.model.clusters import ABSENT, ROUNDING, precision
from symlint.model.graph import Tensor


def tensor(values: np.ndarray) -> Tensor:
    return Tensor("w", values.shape, values.dtype.name, lambda: values)


def plain(values: np.ndarray, changes: list[tuple[np.ndarray, ...]], rounding: float) -> np.ndarray:
    """Sums in which zero is what may be left by the rounding of the change, as large as it is along some axis."""
    made = values.astype(np.float64)
    for parts in changes:
        change = np.broadcast_to(np.prod(np.broadcast_arrays(*parts), axis=0), made.shape)
        made = made + change
        floor = np.minimum.reduce([np.abs(change).max(axis=k, keepdims=True) + 0 * change for k in range(made.ndim)])
        made = np.where(np.abs(made) <= ROUNDING * rounding * floor, 0.0, made)
    return made


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("shape", [(7,), (40, 30), (3, 5, 4, 6)], ids=str)
@pytest.mark.parametrize("constant", [False, True], ids=["random", "with constant rows"])
def test_blocks_are_the_sum(dtype, shape, constant):
    rng = np.random.default_rng(len(shape))
    values = rng.standard_normal(shape).astype(dtype)
    rows = (shape[0], *(1,) * (len(shape) - 1))
    if constant:
        values[: len(values) // 2] = 0.75
    mean = values.astype(np.float64).reshape(shape[0], -1).mean(axis=1).reshape(rows)
    changes = [(-mean,), (1e-3 * rng.standard_normal(rows), rng.standard_normal((1, *shape[1:])))]
    rounding = precision(values.dtype.name)
    settled = Settled(tensor(values), tuple(Change(parts, rounding) for parts in changes))
    want = plain(values, changes, rounding)
    np.testing.assert_array_equal(settled(), want)
    for size in (1, 13, 1 << 20):
        made = np.full(shape, np.nan)
        for cut, block in settled.blocks(size):
            made[cut] = block
        np.testing.assert_array_equal(made, want)
    assert settled.full is not bool((np.abs(want) < ABSENT).any())


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_certificate_in_single_precision_is_never_wrong(dtype):
    rng = np.random.default_rng(5)
    for _ in range(200):
        values = rng.integers(-3, 4, (6, 5)).astype(dtype) / 3
        change = Change((-rng.choice(values.reshape(-1), (1, 5)).astype(np.float64),), precision(values.dtype.name))
        settled = Settled(tensor(values), (change,))
        assert settled.full is not bool((np.abs(settled()) < ABSENT).any())


def test_blocks_cover_a_tensor_once():
    for shape in ((), (5,), (3, 4), (1, 7, 9), (2, 0, 3)):
        for size in (1, 5, 100):
            seen = np.zeros(shape, int)
            for cut in cuts(shape, size):
                seen[cut] += 1
            assert (seen == 1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("axis", [0, 1])
def test_entries_that_agree_are_found_whatever_lies_between(dtype, axis):
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((300, 24))
    rows[[11, 50, 51, 200]] = rows[11] * (1 + 1e-9 * rng.standard_normal((4, 24)))
    rows[[70, 71]] = rows[70]
    values = (rows if axis == 0 else rows.T).astype(dtype)
    tolerance = ROUNDING * precision(values.dtype.name)
    assert _repeated(Settled(tensor(values)), axis, {}, tolerance) == 11
    values = (rows[:11] if axis == 0 else rows[:11].T).astype(dtype)
    assert _repeated(Settled(tensor(values)), axis, {}, tolerance) is None
