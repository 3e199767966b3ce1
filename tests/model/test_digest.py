"""Digests against the same facts found in the plain way, in every type and layout."""

from __future__ import annotations

from itertools import combinations

import ml_dtypes
import numpy as np
import pytest

from symlint.model.graph import BLOCK, Digest, Digests, Tensor

SHAPES = [(7,), (5, 9), (1, 2 * BLOCK + 3), (BLOCK + 1, 2), (4, 3, 3, 5), (0, 3), (3, 0), (), (1, 1)]


def digest(values: np.ndarray) -> Digest:
    return Digest(Tensor("w", values.shape, values.dtype.name, lambda: values))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lines_are_as_large_as_their_largest_element(dtype, shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    found, plain = digest(values), np.abs(values.astype(np.float64))
    for count in range(1, len(shape) + 1):
        for kept in combinations(range(len(shape)), count):
            rest = tuple(k for k in range(len(shape)) if k not in kept)
            np.testing.assert_array_equal(found.largest(kept), plain.max(axis=rest, initial=0))
    assert found.most == plain.max(initial=0)
    assert found.blank is not plain.any()
    assert found.finite


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_numbers_that_are_not_finite_are_counted(dtype):
    values = np.random.default_rng(0).standard_normal((3, BLOCK)).astype(dtype)
    values[0, 0], values[1, 1:3], values[2, -3:] = np.nan, np.inf, -np.inf
    assert digest(values).extremes == (1, 2, 3)
    assert not digest(values).finite
    assert np.isnan(digest(values).most)
    assert digest(values[1:]).most == np.inf
    assert digest(values[1:, 3:-3]).finite


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16, np.int8])
@pytest.mark.parametrize("number", [0, -3])
def test_one_number_throughout(dtype, number):
    values = np.full((3, BLOCK), number, dtype)
    assert digest(values).uniform == number
    assert digest(values).blank is (number == 0)
    values[2, 5] = 3
    assert digest(values).uniform is None


def test_a_tensor_is_read_once_for_all_of_it():
    reads = []
    values = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)

    def read() -> np.ndarray:
        reads.append(1)
        return values

    tensor, digests = Tensor("w", values.shape, "float32", read), Digests()
    for kept in ((0,), (1,), (0,)):
        digests.of(tensor).largest(kept)
    assert digests.of(tensor).finite
    assert digests.of(tensor).uniform is None
    assert len(reads) == 1
    assert digests.of(Tensor("w", values.shape, "float32", read)) is not digests.of(tensor)
