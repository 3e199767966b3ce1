"""Small networks written in ONNX's own notation with weights that a test chooses, and what is said and made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_graph

from symlint.audit.engine import audit
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.repair.fixing import Fixed, Wish, fix

Shape = tuple[int | str | None, ...]


def written(
    path: Path,
    text: str,
    stored: Mapping[str, np.ndarray],
    x: Shape,
    y: Shape = (None, None),
    *,
    opset: int = 17,
    kinds: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
) -> Path:
    """A file of the nodes in `text`, from `x` to `y`; floating numbers are stored in float32."""
    graph = helper.make_graph(
        list(parse_graph(f"small () => () {{ {text} }}").node),
        "small",
        [helper.make_tensor_value_info("x", kinds[0], list(x))],
        [helper.make_tensor_value_info("y", kinds[1], list(y))],
        [numpy_helper.from_array(v.astype(np.float32) if v.dtype == np.float64 else v, k) for k, v in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def told(path: Path) -> list[Finding]:
    """The findings above note, by rule."""
    report = audit(str(path), Settings().chosen(rules()), Settings())
    assert not report.incomplete, report.incomplete
    return sorted((f for f in report.findings if f.level > Level.NOTE), key=lambda f: f.rule)


def units(path: Path) -> list[tuple[str, list[int]]]:
    """Rule and units of every finding above note."""
    return [(f.rule, list(f.units)) for f in told(path)]


def repaired(path: Path) -> Fixed:
    """The result of a fix of a file, which holds wherever something was done."""
    folder = path.parent / f"{path.stem}.fixed"
    folder.mkdir()
    made = fix(str(path), folder, Wish([r for r in rules() if r.repair]))
    assert not made.done or (made.proof is not None and made.proof.outcome == "held"), made.proof
    return made


def shape(path: Path | str, name: str) -> tuple[int, ...]:
    """The shape of a stored tensor."""
    return load(str(path)).tensors[name].shape
