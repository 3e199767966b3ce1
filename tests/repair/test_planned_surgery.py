"""What a file could be given is told without it: a plan refuses what the surgery on the file refuses, in its words."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir
import pytest

from symlint.model.load import load
from symlint.repair.narrowing import Immovable, Narrowing, Whole, agreed
from symlint.repair.operation import plan
from symlint.repair.surgery import narrowed
from symlint.symmetry.inference import examine

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SYMLINT_SHARED", ROOT.parent / "shared"))
FILES = [
    *sorted((ROOT / "fixtures").glob("*.onnx")),
    *(
        f
        for f in sorted(SHARED.glob("faults/*/*.onnx")) + sorted(SHARED.glob("zoo/*.onnx"))[::4]
        if f.stat().st_size < 2e5
    ),
]


def shapes(file: ir.Model) -> dict[str, tuple[int, ...]]:
    """Of all that a file stores."""
    return {name: tuple(v.const_value.shape.numpy()) for g in file.graphs() for name, v in g.initializers.items()}


def refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except Immovable as reason:
        return str(reason)
    return ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_plan_refuses_what_the_file_refuses(file):
    model = load(file)
    structure = examine(model)[1]
    whole, size = Whole(structure), structure.axes.factors.size

    def agree(widths: Mapping[int, int]) -> None:
        done = refusal(lambda: narrowed(structure, {}, widths, whole))
        planned = refusal(lambda: plan(structure.program.model, Narrowing(structure, whole, widths)))
        assert planned == done, widths
        if not done:
            stored = shapes(narrowed(structure, {}, widths, whole))
            cuts = plan(structure.program.model, Narrowing(structure, whole, widths)).shapes
            told = {name: after for name, after in cuts.items() if len(after) == 1 and name in stored}
            assert {name: (stored[name],) for name in told} == told

    leaves = sorted({action.leaf for action in structure.actions.values() if action.kind == "permutation"})
    for leaf in random.Random(0).sample(leaves, min(len(leaves), 6)):
        for width in {size(leaf) - 1, 1, 0} - {size(leaf)}:
            if widths := agreed(structure, {leaf: width}):
                agree(widths)


@pytest.mark.parametrize(("form", "told"), [("json", '"fixable": true'), ("full", "takes away 7,777")])
def test_a_promise_is_made_without_what_edits_files(form, told):
    probe = (
        "import sys; from click.testing import CliRunner; from symlint.cli.main import cli;"
        "done = CliRunner().invoke(cli, ['check', *sys.argv[2:]]);"
        "assert sys.argv[1] in done.stdout;"
        "print([m for m in ('onnx_ir', 'sympy', 'onnxruntime') if m in sys.modules])"
    )
    command = [sys.executable, "-c", probe, told, str(ROOT / "fixtures" / "decayed_cnn.onnx"), "--format", form]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
