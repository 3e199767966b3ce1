"""What the README and the notebook show is what Python answers."""

from __future__ import annotations

import doctest
import json
import re

import pytest
from corpora import FIXTURES, ROOT

NOTEBOOK = FIXTURES / "audit.ipynb"


def test_the_readme_shows_what_python_answers(monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = "\n".join(re.findall(r"```pycon\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    test = doctest.DocTestParser().get_doctest(shown, {}, "README.md", "README.md", 0)
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert result.attempted > 5
    assert not result.failed, "".join(said)


def test_the_notebook_runs(monkeypatch):
    monkeypatch.chdir(FIXTURES)
    scope: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "audit.ipynb", "exec"), scope)


def test_the_notebook_runs_in_a_kernel():
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(FIXTURES)}}).execute()
    assert "SYM101" in str(notebook.cells[1].outputs)
