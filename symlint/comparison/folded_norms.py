"""Normalisations that are folded into the layer before them in one of two files, and not in the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.comparison.changes import SAME, Change
from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.model.saving import rewrite
from symlint.repair.surgery import discard, idle, overwrite, source_of, store, stored_value

LINEAR = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operator -> the axis of its weight, operand 1, along which its output channels lie."""
HALF = {2: 2.0**-11, 8: 2.0**-53}
"""Bytes of a number -> half a unit in its last place, relative; that of float32 for others."""
ROUNDINGS = 8.0
"""Half units in the last place of the largest term that a fold may cost a bias."""


@dataclass(frozen=True, slots=True)
class Fold:
    """A normalisation of one file that its layer can take over."""

    weight: str
    """That of the layer that takes it over."""
    bias: str
    """What holds the bias afterwards."""
    scales: tuple[str, ...]
    """The stored tensors that go into the weight, and through it into the bias as well."""
    shifts: tuple[str, ...]
    """Those that go into the bias alone."""
    slack: float
    """What rounding may cost an element of the bias."""


def folded(path: str) -> tuple[ir.Model, tuple[Fold, ...]]:
    """A file with every normalisation folded that directly follows a linear layer, and what was folded."""
    file = rewrite(path, {})
    before = idle(file)
    made = tuple(_fold(file, *site) for site in list(_sites(file)))
    discard(file, before)
    return file, made


EXPLAINED: dict[str, Any] = {"status": "folded", "explained": True}
_Place = tuple[ir.Node, ir.Node, "ir.Node | None"]
"""A linear node, the normalisation after it, and the addition of a bias between them, if there is one."""


def _sites(file: ir.Model) -> Sequence[_Place]:
    found: list[_Place] = []
    for norm in file.graph:
        if norm.op_type != "BatchNormalization" or norm.domain not in ("", "ai.onnx") or _trains(norm):
            continue
        added, linear = None, _maker(norm.inputs[0])
        if linear is not None and linear.op_type == "Add":
            added, linear = linear, next((m for m in map(_maker, linear.inputs) if m is not None), None)
        if linear is not None and linear.op_type in LINEAR and _fits(linear, norm, added):
            found.append((linear, norm, added))
    return found


def _trains(norm: ir.Node) -> bool:
    return norm.attributes.get_int("training_mode", 0) == 1 or any(o.uses() for o in norm.outputs[1:])


def _maker(value: ir.Value | None) -> ir.Node | None:
    """The node of which a value is the only reader's."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return value.producer()


def _fits(linear: ir.Node, norm: ir.Node, added: ir.Node | None) -> bool:
    """Whether all numbers are stored, none of the layer's is used elsewhere, and channels are where they must be."""
    own = [linear.inputs[1], *linear.inputs[2:3]]
    if added is not None:
        own.append(next((v for v in added.inputs if _maker(v) is not linear), None))
        if len(own) > 2 and linear.op_type != "MatMul":
            return False
    read = [*own, *norm.inputs[1:5]]
    known = [None if value is None else stored_value(value) for value in read]
    if any(array is None or array.dtype.kind not in "fV" for array, value in zip(known, read, strict=True) if value):
        return False
    if any(value is not None and len(source_of(value).uses()) != 1 for value in own):
        return False
    weight, gain = known[0], known[-4]
    if weight is None or gain is None or len(norm.inputs) != 5:
        return False
    groups = linear.attributes.get_int("group", 1) if linear.op_type == "ConvTranspose" else 1
    channels = weight.shape[_axis(linear)] * groups if weight.ndim > 1 else 0
    biases = [array for array, value in zip(known[1 : len(own)], own[1:], strict=True) if value is not None]
    flat = linear.op_type not in ("Gemm", "MatMul") or weight.ndim == 2
    # A product of more than two axes has its channels last, where no normalisation has them.
    shape = linear.outputs[0].shape
    flat = flat and (linear.op_type != "MatMul" or shape is None or len(shape) == 2)
    return flat and gain.shape == (channels,) and all(b is not None and b.size in (1, channels) for b in biases)


def _axis(linear: ir.Node) -> int:
    axis = LINEAR[linear.op_type]
    return 0 if linear.op_type == "Gemm" and linear.attributes.get_int("transB", 0) == 1 else axis


