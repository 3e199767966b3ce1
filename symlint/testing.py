"""Laws for packages that bring operators or rules of their own; each raises `AssertionError` with what broke it.

A test of a package is a line::

    def test_scaled_gather(tmp_path):
        check_operator("com.acme.ScaledGather", "model.onnx")
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from symlint.audit.engine import audit
from symlint.lint.finding import Finding
from symlint.lint.rule import Rule, rules
from symlint.lint.settings import Settings
from symlint.model.edit import write
from symlint.model.graph import Array, Model
from symlint.model.load import load
from symlint.model.operators import known
from symlint.repair.fixing import fix
from symlint.repair.result import Fixed, Wish
from symlint.runtime.verify import verify
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport
from symlint.symmetry.spaces import Space

SECTIONS = ("What it checks", "Why it matters", "What else can cause it", "Evidence", "Repair", "References")
"""The parts of a rule's page, in order."""
GAUGES = 3
"""How many random elements of a network's groups its findings are looked at under."""


def check_operator(name: str, model: str | PathLike[str]) -> None:
    """Check what is known of an operator against onnxruntime, in a network that uses it.

    Args:
        name: as nodes have it, ``com.acme.ScaledGather``.
        model: an ONNX file that onnxruntime runs; of an operator that it does not know the file holds the function.

    The laws: it has a rule; its outputs have shapes; every parameter is understood; every claimed generator holds; and
    units that are planted dead, space by space, go with a proof, after which nothing is left to repair.
    """
    assert known(name).rule is not None, f"no rule for {name}: enter one with @op, in a module of the entry point"
    read = load(Path(model))
    nodes = [node for node in read.graph.nodes if node.op == name]
    assert nodes, f"{model} has no node {name}"
    shapeless = [out for node in nodes for out in node.outputs if out and out not in read.shapes]
    assert not shapeless, f"{name}: no shape for {', '.join(shapeless)}: enter one with @shape"
    symmetry, structure = examine(read)
    opaque = [f"{one.tensor} at {one.node}: {one.reason}" for one in symmetry.opaque]
    assert not opaque, f"not understood: {'; '.join(opaque)}"
    trials = verify(structure, select(structure, None, None))
    refuted = [f"{trial.id} ({trial.outcome} {trial.reason})" for trial in trials if trial.outcome != "held"]
    assert not refuted, f"{name}: {', '.join(refuted)}"
    with TemporaryDirectory(prefix="symlint-") as folder:
        for space in symmetry.spaces:
            if space.size > 1 and f"{space.id}.permutation" in structure.actions:
                _removed(name, read, space, Path(folder) / space.id)


def _removed(name: str, model: Model, space: Space, folder: Path) -> None:
    """A unit of a space that is zero throughout can be taken away."""
    folder.mkdir()
    planted, gone = folder / "planted.onnx", [rule for rule in rules() if rule.code == "SYM101"]
    write(model.path, _dead(model, space), planted)
    found = audit(str(planted), gone, Settings())
    fixed = fix(str(planted), folder, Wish(gone))
    left = "; ".join(one.reason for one in fixed.left)
    if not found.findings:
        return  # what reads it gives it a value all the same
    assert fixed.done, f"{name}: a dead unit of {space.name} stays: {left or 'nothing was tried'}"
    assert _proven(fixed), f"{name}: no proof for {space.name}"
    assert not fix(str(fixed.path), folder, Wish(gone)).done, f"{name}: a second fix of {space.name} does more"


def _proven(fixed: Fixed) -> bool:
    return fixed.proof is not None and fixed.proof.outcome == "held"


def _dead(model: Model, space: Space) -> dict[str, Array]:
    """The stored tensors of a space, with zeros for its first unit wherever a whole axis is its own."""
    values: dict[str, Array] = {}
    for place in space.places:
        stored = values.get(place.tensor, model.tensors[place.tensor].read().copy())
        values[place.tensor] = stored
        if stored.shape[place.axis] == space.size:
            np.moveaxis(stored, place.axis, 0)[0] = 0
    return values


def check_rule(
    rule: Rule, flagged: str | PathLike[str], clean: str | PathLike[str], *, settings: Settings | None = None
) -> None:
    """Check a rule on two ONNX files, one that it flags and one that it does not.

    The laws: code, name and page have their form; it speaks of the one and not of the other; unless it is of a gauge,
    random elements of all claimed groups change nothing but the labels of units; and what it says can be repaired is,
    with a proof, after which it says nothing that can be.
    """
    asked = settings or Settings(select=(rule.code,))
    check_page(rule)
    told = _told(rule, flagged, asked)
    assert told, f"{rule.code} says nothing of {flagged}"
    assert not (more := _told(rule, clean, asked)), f"{rule.code} says of {clean}: {more[0].message}"
    with TemporaryDirectory(prefix="symlint-") as folder:
        for path in (flagged, clean) if rule.evidence != "gauge" else ():
            _gauged(rule, Path(path), asked, Path(folder))
        if any(finding.fixable for finding in told):
            wish = Wish([rule], evidence=(rule.evidence,), asked=asked.asked([rule]))
            fixed = fix(str(flagged), Path(folder), wish)
            assert fixed.done, f"{rule.code}: nothing of what it calls fixable was repaired"
            assert _proven(fixed), f"{rule.code}: its repair has no proof"
            again = [f for f in _told(rule, fixed.path, asked) if f.fixable]
            assert not again, f"{rule.code}: once repaired, it still says: {again[0].message}"


def check_page(rule: Rule) -> None:
    """Check the form of a rule's code, name and manual page."""
    assert re.fullmatch(r"[A-Z]{3}\d{3}", rule.code), f"{rule.code} is no code: three letters, three digits"
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.name), f"{rule.name} is no kebab name"
    first = rule.page.strip().splitlines()[0]
    assert re.fullmatch(r"[A-Z].{,118}\.", first), f"{rule.code}: its page has no summary of one line: {first!r}"
    found = tuple(re.findall(r"^## (.*)$", rule.page, re.MULTILINE))
    assert found == SECTIONS, f"{rule.code}: its page has the sections {found}, expected {SECTIONS}"
    texts = re.split(r"^## .*$", rule.page, flags=re.MULTILINE)[1:]
    assert all(text.strip() for text in texts), f"{rule.code}: a section of its page is empty"


def _told(rule: Rule, path: str | PathLike[str], asked: Settings) -> Sequence[Finding]:
    report = audit(str(path), [rule], asked)
    assert not report.incomplete, f"{rule.code} on {path}: {report.incomplete}"
    return report.findings


def _gauged(rule: Rule, path: Path, asked: Settings, folder: Path) -> None:
    _, structure = examine(load(path))
    before = [_invariant(f) for f in _told(rule, path, asked)]
    for seed in range(GAUGES):
        moved = folder / f"{path.stem}.{seed}.onnx"
        write(path, teleport(structure, select(structure, None, None), seed), moved)
        after = [_invariant(f) for f in _told(rule, moved, asked)]
        assert after == before, f"{rule.code}: a change of gauge changes what it says of {path}: {before} to {after}"


def _invariant(finding: Finding) -> tuple[object, ...]:
    return finding.rule, finding.level, finding.space, len(finding.units), finding.tensors, finding.saves
