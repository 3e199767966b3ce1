"""The options about states, from the command line and the configuration."""

from __future__ import annotations

import json

import onnx
import pytest
from click.testing import CliRunner
from stateful_networks import STATEFUL

from symlint.cli.main import cli


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture
def step(tmp_path):
    onnx.save(STATEFUL["recurrence"].model(), tmp_path / "step.onnx")
    return tmp_path / "step.onnx"


def inspected(*arguments):
    result = run("inspect", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_inspect_lists_states_with_where_they_were_found(step):
    assert inspected(step)["states"] == [
        {"input": "h_in", "output": "h_out", "axes": [0, 1], "source": "name", "start": "zero", "closed": True}
    ]
    assert "h_in <- h_out" in run("inspect", step).stdout
    assert inspected(step, "--states", "none")["states"] == []


def test_a_declared_state_and_one_that_is_read(step):
    (state,) = inspected(step, "--state", "h_in=h_out")["states"]
    assert state["source"] == "declared"
    closed, seen = inspected(step), inspected(step, "--state-is-output", "h_out")
    assert closed["dimension"] > seen["dimension"] == inspected(step, "--states", "none")["dimension"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--state", "h_in"), "is not IN=OUT"),
        (("--state", "h_inn=h_out"), "no input 'h_inn' for a state; did you mean"),
        (("--state", "x=y"), "are no state"),
        (("--state-is-output", "y"), "is the output of no state"),
    ],
)
def test_a_wrong_declaration_is_one_line(step, arguments, words):
    result = run("inspect", step, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_the_configuration_declares(step):
    table = "[[states]]\ninput = 'h_in'\noutput = 'h_out'\nstart = 'given'\n"
    (step.parent / "symlint.toml").write_text(table)
    (state,) = inspected(step)["states"]
    assert (state["source"], state["start"], state["closed"]) == ("declared", "given", False)
    (step.parent / "symlint.toml").write_text("find-states = false\n")
    assert inspected(step)["states"] == []
    assert inspected(step, "--states", "auto")["states"]
    (step.parent / "symlint.toml").write_text("[[states]]\ninput = 'h_in'\n")
    result = run("inspect", step)
    assert result.exit_code == 2
    assert "expected tables with input and output" in result.stderr


def test_verify_rolls_out_and_teleport_moves_states_when_asked(step, tmp_path):
    plain, moved = tmp_path / "plain.onnx", tmp_path / "moved.onnx"
    assert run("verify", step).exit_code == 0
    assert run("teleport", step, "-o", plain).exit_code == 0
    assert run("teleport", step, "-o", moved, "--states", "auto").exit_code == 0
    for other in (plain, moved):
        result = run("verify", step, other, "--format", "json")
        assert json.loads(result.stdout)["outcome"] == "held"
    # Step by step, for any state, only the first is the same.
    assert run("verify", step, plain, "--states", "none").exit_code == 0
    assert run("verify", step, moved, "--states", "none").exit_code == 1
