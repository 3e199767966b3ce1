"""What CONTRIBUTING.md shows is so: the order of the rooms, the operators, the rule, the verbs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module, reload
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from corpora import ROOT
from onnx import numpy_helper

from symlint.cli.main import cli
from symlint.lint.rule import Rule, rules
from symlint.testing import check_rule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def purpose(room: str) -> str:
    """The first line of a room's docstring, less the room's name and the stop."""
    line = (import_module(f"symlint.{room}").__doc__ or "").strip().splitlines()[0]
    return line.rstrip(".")


def test_the_rooms_stand_in_the_order_of_the_contract():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    rooms = [layer.removeprefix("symlint.") for layer in reversed(contract["layers"])]
    drawn = re.search(r"```\n(model .*?)```", TEXT, re.DOTALL)[1]
    lines = [line for line in drawn.splitlines() if line.strip() != "|"]
    assert [line.split()[0] for line in lines] == rooms
    for line in lines:
        room, words = line.split(maxsplit=1)
        assert words.lower() in purpose(room).lower(), room


@pytest.mark.parametrize("path", sorted((ROOT / "symlint").iterdir()), ids=lambda path: path.name)
def test_every_room_is_in_the_order(path):
    if (path / "__init__.py").exists():
        assert re.search(rf"^{path.name} ", TEXT, re.MULTILINE), f"{path.name} is in no order"


ENTERED = """
from symlint.program.functions import function
assert function("com.acme.Wobble").parity is Parity.ODD
assert function("com.acme.Wobble").course == Within(-1, 1)
gathered = known("com.acme.ScaledGather")
assert gathered.rule and gathered.shape and gathered.resize
"""


def test_the_operators_are_entered():
    # In a process of its own: what is entered stays.
    subprocess.run([sys.executable, "-c", CODE[0] + CODE[1] + ENTERED], check=True)


def network(path: Path, width: int) -> Path:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n, 3] x) => (float[n, 2] y)'
        "{ a = MatMul(x, v) h = Relu(a) y = MatMul(h, w) }"
    )
    rng = np.random.default_rng(width)
    for name, shape in (("v", (3, width)), ("w", (width, 2))):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    onnx.save(model, path)
    return path


def test_the_rule_holds_the_laws(tmp_path, monkeypatch):
    (tmp_path / "uneven_width.py").write_text(CODE[2])
    monkeypatch.syspath_prepend(tmp_path)
    module = reload(import_module("uneven_width"))
    assert isinstance(module.check, Rule)
    check_rule(module.check, network(tmp_path / "ten.onnx", 10), network(tmp_path / "eight.onnx", 8))


def test_the_files_that_it_names_exist():
    for name in re.findall(r"`((?:symlint|tests|rules)/[\w/.]*)", TEXT):
        assert (ROOT / name).exists(), name


def test_the_index_of_rules_is_the_one_of_the_rules():
    done = subprocess.run(
        [sys.executable, "-m", "symlint", "rule", "-f", "markdown"], capture_output=True, text=True, check=True
    )
    told = (ROOT / ".github" / "RULES.md").read_text(encoding="utf-8")
    assert told.endswith(f"\n\n{done.stdout}"), "write it again: symlint rule --format markdown"
    codes = re.findall(r"^\| (SYM\d{3}) ", told, re.MULTILINE)
    assert codes == sorted({rule.code for rule in rules() if rule.code.startswith("SYM")})


def test_what_is_said_of_reading_a_report_can_be_done(tmp_path, monkeypatch):
    told = (ROOT / ".github" / "READING.md").read_text(encoding="utf-8")
    assert all((ROOT / ".github" / name).exists() for name in re.findall(r"\]\(([\w.]+)\)", told))
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    for command in re.findall(r"^symlint .*$", told, re.MULTILINE):
        assert CliRunner().invoke(cli, command.split()[1:]).exit_code < 2, command
        for file in re.findall(r"=(\S+)", command):
            assert (tmp_path / file).stat().st_size
