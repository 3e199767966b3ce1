"""What is worked out of levels when it is read: the numbers that working all of them out at once gives."""

import numpy as np
import pytest

from symlint.clusters import BLOCK
from symlint.weights import Levels, Operand, Weight

RNG = np.random.default_rng(3)


def levels(dtype: str, channels: tuple[int, ...], shape: tuple[int, int] = (300, 700)) -> tuple[Levels, np.ndarray]:
    """Dequantised levels, with a zero point and a scale for every one of some channels."""
    info = np.iinfo(dtype)
    stored = RNG.integers(info.min, info.max, shape, endpoint=True).astype(dtype)
    zero = RNG.integers(max(info.min, -9), 9, channels).astype(np.float64)
    scale = RNG.uniform(0.5, 1.5, channels).astype(np.float32).astype(np.float64)
    made = Levels(lambda: stored, shape).then(Operand(np.subtract, zero, behind=True))
    return made.then(Operand(np.multiply, scale, behind=False)), (stored - zero) * scale


KINDS = [
    (dtype, channels) for dtype in ("int8", "uint8", "int16") for channels in ((1, 1), (300, 1), (1, 700), (300, 700))
]


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_levels_are_the_numbers_that_they_stand_for(dtype, channels):
    lazy, whole = levels(dtype, channels)
    assert np.array_equal(lazy(), whole)
    assert np.array_equal(lazy.present, whole != 0)
    assert lazy.full == (whole != 0).all()


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("turn", ["none", "transposed", "cut", "split"])
def test_a_view_of_levels_is_the_view_of_their_numbers(dtype, channels, turn):
    lazy, whole = levels(dtype, channels)
    views = {
        "none": lambda a: a,
        "transposed": lambda a: a.T,
        "cut": lambda a: a[20:220],
        "split": lambda a: a.reshape(300, 7, 100).transpose(1, 0, 2).reshape(7 * 300, 100),
    }
    wanted = views[turn](whole)
    seen = Weight(lazy.shape, "float64", lazy, ("w",), levels=True).view(wanted.shape, turn, views[turn]).read
    assert isinstance(seen, Levels)
    assert np.array_equal(seen(), wanted)
    assert np.array_equal(seen.present, wanted != 0)
    found = np.zeros(wanted.shape)
    for place, block in seen.blocks():
        assert block.size <= max(BLOCK, *wanted.shape)
        found[place] = block
    assert np.array_equal(found, wanted)


def test_levels_of_which_several_vanish_are_all_absent():
    stored = np.arange(-128, 128).astype(np.int8).reshape(16, 16)
    tiny = Levels(lambda: stored, (16, 16)).then(Operand(np.multiply, np.full((1, 1), 1e-33), behind=True))
    assert not tiny.present.any()
    assert not tiny.full
