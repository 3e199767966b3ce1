"""What is proven for inputs that lie where the user says, and that a finding says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from written import written

from symlint.cli.main import cli
from symlint.lint.configuration import read
from symlint.model.errors import UsageProblem

TEXT = "h = MatMul(x, w1) c = Add(h, b) r = Relu(c) y = MatMul(r, w2)"
IMAGE = '[[inputs]]\nname = "x"\nlow = 0\nhigh = 1\n'


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Of ten ReLUs the first three are off and the next two on wherever all numbers read are in [0, 1]."""
    rng = np.random.default_rng(0)
    first, bias = rng.normal(size=(6, 10)), rng.normal(size=10) * 0.1
    reach = np.maximum(first, 0).sum(axis=0), np.minimum(first, 0).sum(axis=0)
    bias[:3], bias[3:5] = -reach[0][:3] - 1, 1 - reach[1][3:5]
    return written(
        tmp_path / "m.onnx", TEXT, {"w1": first, "b": bias, "w2": rng.normal(size=(10, 3))}, ("n", 6), ("n", 3)
    )


def told(path: Path) -> dict[str, dict[str, object]]:
    document = json.loads(call("check", path, "--format", "json").stdout)
    return {f["rule"]: f for f in document["models"][0]["findings"] if f["evidence"] == "bounded"}


def test_relus_are_off_and_on_where_inputs_are_as_declared(network):
    assert told(network) == {}
    network.with_name("symlint.toml").write_text(IMAGE)
    found = told(network)
    assert {rule: f["units"] for rule, f in found.items()} == {"SYM101": [0, 1, 2], "SYM105": [3, 4]}
    for finding in found.values():
        assert "as long as x in [0, 1], as declared" in str(finding["message"])
        assert finding["facts"]["inputs"] == {"x": [0.0, 1.0]}


def test_a_fix_is_tried_where_inputs_are_as_declared(network, tmp_path):
    network.with_name("symlint.toml").write_text(IMAGE)
    out = tmp_path / "out.onnx"
    assert call("fix", network, "-o", out).exit_code == 0
    assert out.read_bytes() == network.read_bytes()
    result = call("fix", network, "-o", out, "--safety", "bounded")
    assert result.exit_code == 0, result.output
    assert "outputs in onnxruntime on 3 sets of inputs" in result.output
    assert "the outputs stay as long as x in [0, 1], as declared" in result.output
    assert "3 of 10" in result.output
    network.with_name("symlint.toml").write_text(IMAGE.replace('"x"', '"z"'))
    assert "nothing" in call("fix", network, "-o", out, "--safety", "bounded").output


def test_a_finding_that_holds_anyway_does_not_rest_on_it(tmp_path):
    """Behind a sigmoid everything is in [0, 1]."""
    rng = np.random.default_rng(0)
    weights = {"w0": rng.normal(size=(6, 4)), "w1": rng.normal(size=(4, 5)), "w2": rng.normal(size=(5, 3))}
    weights["b"] = rng.normal(size=5) * 0.1
    weights["b"][1] = -np.maximum(weights["w1"][:, 1], 0).sum() - 8
    text = f"s0 = MatMul(x, w0) s = Sigmoid(s0) {TEXT.replace('(x, w1)', '(s, w1)')}"
    path = written(tmp_path / "m.onnx", text, weights, ("n", 6), ("n", 3))
    before = told(path)
    assert before["SYM101"]["units"] == [1]
    path.with_name("symlint.toml").write_text(IMAGE)
    assert told(path)["SYM101"] == before["SYM101"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('name = "x"', "expected tables with name, and low or high or both"),
        ('name = "x"\nlow = 1\nhigh = 0', "input 'x': low is 1, above high, which is 0"),
        ('name = "x"\nlow = "0"', "expected a name in quotes and finite numbers"),
        ('name = "x"\nlow = 0\n[[inputs]]\nname = "x"\nhigh = 1', "input 'x' is declared twice"),
    ],
)
def test_a_declaration_that_means_nothing(tmp_path, lines, told):
    (tmp_path / "symlint.toml").write_text(f"[[inputs]]\n{lines}\n")
    with pytest.raises(UsageProblem, match="inputs: ") as raised:
        read(tmp_path)
    assert told in str(raised.value)
