"""The laws of every kind of generator: its elements, its directions, its group and what it moves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from corpora import SHARED

from symlint.model.load import load
from symlint.symmetry.actions.base import Action
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.spaces import Symmetry
from symlint.symmetry.structure import Structure

FILES = {
    "UnitPermutation": "truth/tied_ae_relu.onnx",
    "PartExchange": "truth/moe_loop.onnx",
    "UnitRescaling": "truth/tied_ae_relu.onnx",
    "TensorRescaling": "zoo/siamese.onnx",
    "PositionRescaling": "truth/shuffle_unit.onnx",
    "SignFlip": "truth/lora.onnx",
    "InvertibleMap": "truth/lora.onnx",
    "OrthogonalMap": "truth/rmsnorm_swiglu.onnx",
    "PlaneRotation": "zoo/llama.onnx",
    "Shift": "truth/lora.onnx",
    "UnseenChange": "zoo/deep_linear_bias.onnx",
}
"""Kind -> a small network that has it."""
STEP = 1e-4


def test_every_kind_is_tried():
    assert {kind.__name__ for kind in below(Action) if not inspect.isabstract(kind)} == set(FILES)


def below(kind: type) -> Iterator[type]:
    for inner in kind.__subclasses__():
        yield inner
        yield from below(inner)


@cache
def examined(name: str) -> tuple[Symmetry, Structure]:
    path = SHARED / name
    if not path.exists():
        pytest.skip("the corpora are not here")
    return examine(load(str(path)))


def kinds(kind: str) -> tuple[Symmetry, Structure, Action]:
    symmetry, structure = examined(FILES[kind])
    return symmetry, structure, next(a for a in structure.actions.values() if type(a).__name__ == kind)


def fresh(structure: Structure) -> Weights:
    return Weights(structure, lambda name: structure.program.model.tensors[name].read())


def change(before: Weights, after: Weights) -> dict[str, np.ndarray]:
    """How far each stored tensor that was moved is from what it was."""
    return {n: np.asarray(v, np.float64) - before.start(n) for n, v in after.now.items()}


@pytest.mark.parametrize("kind", FILES)
def test_an_element_moves_what_its_generator_names(kind):
    """Only tensors of the generator move, and the first alone where the move is wrong."""
    symmetry, structure, action = kinds(kind)
    told = next(g for g in symmetry.generators if g.id == action.id)
    assert (told.kind, told.space) == (action.kind, action.space)
    moved, misled = fresh(structure), fresh(structure)
    element = action.draw(structure, moved.numbers, np.random.default_rng(0))
    assert element.shape[: len(action.shape(structure))] == action.shape(structure)
    action.move(moved, element)
    action.move(misled, element, wrong=True)
    found = {n for n, by in change(fresh(structure), moved).items() if by.any()}
    assert found
    assert found <= {*told.tensors}
    assert len(misled.now) <= min(2, max(1, len(moved.now)))


@pytest.mark.parametrize("kind", FILES)
def test_a_step_ahead_and_one_behind_meet(kind):
    """Each continuous direction, up to the square of the step; a discrete group has none."""
    _, structure, action = kinds(kind)
    found = list(action.directions(structure, STEP))
    assert bool(found) == (action.kind not in ("permutation", "sign"))
    for ahead, behind in found[:: max(1, len(found) // 5)]:
        weights, there = fresh(structure), fresh(structure)
        action.move(there, ahead)
        action.move(weights, ahead)
        action.move(weights, behind)
        far = max((float(np.abs(c).max()) for c in change(fresh(structure), there).values()), default=0.0)
        left = max((float(np.abs(c).max()) for c in change(fresh(structure), weights).values()), default=0.0)
        assert left <= max(1e-6, 100 * STEP * far)
