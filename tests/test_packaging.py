"""The wheel holds every module, and both ways to install work."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from corpora import ROOT

import symlint

PACKAGES = {"symlint": ROOT / "symlint", "symlint_rules": ROOT / "rules"}
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def modules() -> set[str]:
    return {
        f"{package}/{file.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for file in folder.rglob("*")
        if file.suffix in (".py", ".html") or file.name == "py.typed"
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, so that the clone stays clean."""
    copy = tmp_path_factory.mktemp("source")
    for folder in ("symlint", "rules"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", source / "dist", source], check=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == modules()


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_an_installation_finds_its_rules(source, wheel, tmp_path, editable):
    """Into an empty environment that borrows the dependencies of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = (
        next((tmp_path / "venv").glob("bin/python")) if sys.platform != "win32" else tmp_path / "venv/Scripts/python"
    )
    (site,) = (tmp_path / "venv").rglob("site-packages")
    here = Path(symlint.__file__).parent.parent
    borrowed = [path for path in sys.path if path.endswith("site-packages") and Path(path) != here]
    target = ["--no-build-isolation", "--editable", source] if editable else [wheel]
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    subprocess.run([*PIP, "--python", python, "install", "--no-deps", "--ignore-installed", *target], check=True)
    probe = "import symlint, symlint.lint.rule as r; print(symlint.__file__); print(*[x.code for x in r.rules()])"
    done = subprocess.run([python, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    home, codes = done.stdout.splitlines()
    assert Path(home).is_relative_to(source if editable else site)
    assert {"SYM001", "SYM005"} <= set(codes.split())


def test_packages_are_listed_by_hand_and_complete():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = set(re.findall(r'"([\w.]+)"', re.search(r"^packages = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)[1]))
    found = {
        ".".join((package, *file.parent.relative_to(folder).parts))
        for package, folder in PACKAGES.items()
        for file in folder.rglob("__init__.py")
    }
    assert listed == found


def test_the_changelog_speaks_of_this_version():
    assert f"## {symlint.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["README.md", "CHANGELOG.md", ".pre-commit-hooks.yaml"])
def test_documents_name_only_commands_that_exist(file):
    from symlint.cli.main import COMMANDS

    text = (ROOT / file).read_text(encoding="utf-8")
    commands = re.findall(r"(?:^|`|/)symlint ([a-z]+)\b(?! of)", text, re.MULTILINE)
    assert set(commands) <= set(COMMANDS)


def test_packages_of_rules_may_import_the_old_names(tmp_path):
    probe = """
import symlint.rule, symlint.finding, symlint.severity, symlint.lint.rule as home
from symlint.evidence import Context
from symlint.program import Step
from symlint.rule import Rule
from symlint.symmetry import Space
assert Rule is home.Rule and symlint.rule is home and home.__spec__.name == "symlint.lint.rule"
from symlint import _RENAMED
from importlib import import_module
for old, new in _RENAMED.items():
    assert import_module(old) is import_module(new), old
"""
    subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, check=True)
