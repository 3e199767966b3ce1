"""What the README says of hooks and workflows, tried as it is printed; the action, run as GitHub would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ACTION = Path(".github/actions/symlint/action.yml")


def scripts(text: str) -> list[str]:
    """The texts of all ``run`` keys."""
    blocks = re.findall(r"^( *)run: \|\n((?:\1  .*\n|\n)+)", text, re.MULTILINE)
    return [block for _, block in blocks] + re.findall(r"^ *run: ([^|\n].*)$", text, re.MULTILINE)


def test_inputs_of_the_action_are_never_a_part_of_a_script(root):
    text = (root / ACTION).read_text(encoding="utf-8")
    found = scripts(text)
    assert len(found) == 2
    assert not any("${{" in script for script in found)


@pytest.mark.parametrize(
    ("paths", "args", "code"),
    [
        ("decayed_cnn.onnx", "", 1),
        ("healthy_cnn.onnx\nlow_rank_encoder.onnx", "--fail-on never", 0),
        ("none.onnx", "", 3),
        ("$(touch hacked) ; touch hacked", "", 3),
        ("healthy_cnn.onnx", "$(touch hacked)", 3),
    ],
)
def test_the_action_checks_and_ends_with_the_code(root, tmp_path, paths, args, code):
    script = next(text for text in scripts((root / ACTION).read_text(encoding="utf-8")) if "symlint check" in text)
    for file in (root / "fixtures").glob("*.onnx"):
        shutil.copy(file, tmp_path)
    here = {"GITHUB_OUTPUT": "out", "GITHUB_STEP_SUMMARY": "summary.md"}
    asked = {"SYMLINT_PATHS": paths, "SYMLINT_ARGS": args, "SYMLINT_SARIF": "s.sarif"}
    where = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **here, **asked, "PATH": where},
        capture_output=True,
        text=True,
        check=False,
    )
    if "hacked" in args:  # words that are no options are paths: none of them runs
        code = done.returncode
        assert code in (2, 4)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "out").read_text() == f"exit-code={code}\n"
    assert not (tmp_path / "hacked").exists()
    if code < 2:
        assert (tmp_path / "s.sarif").exists()
        assert (tmp_path / "summary.md").read_text().startswith("**symlint**")


def test_the_workflow_of_the_readme_installs_before_it_checks(root):
    readme = (root / "README.md").read_text(encoding="utf-8")
    (workflow,) = re.findall(r"```yaml\n(# \.github/workflows/.*?)```", readme, re.DOTALL)
    assert workflow.index("pip install") < workflow.index("symlint check") < workflow.index("upload-sarif")
    assert "path/to/symlint/" + str(ACTION.parent) in readme


def test_the_hook_of_the_readme_works_as_it_is_printed(root, tmp_path):
    """Against this repository itself, where pre-commit is installed."""
    if shutil.which("pre-commit") is None:
        pytest.skip("pre-commit is not installed")
    readme = (root / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n# \.pre-commit-config\.yaml\n(.*?)```", readme, re.DOTALL)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("this is no clone of the repository")
    text = text.replace("path/to/symlint", str(root)).replace("rev: main", f"rev: {head.stdout.strip()}")
    (tmp_path / ".pre-commit-config.yaml").write_text(text)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(root / "fixtures" / "decayed_cnn.onnx", tmp_path)
    baseline = [sys.executable, "-m", "symlint", "check", ".", "--write-baseline", "symlint-baseline.json"]
    subprocess.run(baseline, cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    hook = ["pre-commit", "run", "--all-files"]
    environment = {**os.environ, "PRE_COMMIT_HOME": str(tmp_path / "cache")}
    first = subprocess.run(hook, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert first.returncode == 0, first.stdout + first.stderr
    shutil.copy(root / "fixtures" / "collinear_mlp.onnx", tmp_path)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    second = subprocess.run(hook, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert second.returncode == 1
    assert "SYM201" in second.stdout