def _fold(file: ir.Model, linear: ir.Node, norm: ir.Node, added: ir.Node | None) -> Fold:
    """Put a normalisation into the layer before it, in place."""
    gain, shift, mean, variance = (_wide(value) for value in norm.inputs[1:5])
    factor = gain / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    weight, holder = _value(linear.inputs[1]), added if added is not None else linear
    place = 2 if added is None else next(k for k, v in enumerate(added.inputs) if _maker(v) is not linear)
    old = holder.inputs[place] if place < len(holder.inputs) else None
    beta = linear.attributes.get_float("beta", 1.0) if linear.op_type == "Gemm" else 1.0
    bias = np.zeros(1) if old is None else beta * _wide(old).reshape(-1)
    terms = (np.abs(bias) + np.abs(mean)) * np.abs(factor) + np.abs(shift)
    held = stored_value(weight)
    assert held is not None
    unit = ROUNDINGS * HALF.get(held.dtype.itemsize, 2.0**-24)
    overwrite(weight, _scaled(linear, held, factor))
    typed = (((bias - mean) * factor + shift) / beta).astype(held.dtype)
    names = [source_of(_value(value)).name or "" for value in norm.inputs[1:5]]
    if old is not None:
        overwrite(old, typed.reshape([*(1,) * (_wide(old).ndim - 1), len(typed)]))
        kept, out = source_of(old), holder.outputs[0]
    else:
        kept = store(file, f"{names[1]}.bias", typed)
        out = _shifted(linear, kept, norm)
    assert norm.graph is not None
    ir.convenience.replace_all_uses_with(norm.outputs[0], out, replace_graph_outputs=True)
    norm.graph.remove(norm, safe=True)
    shifts = (names[1], names[2], *([kept.name or ""] if old is not None else []))
    stored, slack = source_of(weight).name or "", unit * float(terms.max(initial=0.0))
    return Fold(stored, kept.name or "", (names[0], names[3]), shifts, slack)


def _shifted(linear: ir.Node, bias: ir.Value, norm: ir.Node) -> ir.Value:
    """What a layer makes once it has a bias."""
    if linear.op_type != "MatMul":
        linear.resize_inputs(3)
        linear.replace_input_with(2, bias)
        return linear.outputs[0]
    added = ir.Node("", "Add", [linear.outputs[0], bias], name=f"{norm.name}.add")
    added.outputs[0].name = f"{norm.outputs[0].name}.sum"
    assert norm.graph is not None
    norm.graph.insert_before(norm, added)
    return added.outputs[0]


def _value(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _wide(value: ir.Value | None) -> Array:
    stored = stored_value(_value(value))
    assert stored is not None
    return stored.astype(np.float64)


def _scaled(linear: ir.Node, weight: Array, factor: Array) -> Array:
    """A weight whose output channels are multiplied with a factor each."""
    wide = weight.astype(np.float64)
    if linear.op_type == "ConvTranspose":
        groups = linear.attributes.get_int("group", 1)
        apart = wide.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        apart = apart * factor.reshape(groups, 1, weight.shape[1], *(1,) * (weight.ndim - 2))
        return apart.reshape(weight.shape).astype(weight.dtype)
    sizes = [1] * weight.ndim
    sizes[_axis(linear)] = len(factor)
    return (wide * factor.reshape(sizes)).astype(weight.dtype)


def told(found: Iterable[Change], folds: Sequence[Sequence[Fold]], models: Sequence[Model]) -> tuple[Change, ...]:
    """The changes of two folded files as changes of what was folded.

    A weight that is the same once its normalisation is in it is the same up to a factor per unit, and explained; so are
    the vectors that went into its bias, if that is the same as well.
    """
    into = [{f.weight: f for f in side} | {f.bias: f for f in side} for side in folds]
    made: list[Change] = []
    for change in found:
        old = into[0].get(change.old)
        fold = old or next((into[1][n] for n in change.new if n in into[1]), None)
        made += [change] if fold is None else _explained(change, fold, models[0], mine=old is not None)
    return tuple(made)


def _explained(change: Change, fold: Fold, old: Model, *, mine: bool) -> Iterator[Change]:
    """One change as those of what went into the weight or the bias; `mine` where the old file was folded."""
    same = change.status in SAME
    # A fold leaves no gauge to choose.
    change = replace(change, status="changed") if change.status in ("rescaled", "moved") else change
    parts = fold.shifts
    if change.old == fold.weight or fold.weight in change.new:
        parts = fold.scales
        yield replace(change, status="rescaled", explained=True) if same else change
    elif not mine:
        gone = tuple(dict.fromkeys((*fold.shifts, *fold.scales)))
        yield replace(change, new=gone, **(EXPLAINED if same else {}))
    for name in parts if mine else ():
        shape = old.tensors[name].shape
        part = replace(change, old=name, shape=shape, matched=prod(shape) if change.matched else 0, rank=None)
        yield replace(part, **EXPLAINED) if same else part
