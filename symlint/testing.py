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
import onnx

from symlint.audit.engine import audit
from symlint.lint.finding import Finding
from symlint.lint.rule import Rule, rules
from symlint.lint.settings import Settings
from symlint.model.graph import Array, Node
from symlint.model.load import load
from symlint.model.operators import known
from symlint.model.saving import write
from symlint.program.functions import Dipping, function
from symlint.program.translate import lowered
from symlint.repair.fixing import fix
from symlint.repair.plan import Fixed, Wish
from symlint.runtime.runner import run
from symlint.runtime.verify import verify
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.membership import members
from symlint.symmetry.motion.teleport import select, teleport
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Action, Structure

SECTIONS = ("What it checks", "Why it matters", "What else can cause it", "Evidence", "Repair", "References")
"""The parts of a rule's page, in order."""
DEAD = ("SYM101", "SYM104")
"""The rules that speak of what contributes to no output: units, and bundles of them."""
GAUGES = 3
"""How many random elements of a network's groups its findings are looked at under."""


def check_operator(name: str, model: str | PathLike[str]) -> None:
    """Check what is known of an operator against onnxruntime, in a network that uses it.

    Args:
        name: as nodes have it, with a dot: ``com.acme.ScaledGather``.
        model: an ONNX file that onnxruntime runs; of an operator that it does not know the file holds the function.

    The laws: it has a rule; its outputs have shapes; every parameter is understood, and something is claimed of what
    the operator gets or makes; every claimed generator holds; a function of one tensor stays on its course; and units
    that are planted dead, space by space, go with a proof, after which nothing is left to repair.
    """
    assert known(name).rule is not None, f"no rule for {name}: enter one with @op, in a module of the entry point"
    read = load(Path(model))
    nodes = [node for node in read.graph.nodes if node.op == name]
    assert nodes, f"{model} has no node {name} (names are written with a dot: com.acme.ScaledGather)"
    shapeless = [out for node in nodes for out in node.outputs if out and out not in read.shapes]
    entered = "its @shape raised, or knew none" if known(name).shape else "enter one with @shape"
    assert not shapeless, f"{name}: no shape for {', '.join(shapeless)}: {entered}"
    symmetry, structure = examine(read)
    opaque = sorted({f"at {one.node}: {one.reason}" for one in symmetry.opaque})
    assert not opaque, f"not understood: {'; '.join(opaque)}"
    _claimed(name, nodes, structure)
    trials = verify(structure, select(structure, None, None))
    refuted = [f"{trial.id} ({trial.outcome}) {trial.reason}" for trial in trials if trial.outcome != "held"]
    assert not refuted, f"{name}: {', '.join(refuted)}"
    _on_course(name, Path(model))
    with TemporaryDirectory(prefix="symlint-") as folder:
        tried = [_removed(name, structure, space, Path(folder) / space.id) for space in symmetry.spaces]
    assert any(tried), f"{name}: no space of {model} has units that can go, so resizing was not tried"


def _claimed(name: str, nodes: Sequence[Node], structure: Structure) -> None:
    """Something is claimed of what the nodes get or make."""
    held = lowered(structure.program).values
    values = [held[v] for node in nodes for v in (*node.inputs, *node.outputs) if v in held]
    tensors = [ref.name for ref in values if ref.items is None and ref.name in structure.axes.of]
    factors = structure.axes.factors
    leaves = {leaf for tensor in tensors for f in structure.axes.of[tensor] for leaf in factors.leaves(f)}
    claimed = leaves & {action.leaf for action in structure.actions.values()}
    assert claimed, f"{name}: nothing is claimed of what it gets or makes, so no law was tried"


def _on_course(name: str, model: Path) -> None:
    """A function of one tensor lies where its course says, from -1000 to 1000."""
    course = function(name).course
    if course is None:
        return
    x = np.concatenate([np.linspace(-8, 8, 1601), np.linspace(-1e3, 1e3, 2001)]).astype(np.float32)
    domain, _, op = name.rpartition(".")
    file = onnx.load(model)
    alone = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ["x"], ["y"], domain=domain)],
        "alone",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [x.size])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [x.size])],
    )
    file.graph.CopyFrom(alone)
    with TemporaryDirectory(prefix="symlint-") as folder:
        onnx.save(file, Path(folder) / "alone.onnx")
        (answer,) = run([Path(folder) / "alone.onnx"], {"x": x})
    assert answer.failure is None, f"{name} alone: {answer.failure}"
    y = answer.outputs[0].astype(np.float64)
    low, high = course.least, np.inf if isinstance(course, Dipping) else course.largest
    slack = 1e-4 * max(1.0, *(abs(end) for end in (low, high) if np.isfinite(end)))
    outside = np.flatnonzero((y < low - slack) | (y > high + slack))
    assert not outside.size, f"{name}: gives {y[outside[0]]:g} at {x[outside[0]]:g}, outside {low:g} to {high:g}"


def _removed(name: str, structure: Structure, space: Space, folder: Path) -> bool:
    """Whether units of a space that are zero throughout were found; then they can be taken away."""
    action = next((a for a in structure.permutations if a.space == space.id), None)
    if space.size < 2 or action is None:
        return False
    folder.mkdir()
    planted, gone = folder / "planted.onnx", [rule for rule in rules() if rule.code in DEAD]
    write(structure.program.model.path, _dead(structure, action), planted)
    if not audit(str(planted), gone, Settings()).findings:
        return False  # what reads it gives it a value all the same
    fixed = fix(str(planted), folder, Wish(gone))
    left = "; ".join(one.reason for one in fixed.left) or "nothing was tried"
    way = f"if {name} is told how many units there are, or where, enter a @resize"
    assert fixed.done, f"{name}: a dead unit of {space.name} stays: {left}; {way}"
    assert _proven(fixed), f"{name}: no proof for {space.name}"
    assert not fix(str(fixed.path), folder, Wish(gone)).done, f"{name}: a second fix of {space.name} does more"
    return True


def _proven(fixed: Fixed) -> bool:
    return fixed.proof is not None and fixed.proof.outcome == "held"


def _dead(structure: Structure, action: Action) -> dict[str, Array]:
    """The stored tensors of a space, with zeros for the first unit of each copy."""
    values: dict[str, Array] = {}
    model, of, factors = structure.program.model, structure.axes.of, structure.axes.factors
    for weight, stored in structure.program.weights.items():
        if any(action.leaf in factors.leaves(f) for f in of[weight]) and model.tensors[stored].floating:
            values.setdefault(stored, model.tensors[stored].read().copy())
            rows = members(structure, action, of[weight], values[stored].shape)
            if rows is not None:
                values[stored].reshape(-1)[rows[:: factors.size(action.leaf)].reshape(-1)] = 0
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
    found = tuple(name for name in re.findall(r"^## (.*)$", rule.page, re.MULTILINE) if name != "Example")
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
