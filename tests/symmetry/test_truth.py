"""Completeness: the inferred dimension against the measured one, parameters less the rank of the Jacobian."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from combined_networks import COMBINED
from corpora import SHARED
from networks import SMALL, Arrays, Net
from onnx.reference import ReferenceEvaluator
from routed_networks import ROUTED
from turned_networks import TURNED

from symlint.model.graph import Model
from symlint.model.load import load
from symlint.symmetry.dimension import _generic, dimension, tangents
from symlint.symmetry.inference import examine, infer

NETWORKS = sorted(p.stem for p in (SHARED / "truth").glob("*.onnx"))
NETS = {**SMALL, **ROUTED, **TURNED, **COMBINED}
FLOOR = 0.97
SEEDS = (11, 12, 13)


@pytest.fixture(scope="session")
def answers(shared: Path) -> dict[str, int]:
    """Network -> its measured dimension."""
    found: dict[str, int] = json.loads((shared / "truth" / "dimensions.json").read_text())
    return found


@pytest.mark.corpus
@pytest.mark.parametrize("name", NETWORKS)
def test_no_more_is_claimed_than_is_true(name, shared, answers):
    """The inferred dimension of a reference network never exceeds the measured one."""
    assert infer(load(shared / "truth" / f"{name}.onnx")).dimension <= answers[name]


@pytest.mark.corpus
def test_much_of_what_is_true_is_claimed(shared, answers):
    """Over all reference networks the inferred dimensions reach a share of the measured ones."""
    found = {name: infer(load(shared / "truth" / f"{name}.onnx")).dimension for name in answers}
    for name, answer in answers.items():
        print(f"{name:20s} {found[name]:3d} of {answer:3d}")  # noqa: T201
    print(f"{sum(found.values())} of {sum(answers.values())}")  # noqa: T201
    assert sum(found.values()) >= FLOOR * sum(answers.values())


KINKS = {"embedding": 6}
"""Directions at these weights alone: an entry of the table that is negative stays so, whatever the input."""

MISSING: dict[str, tuple[int, str]] = {
    "rotary_stored": (6, "matrices that mix the two units of a plane in tables of angles and in what they turn"),
    "rotary_looked_up": (14, "the same; rows of tables that are not looked up"),
    "exponential": (4, "a bias before Exp is a factor, which the reader divides out"),
    "post_norm_block": (4, "shears s -> s + (s . b) 1 of a stream that a norm reads, and a layer that undoes them"),
    "norm_then_padded_conv": (7, "the mean direction in the middle, 3; the shift, which that of all places undoes, 4"),
    "narrow_head": (1, "a bias where a narrow layer does not read, which another behind that takes back"),
    "dueling": (2, "the mean direction of a weight, which comes to a difference on two ways"),
    "dense_concat": (8, "any change of what is linear in a tensor beside it in a Concat, taken back by their reader"),
    "routed_hit_experts": (4, "units of single experts, which NonZero tells apart at run time"),
    "routed_in_loop": (4, "units of single experts, which a loop takes in turn"),
}
"""Small networks of which the engine does not find all directions: how many it lacks, and which."""

OVERLAPS: dict[str, str] = {
    "embedding_sum": "the mean direction of what two tables share is that of either",
}
"""Small networks of which the sum over generators counts directions twice, and why."""


def read(net: Net, folder: Path) -> Model:
    """A small network with weights, as a file that was loaded."""
    file = folder / "net.onnx"
    onnx.save(net.model("float32", net.values()), file)
    return load(file)


def jacobian(net: Net, values: Arrays) -> dict[str, np.ndarray]:
    """Parameter -> d outputs / d its elements, shape (outputs, elements), by central differences in float64.

    Outputs whose step crosses a kink are left out.
    """
    values = {n: v.copy() for n, v in values.items()}
    evaluator = ReferenceEvaluator(net.model("float64", {}))
    moving = [n for n in values if n not in net.statistics]

    def outputs(feeds: Arrays) -> np.ndarray:
        return np.ravel(evaluator.run(None, {**feeds, **values})[0])

    size = sum(values[n].size for n in moving)
    feeds = net.feeds(max(16, math.ceil(12 * size / outputs(net.feeds(1)).size)))
    here = outputs(feeds)
    smooth = np.ones(here.shape, bool)
    columns: dict[str, np.ndarray] = {}
    for name in moving:
        flat = values[name].reshape(-1)
        columns[name] = np.empty((here.size, flat.size))
        for k, middle in enumerate(flat.copy()):
            step = 1e-6 * max(1.0, abs(middle))
            flat[k] = middle + step
            above = outputs(feeds)
            flat[k] = middle - step
            below = outputs(feeds)
            flat[k] = middle
            smooth &= np.abs(above + below - 2 * here) <= 1e-9 * (1 + np.abs(here))
            columns[name][:, k] = (above - below) / (2 * step)
    return {n: c[smooth] for n, c in columns.items()}


def nullity(net: Net, seed: int) -> int:
    """Parameters less the rank of the Jacobian."""
    matrix = np.concatenate(list(jacobian(net, net.values(seed)).values()), axis=1)
    norms = np.linalg.norm(matrix, axis=0)
    # A column of pure noise stays one.
    singular = np.linalg.svd(matrix / np.where(norms > 1e-7 * norms.max(), norms, norms.max()), compute_uv=False)
    return matrix.shape[1] - int((singular > 1e-7 * singular[0]).sum())


@pytest.mark.parametrize("name", NETS)
def test_the_dimension_of_a_small_network(name, tmp_path):
    """The rank of the generators' tangent vectors is what the Jacobian's null space has, and theory counts."""
    net = NETS[name]
    found = infer(read(net, tmp_path)).dimension
    # At one draw of weights a unit with a kink may never switch, which adds directions that are no symmetry.
    truth = min(nullity(net, seed) for seed in SEEDS) - KINKS.get(name, 0)
    assert found <= truth
    assert truth == net.dimension
    missing, what = MISSING.get(name, (0, ""))
    assert truth - found == missing, what


@pytest.mark.parametrize("name", NETS)
def test_every_direction_is_one_of_the_network(name, tmp_path):
    """No generator's tangent vector changes an output, so that what one lacks does not hide what another invents."""
    _, structure = examine(read(NETS[name], tmp_path))
    weights = _generic(structure, 0, positive=False)
    columns = jacobian(NETS[name], {n: np.array(v, np.float64) for n, v in weights.items()})
    largest = max(float(np.abs(c).max(initial=0)) for c in columns.values())
    for vector in tangents(structure):
        parts = np.split(vector, np.cumsum([weights[n].size for n in sorted(weights)])[:-1])
        moved = {n: part / np.abs(vector).max() for n, part in zip(sorted(weights), parts, strict=True) if part.any()}
        assert moved.keys() <= columns.keys()
        change = sum(columns[n] @ part for n, part in moved.items())
        assert np.abs(change).max(initial=0) <= 1e-6 * largest


@pytest.mark.parametrize("name", NETS)
def test_overlaps_are_counted_once(name, tmp_path):
    """What is told of a network too large for ranks, the sum over generators, is the rank where that can be taken."""
    symmetry, structure = examine(read(NETS[name], tmp_path))
    assert (symmetry.dimension == dimension(structure)) == (name not in OVERLAPS), OVERLAPS.get(name)


@pytest.mark.corpus
@pytest.mark.parametrize("name", NETWORKS)
def test_overlaps_of_a_reference_network_are_counted_once(name, shared):
    """So it is for the reference networks."""
    symmetry, structure = examine(load(shared / "truth" / f"{name}.onnx"))
    assert symmetry.dimension == dimension(structure)
