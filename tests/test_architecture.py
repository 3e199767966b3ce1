"""What may import what, who may print, and how long a file may be."""

from __future__ import annotations

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest
from corpora import ROOT

from symlint.model.operators import operators
from symlint.program import steps

ENGINE = sorted((ROOT / "symlint").rglob("*.py"))
RULES = sorted((ROOT / "rules").rglob("*.py"))
LONGEST, WHOLE, ENTRIES = 600, 50, 16
"""Lines of a file, lines of a function, entries of a package."""
OUTSIDE = {f"symlint.{room}" for room in ("cli", "comparison", "audit", "repair", "runtime", "lint.settings")}


def name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path, *, everywhere: bool = True) -> set[str]:
    """Modules that a file imports, ``from a import b`` as both a and a.b; else only when it is itself imported."""
    found: set[str] = set()
    waiting: list[ast.AST] = [parsed(file)]
    while waiting:
        node = waiting.pop()
        delayed = isinstance(node, (ast.FunctionDef, ast.Lambda)) or (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        )
        if delayed and not everywhere:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("file", ENGINE, ids=name)
def test_the_engine_imports_no_rule(file):
    assert not {module for module in imports(file) if module.split(".")[0] in ("rules", "symlint_rules")}


@pytest.mark.parametrize("file", RULES, ids=name)
def test_a_rule_sees_spaces_numerics_and_findings_only(file):
    assert not {module for module in imports(file) if any(f"{module}.".startswith(f"{out}.") for out in OUTSIDE)}


@pytest.mark.parametrize("file", ENGINE + RULES, ids=name)
def test_only_commands_print(file):
    module = name(file)
    if module == "symlint.cli.main" or module.startswith("symlint.cli.commands"):
        return
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("sys", "stdout"), ("sys", "stderr"), ("click", "echo")}


def test_modules_have_an_order():
    modules = {name(file): file for file in ENGINE}
    needed = {
        module: set(imports(file, everywhere=False)) & modules.keys() - {module} for module, file in modules.items()
    }
    # The symbols of a package are imported from it by its own modules: that is its __init__, which runs first anyway.
    order = {
        module: {o for o in others if not (o.startswith(f"{module}.") and module in needed[o])}
        for module, others in needed.items()
    }
    TopologicalSorter(order).prepare()  # raises CycleError, which names the cycle


@pytest.mark.parametrize("file", ENGINE + RULES, ids=name)
def test_a_file_is_short_enough_to_be_read(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= LONGEST
    functions = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.FunctionDef)]
    assert not [f.name for f in functions if f.end_lineno - f.lineno >= WHOLE]


def test_a_package_is_small_enough_to_be_seen():
    packages = {file.parent for file in ENGINE} - {ROOT / "symlint"}
    sizes = {name(p): sum(entry.name != "__pycache__" for entry in p.iterdir()) for p in packages}
    assert {p: size for p, size in sizes.items() if size > ENTRIES} == {}


@pytest.mark.parametrize("file", ENGINE + RULES, ids=name)
def test_a_module_says_what_it_is(file):
    tree = parsed(file)
    assert ast.get_docstring(tree)
    assert "utils" not in file.stem
    assert file.stem not in ("helpers", "common", "manager")


def test_nothing_downstream_is_a_stranger():
    """The dependencies that code imports are those that the project declares."""
    declared = {"onnx", "onnx_ir", "onnxruntime", "numpy", "click", "rich", "jinja2", "tomli", "symlint"}
    # What numpy brings as a dependency of onnx itself.
    declared |= {"ml_dtypes", "google"}
    # Of the extras remote and dask, imported where they are asked for.
    declared |= {"fsspec", "distributed"}
    # Of the extra torch, imported by symlint.torch alone.
    declared |= {"torch"}
    assert [name(file) for file in ENGINE if "torch" in imports(file)] == ["symlint.torch"]
    # Of the extra align, which says so where it is missing.
    declared |= {"scipy"}
    # Of jinja2: text that is markup already.
    declared |= {"markupsafe"}
    # Of pytest's plug-in, which pytest itself imports.
    declared |= {"pytest"}
    found = {module.split(".")[0] for file in ENGINE + RULES for module in imports(file)}
    assert found - declared - sys.stdlib_module_names == set()


def kinds(node: ast.AST) -> set[str]:
    """The kinds of steps that an expression names."""
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found & {kind.__name__ for kind in get_args(steps.Step)}


def test_few_ask_which_kind_a_step_is():
    """What a step does it says itself (`program/steps.py`), or a table of transfers holds one entry a kind."""
    asked = 0
    for file in ENGINE + RULES:
        tree = parsed(file)
        if not any(isinstance(n, ast.ImportFrom) and n.module == steps.__name__ for n in ast.walk(tree)):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                asked += bool(kinds(node.args[1]))
            elif isinstance(node, ast.match_case):
                asked += any(isinstance(n, ast.MatchClass) and kinds(n.cls) for n in ast.walk(node.pattern))
            elif isinstance(node, ast.Compare):
                asked += bool(kinds(node))
    assert asked <= 60


def test_few_decide_by_the_name_of_an_operator():
    """What is true of an operator is in its record (`model/operators.py`, `program/functions.py`)."""
    known, deciding = set(operators()), list[str]()
    for file in ENGINE + RULES:
        module = name(file)
        if module.startswith("symlint.operators.") or module == "symlint.model.shapes.known":
            continue
        places: list[ast.AST | None] = []
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Compare):
                places += [node.left, *node.comparators]
            elif isinstance(node, ast.Dict):
                places += node.keys
            elif isinstance(node, ast.Set):
                places += node.elts
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "frozenset":
                places += node.args
        words = {n.value for place in places if place for n in ast.walk(place) if isinstance(n, ast.Constant)}
        deciding += [module] if known & {word for word in words if isinstance(word, str)} else []
    assert len(deciding) <= 46, deciding
