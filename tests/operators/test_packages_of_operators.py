"""Operators and rules of other packages: what a wheel brings is known to every command, and the public laws try it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from corpora import FIXTURES
from onnx import numpy_helper

import symlint
from symlint.lint.rule import rules
from symlint.testing import check_operator, check_rule

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
OPERATORS = """
from symlint.operators import known, op, resize, shape
from symlint.operators.layout import gather

NAME = "com.acme.ScaledGather"
op(NAME, exact=True)(lambda t, table, indices, scale: t.multiply(gather(t, table, indices), scale))
shape(NAME)(lambda call: call.like("Gather", (0, 1)))
resize(NAME)(lambda site: known("Gather").resize(site))
"""
PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "acme-operators"
version = "1"
[project.entry-points."symlint.operators"]
acme = "acme_operators"
[tool.setuptools]
py-modules = ["acme_operators"]
"""
NETWORK = """
<ir_version: 8, opset_import: ["": 17, "com.acme": 1]>
g (float[n, 3] x) => (float[n, 5] y) {
   rows = com.acme.ScaledGather(table, places, scale)
   read = MatMul(x, rows)
   h = Relu(read)
   y = MatMul(h, out)
}
<domain: "com.acme", opset_import: ["": 17]>
ScaledGather (table, indices, scale) => (z) {
   rows = Gather(table, indices)
   z = Mul(rows, scale)
}
"""


