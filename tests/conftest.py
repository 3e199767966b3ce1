"""What all tests share: the corpora beside the repository, a small network, and a terminal of 80 columns."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from corpora import ROOT, SHARED, sample_seed
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper

SHARES = {"test_soundness.py": 8, "test_confirmed.py": 8, "test_resizing.py": 4, "test_loops.py": 4}
"""One slow test in so many runs each time, of these files; of others one in `SPARSE`."""
SPARSE = 20

# How long an example takes says more of the machine, and of what else it does, than of the law.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

LONGEST = "test_networks_of_this_commit"
"""Begins first, so that no process works on it when the others are done."""
NOT_YET = {
    "test_fix.py::test_what_is_planted_in_many_spaces_is_taken_away[dlrm]": "equal units of one product are not merged",
    "test_confirmed.py::test_findings_on_trained_networks_hold_in_onnxruntime[ppocrv4-rec]": "an edit is seen",
    "test_soundness.py::test_each_kind_alone_keeps_every_output_and_a_wrong_element_does_not[truth-siamese_abs-sign]": (
        "a wrong sign shows too little"
    ),
}
"""What is wrong on networks that the corpora were given to show it, and not mended yet."""


def pytest_report_header() -> str:
    """Which of the slow tests run."""
    return f"SYMLINT_SAMPLE={sample_seed()}" if SHARED.is_dir() else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the corpora are skipped where these are missing; of slow ones on single networks one in twenty runs,
    where onnxruntime judges what is claimed more.

    Which one changes with the day and is told as ``SYMLINT_SAMPLE``, which may be set to run the same again; all
    run with ``SYMLINT_ALL=1``, and one that is asked for by name always does.
    """
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("corpus"):
            item.add_marker(pytest.mark.corpus)
        if item.get_closest_marker("corpus") and not SHARED.is_dir():
            # In front, since an empty set of networks is a reason that says nothing.
            item.add_marker(pytest.mark.skip(reason=_missing()), append=False)
    items.sort(key=lambda item: item.name != LONGEST)
    for item in items:
        if reason := NOT_YET.get(f"{item.path.name}::{item.nodeid.partition('::')[2]}"):
            item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    if os.environ.get("SYMLINT_ALL") or any("::" in argument for argument in config.args):
        return
    seed, kept, left = sample_seed(), [], []
    for item in items:
        single = item.get_closest_marker("slow") and "[" in item.name
        share = SHARES.get(item.path.name, SPARSE)
        (left if single and zlib.crc32(f"{seed} {item.name}".encode()) % share else kept).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Networks that others published, and references; the tests that need them are skipped without."""
    if not SHARED.is_dir():
        pytest.skip(_missing())
    return SHARED


def _missing() -> str:
    return f"no corpora at {SHARED} (SYMLINT_SHARED names another folder)"


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed, at no other widths either, nor computed in float64: none of it decides what a fix does."""

    def refuse(*args: object, **names: object) -> None:
        raise RuntimeError("no time")

    monkeypatch.setattr("symlint.repair.cost.latency", refuse)
    monkeypatch.setattr("symlint.cli.commands.fix_model.ROUND", ())
    monkeypatch.setattr("symlint.runtime.proof.SMALL", (0, 0))


@pytest.fixture
def perceptron(tmp_path: Path) -> Callable[..., Path]:
    """Writes `Gemm, Relu, Gemm` with random weights under a name; `edit` may change the weights first."""

    def write(
        name: str = "model.onnx", edit: Callable[[dict[str, np.ndarray]], None] | None = None, activation: str = "Relu"
    ) -> Path:
        rng = np.random.default_rng(7)
        weights = {
            "first.weight": rng.normal(size=(6, 4)).astype(np.float32),
            "first.bias": rng.normal(size=6).astype(np.float32),
            "second.weight": rng.normal(size=(3, 6)).astype(np.float32),
        }
        if edit:
            edit(weights)
        domain, _, op = activation.rpartition(".")
        nodes = [
            helper.make_node("Gemm", ["x", "first.weight", "first.bias"], ["a"], "first", transB=1),
            helper.make_node(op, ["a"], ["b"], "activation", domain=domain),
            helper.make_node("Gemm", ["b", "second.weight"], ["y"], "second", transB=1),
        ]
        graph = helper.make_graph(
            nodes,
            "perceptron",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
            [numpy_helper.from_array(value, key) for key, value in weights.items()],
        )
        opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
        return file

    return write
