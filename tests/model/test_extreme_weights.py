"""Weights that no training leaves: the answer is an ordinary one, whatever a stored number is."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import SMALL
from written import written

from symlint.cli.main import cli

Change = Callable[[np.ndarray], np.ndarray]


def _one(number: float) -> Change:
    def change(x: np.ndarray) -> np.ndarray:
        made = x.copy()
        made.reshape(-1)[:1] = number
        return made

    return change


CHANGES: dict[str, Change] = {
    "huge": lambda x: np.sign(x) * np.float32(3e38),
    "tiny": lambda x: x * np.float32(1e-44),
    "zero": np.zeros_like,
    "one not a number": _one(np.nan),
    "one infinite": _one(np.inf),
    "one huge": _one(-3e38),
    "all alike": lambda x: np.full_like(x, 0.25),
    "negative": lambda x: -np.abs(x),
}


def answered(path: Path, *words: str) -> None:
    """A command ends in an answer."""
    done = CliRunner().invoke(cli, ["--debug", *words, str(path), "--format", "json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "report it" not in done.output
    json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_whatever_the_weights_are_there_is_an_answer(name, tmp_path):
    """No rule and no report stops at weights that are huge, tiny, alike, negative, or no numbers."""
    net, first = SMALL[name], zlib.crc32(name.encode())
    for k in (0, 3, 5):
        change = CHANGES[sorted(CHANGES)[(first + k) % len(CHANGES)]]
        path = tmp_path / f"{k}.onnx"
        onnx.save(net.model("float32", {n: change(v.astype(np.float32)) for n, v in net.values().items()}), path)
        answered(path, "check", "--select", "ALL", "--target", "int8")
        answered(path, "inspect")


@pytest.mark.parametrize(("name", "change"), [("pooled_conv", "one not a number"), ("weight_norm", "zero")])
def test_what_extreme_weights_once_stopped(name, change, tmp_path):
    """A basis of what is no number, and a rescaling of nothing but shared zeros."""
    path = tmp_path / "model.onnx"
    stored = {n: CHANGES[change](v.astype(np.float32)) for n, v in SMALL[name].values().items()}
    onnx.save(SMALL[name].model("float32", stored), path)
    answered(path, "check", "--select", "ALL")
    answered(path, "inspect")


WAYS = {
    "root of a stored number": ("r = Sqrt(c) z = Div(h, r)", np.full(1, 8.0)),
    "root of a learned vector": ("r = Sqrt(c) z = Mul(h, r)", np.linspace(1, 2, 5)),
    "logarithm": ("r = Log(c) z = Mul(h, r)", np.linspace(1, 2, 5)),
    "root that is no number": ("r = Sqrt(c) z = Mul(h, r)", np.linspace(-1, 2, 5)),
    "infinite": ("r = Reciprocal(c) z = Mul(h, r)", np.linspace(0, 2, 5)),
    "infinite shift": ("r = Log(c) z = Add(h, r)", np.linspace(0, 2, 5)),
    "power": ("r = Pow(c, half) z = Mul(h, r)", np.linspace(-1, 1, 5)),
    "arc": ("r = Asin(c) z = Mul(h, r)", np.linspace(-2, 2, 5)),
}
"""What a constant goes through before it meets a layer, and the constant."""


@pytest.mark.parametrize("way", WAYS)
def test_functions_that_take_no_negative_number(way, tmp_path):
    """Directions are counted at random weights, which a root or a logarithm of a weight may not take."""
    text, value = WAYS[way]
    rng = np.random.default_rng(3)
    stored = {"a": rng.normal(size=(4, 5)), "b": rng.normal(size=(5, 3)), "c": value, "half": np.array(0.5)}
    path = written(tmp_path / "model.onnx", f"h = MatMul(x, a) {text} y = MatMul(z, b)", stored, (2, 4))
    answered(path, "check", "--select", "ALL")
    answered(path, "inspect")