def network(path: Path, function: str = "ScaledGather") -> Path:
    """A network whose first weights are rows of a table, told by their places, times a scale a column."""
    text = NETWORK.replace("ScaledGather", function)
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    weights = {
        "table": rng.normal(size=(7, 6)).astype(np.float32),
        "scale": rng.uniform(1, 2, size=6).astype(np.float32),
        "out": rng.normal(size=(6, 5)).astype(np.float32),
        "places": np.asarray([4, 0, 2], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which a wheel with the operator was built and installed."""
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    (source / "acme_operators.py").write_text(OPERATORS)
    (source / "pyproject.toml").write_text(PROJECT)
    build = ["wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", wheels, source]
    subprocess.run([*PIP, *build], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", site, wheel], check=True)
    return site


def run(installed: Path, code: str) -> str:
    """What a process says that finds the package."""
    home = Path(symlint.__file__).parents[1]
    paths = f"import sys; sys.path[:0] = [{str(installed)!r}, {str(home)!r}]\n"
    done = subprocess.run(
        [sys.executable, "-c", paths + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_code_is_ten_lines_at_most():
    assert len([line for line in OPERATORS.splitlines() if line.strip()]) <= 10


def test_an_operator_of_a_wheel_is_understood_verified_and_repaired(installed, tmp_path):
    path = network(tmp_path / "model.onnx")
    said = run(
        installed,
        f"""
        import json
        from symlint.testing import check_operator
        from symlint.model.load import load
        from symlint.symmetry.inference import examine
        check_operator("com.acme.ScaledGather", {str(path)!r})
        symmetry, _ = examine(load({str(path)!r}))
        ops = [node.op for node in symmetry.model.graph.nodes]
        print(json.dumps([ops, symmetry.coverage.total, symmetry.coverage.covered, symmetry.coverage.opaque]))
        """,
    )
    ops, total, covered, opaque = json.loads(said)
    assert "com.acme.ScaledGather" in ops
    assert covered == total
    assert opaque == 0


def test_a_function_without_a_rule_is_written_out(tmp_path):
    """The same network says the same when the operator is not known: its function is what is audited."""
    from symlint.model.load import load
    from symlint.symmetry.inference import examine

    symmetry, _ = examine(load(network(tmp_path / "model.onnx")))
    assert "Gather" in [node.op for node in symmetry.model.graph.nodes]
    assert symmetry.coverage.opaque == 0


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(AssertionError, match=r"no rule for com\.acme\.Nothing"):
        check_operator("com.acme.Nothing", network(tmp_path / "model.onnx"))


POINTWISE = """
<ir_version: 8, opset_import: ["": 17, "com.acme": 1]>
g (float[n, 3] x) => (float[n, 5] y) {
   a = MatMul(x, v)
   h = com.acme.OP(a)
   y = MatMul(h, w)
}
<domain: "com.acme", opset_import: ["": 17]>
OP (a) => (h) {
   BODY
}
"""
FOREIGN = """
from symlint.operators import Parity, Within, op, pointwise
from symlint.testing import check_operator
"""


def elementwise(path: Path, name: str, body: str) -> Path:
    """A perceptron whose activation is a function of another domain."""
    model = onnx.parser.parse_model(POINTWISE.replace("OP", name).replace("BODY", body))
    rng = np.random.default_rng(0)
    for tensor, shape in (("v", (3, 6)), ("w", (6, 5))):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), tensor))
    onnx.save(model, path)
    return path


def fails(installed: Path, code: str) -> str:
    """The last line of what a check of an operator raises."""
    with pytest.raises(AssertionError) as raised:
        run(installed, FOREIGN + code)
    return str(raised.value).strip().splitlines()[0 if "AssertionError: " not in str(raised.value) else -1]


def test_a_function_of_another_domain_is_not_the_one_of_its_name(installed, tmp_path):
    """It is entered as homogeneous, and what it makes of stored numbers is not known, whatever it is called."""
    said = []
    for name in ("Relu", "Lower"):
        path = elementwise(tmp_path / f"{name}.onnx", name, "n = Neg(a) r = Relu(n) h = Neg(r)")
        code = f"""
from symlint.cli.main import cli
from click.testing import CliRunner
pointwise(1, "com.acme.{name}", parity=Parity.NEITHER, course=None)
check_operator("com.acme.{name}", {str(path)!r})
print(CliRunner().invoke(cli, ["check", {str(path)!r}, "--format", "concise"]).exit_code)
"""
        said.append(run(installed, FOREIGN + code))
    assert said == ["0\n", "0\n"]


def test_a_wrong_course_is_refuted(installed, tmp_path):
    path = elementwise(tmp_path / "model.onnx", "Wide", "t = Tanh(a) c = Constant<value_float = 5.0>() h = Mul(t, c)")
    entered = 'pointwise(None, "com.acme.Wide", parity=Parity.ODD, course=Within({0}, {1}))\n'
    check = f'check_operator("com.acme.Wide", {str(path)!r})\n'
    run(installed, FOREIGN + entered.format(-5, 5) + check)
    assert "outside -2 to 2" in fails(installed, entered.format(-2, 2) + check)


def test_a_rule_that_claims_nothing_is_told(installed, tmp_path):
    path = elementwise(tmp_path / "model.onnx", "Mute", "h = Tanh(a)")
    code = f"""
op("com.acme.Mute")(lambda t, x: t.unknown([x], [x.shape], "nothing", opaque=False)[0])
from symlint.operators import shape
shape("com.acme.Mute")(lambda call: call.like("Identity", (0,)))
check_operator("com.acme.Mute", {str(path)!r})
"""
    assert "nothing is claimed" in fails(installed, code)


@pytest.mark.parametrize("code", ["SYM101", "SYM102", "SYM201", "SYM812"])
def test_rules_hold_the_public_laws(code, tmp_path):
    """The fixtures of symlint's own rules, through the door for those of others."""
    (rule,) = (rule for rule in rules() if rule.code == code)
    paths = []
    for kind in ("flagged", "clean"):
        text = (FIXTURES / "rules" / f"{code}.{kind}.txt").read_text()
        paths.append(tmp_path / f"{kind}.onnx")
        onnx.save(onnx.parser.parse_model(text), paths[-1])
    check_rule(rule, *paths)
    with pytest.raises(AssertionError, match=f"{code} says nothing"):
        check_rule(rule, paths[1], paths[1])
