"""Manners: wrong calls are told with a way out, what concerns all models once, faults of packages with their line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from symlint.audit.engine import audit
from symlint.cli.main import COMMANDS, cli
from symlint.evidence.options import Level
from symlint.lint.rule import rule, rules
from symlint.lint.settings import Settings
from symlint.model import operators
from symlint.model.errors import UsageProblem, raised


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",), ("inspect",), ("fix", "--dry-run"), ("teleport", "-o", "out.onnx"), ("verify",), ("config",),
        ("diff", "m.onnx"), ("verify", "m.onnx"), ("align", "m.onnx"),
        ("trace", "m.onnx", "--against"),
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("path", ["none.onnx", "folder"])
def test_where_there_is_no_model_the_exit_code_is_3(arguments, path, perceptron, monkeypatch):
    """Of a folder as well, but for the settings, which a folder has."""
    monkeypatch.chdir(perceptron("m.onnx").parent)
    Path("folder").mkdir()
    result = call(*arguments, path)
    assert result.exit_code == (0 if arguments == ("config",) and path == "folder" else 3), result.output


@pytest.mark.parametrize("command", ["inspect", "verify", "fix", "diff", "align", "trace"])
def test_one_document_is_printed_whatever_happens(command, tmp_path):
    other = str(tmp_path / "b.onnx")
    more = {"fix": ["--dry-run"], "diff": [other], "align": [other], "trace": ["--against", other]}.get(command, [])
    result = call(command, tmp_path / "a.onnx", *more, "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)["schema_version"]) == (3, "1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "m.onnx", "--kinds", "permutatoin"), "did you mean 'permutation'?"),
        (("teleport", "m.onnx", "-o", "o.onnx", "--kinds", "scale"), "there are permutation, rescaling"),
        (("teleport", "m.onnx", "-o", "o.onnx", "--only", "S1.rescalin"), "did you mean 'S1.rescaling'?"),
        (("verify", "m.onnx", "--only", ""), "names nothing"),
        (("teleport", "m.onnx", "-o", "no/o.onnx"), "its folder does not exist"),
        (("rule", ""), "`symlint rule` lists them"),
        (("rule", "dead-units"), "did you mean 'dead-unit'?"),
    ],
)
def test_a_wrong_word_is_told_with_a_way_out(arguments, words, perceptron, monkeypatch):
    monkeypatch.chdir(perceptron("m.onnx").parent)
    result = call(*arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_parts_are_parts(perceptron):
    model = perceptron("m.onnx")
    model.with_name("symlint.toml").write_text("[rules.SYM101]\nerror-share = 5\n")
    result = call("check", model)
    assert result.exit_code == 2
    assert "SYM101.error-share: expected a part from 0 to 1, not 5" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_exit_codes(name):
    assert "Exits with" in " ".join(call(name, "--help").output.split())


# -- mirrors ----------------------------------------------------------------------------------------------------------
def test_a_mirror_that_no_model_has_is_told_once(perceptron):
    """And one that some model has costs the others no word."""
    one, other = perceptron("a.onnx"), perceptron("b.onnx")
    mirror = '[[mirrors]]\nname = "{}"\ntensors = ["{}"]\nsurface = "swap 0 1"\n'
    other.with_name("symlint.toml").write_text(mirror.format("twins", "no.weight"))
    text = call("check", one, other, "-v").output
    assert text.count("mirror 'twins'") == 1
    assert "mirror 'twins': no model has any of its tensors" in text
    found = json.loads(call("check", one, other, "--format", "json").stdout)
    assert found["unmet_mirrors"] == ["twins"]
    assert [f["rule"] for m in found["models"] for f in m["findings"]] == []
    other.with_name("symlint.toml").write_text(mirror.format("twins", "first.weight"))
    renamed = onnx.load(other)
    for tensor in renamed.graph.initializer:
        tensor.name = f"other.{tensor.name}"
    for node in renamed.graph.node:
        node.input[:] = [f"other.{x}" if x.startswith(("first", "second")) else x for x in node.input]
    onnx.save(renamed, other)
    found = json.loads(call("check", one, other, "--format", "json").stdout)
    assert found["unmet_mirrors"] == []
    assert [[f["rule"] for f in m["findings"]] for m in found["models"]] == [["SYM801"], []]


# -- packages ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("SYM199", "wide-unit", Level.NOTE, "exakt"), "did you mean 'exact'?"),
        (("sym199", "wide-unit", Level.NOTE, "exact"), "is no code of a rule"),
    ],
)
def test_a_rule_that_is_declared_wrongly_is_refused(words, told):
    with pytest.raises(UsageProblem, match=told.replace("?", r"\?")):
        rule(*words)
    with pytest.raises(UsageProblem, match="did you mean 'remove'"):
        rule("SYM199", "wide-unit", Level.NOTE, "exact", repair="remov")
    with pytest.raises(UsageProblem, match="no target 'int2'"):
        rule("SYM199", "wide-unit", Level.NOTE, "exact", targets=("int2",))


def test_what_a_rule_raises_is_told_with_its_line(perceptron):
    """With the line of the rule, not with that of the library that it called."""

    @rule("SYM199", "wide-unit", Level.NOTE, "exact")
    def check(context):
        np.zeros(3).reshape(2)
        yield from ()

    report = audit(str(perceptron("m.onnx")), [check], Settings())
    (finding,) = report.findings
    assert "ValueError: cannot reshape" in finding.message
    assert f"(cli/test_manners.py, line {check.check.__code__.co_firstlineno + 2})" in finding.message


def test_what_a_rule_of_an_operator_raises_is_told_with_its_line(tmp_path, monkeypatch):
    def twisted(t, x, w):
        return t.multiply(x, {}["w"])

    monkeypatch.setitem(operators._TABLE, "org.example.Twist", operators.Operator(rule=twisted, inputs=2))
    monkeypatch.setattr(operators._TABLE["org.example.Twist"].__class__, "__slots__", (), raising=False)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "org.example": 1]>'
        " g (float[4, 5] x) => (float[4, 5] y) { y = org.example.Twist(x, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones(5, np.float32), "w"))
    onnx.save(model, file := tmp_path / "m.onnx")
    text = call("check", file, "-v").output
    line = twisted.__code__.co_firstlineno + 1
    assert f"its rule raised KeyError: 'w' (cli/test_manners.py, line {line})" in " ".join(text.split())


def test_a_package_that_cannot_be_imported_is_one_line(monkeypatch):
    class Entry:
        value = "acme_rules"

        def load(self) -> object:
            return 1 / 0

    monkeypatch.setattr("symlint.lint.rule.entry_points", lambda group: [Entry()])
    rules.cache_clear()
    try:
        result = call("rule")
        assert result.exit_code == 2
        assert (
            "the package of rules acme_rules: ZeroDivisionError: division by zero (cli/test_manners.py" in result.output
        )
    finally:
        rules.cache_clear()


def test_an_exception_without_words_or_lines():
    assert raised(ValueError()) == "ValueError"


def test_verify_says_whether_two_networks_are_one_function(perceptron):
    one, other = (
        perceptron("a.onnx"),
        perceptron("b.onnx", lambda weights: weights.update({"first.bias": np.ones(6, "f4")})),
    )
    assert call("verify", one, one).output == "the same function; outputs are identical\n"
    result = call("verify", one, other)
    assert result.exit_code == 1
    assert result.output.startswith("not the same function; outputs differ by up to ")
    assert call("verify", one).output.startswith("2 generators: 2 held; outputs differ by up to ")


# -- equivariances ----------------------------------------------------------------------------------------------------
def test_what_is_declared_of_outputs_is_tried_where_the_model_may_run(perceptron):
    """A row of `symlint equivariance` is a declaration; without --run a note says that nothing was tried."""
    model = perceptron("a.onnx")
    (name,) = (x.name for x in onnx.load(model).graph.input)
    table = f'[[equivariances]]\nname = "{{}}"\ninput = "{name}"\naxis = {{}}\naction = "{{}}"\n'
    config = model.with_name("symlint.toml")

    def told(*flags: str) -> tuple[int, list[tuple[str, str]]]:
        result = call("check", model, *flags, "--format", "json")
        found = json.loads(result.stdout)["models"][0]["findings"]
        return result.exit_code, [(f["level"], f["message"]) for f in found if f["rule"] == "SYM802"]

    config.write_text(table.format("permutation", 0, "equivariant"))
    assert told("--run") == (0, [])
    assert told() == (0, [("note", f"permutation of {name}[0]: it was not tried: symlint check --run does")])
    config.write_text(table.format("flip", 1, "invariant"))
    code, ((level, message),) = told("--run")
    assert (code, level) == (1, "error")
    assert message.startswith(f"flip of {name}[1]: output")
    assert "is not invariant" in message
    config.write_text(table.format("flop", 1, "invariant"))
    result = call("check", model, "--run")
    assert result.exit_code == 2
    assert "equivariances: name: expected one of flip, turn, shift, permutation, sign, not 'flop'" in result.output


def test_an_equivariance_that_no_model_has_is_told_once(perceptron):
    one, other = perceptron("a.onnx"), perceptron("b.onnx")
    other.with_name("symlint.toml").write_text('[[equivariances]]\nname = "flip"\ninput = "picture"\n')
    found = json.loads(call("check", one, other, "--run", "--format", "json").stdout)
    assert found["unmet_equivariances"] == ["flip of picture"]
    assert "equivariance 'flip of picture': no model has its input" in call("check", one, other, "--run").output


def test_an_input_that_no_model_has_is_told_once(perceptron):
    """Of one model as of several, whatever the others' configuration is; one that some model has costs no word."""
    one = perceptron("a.onnx")
    (name,) = (x.name for x in onnx.load(one).graph.input)
    one.with_name("symlint.toml").write_text('[[inputs]]\nname = "imgae"\nlow = 0\n')
    (other := one.parent / "other").mkdir()
    (other / "b.onnx").write_bytes(one.read_bytes())
    (other / "symlint.toml").write_text(f'[[inputs]]\nname = "{name}"\nlow = 0\n')
    for paths in ([one], [one, other], [one, other, "--jobs", "2", "--no-cache"]):
        result = call("check", *paths)
        assert result.exit_code == 0
        assert result.output.count("input 'imgae': no model has it") == 1
        assert f"input {name!r}" not in result.output
    assert json.loads(call("check", one, "-f", "json").stdout)["unmet_inputs"] == ["imgae"]


def test_zeros_that_are_declared_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables = '[[inputs]]\nname = "x"\nlow = 0\n[[equivariances]]\nname = "flip"\ninput = "x"\naxis = 0\n'
    Path("symlint.toml").write_text(tables)
    shown = call("config").output
    assert 'inputs   = [{ name = "x", low = 0.0 }]' in shown
    assert 'equivariances = [{ name = "flip", input = "x", axis = 0 }]' in shown
