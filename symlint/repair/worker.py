"""The worker: carries out the next stage of repairs on one file, biases before any unit is taken away.

Biases: what a contraction is to have added goes into them; redundant ones are absorbed, and leave the file.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from symlint.evidence.context import Context
from symlint.lint.finding import Drop, Factor, Fold, Merge, MergeHeads
from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.repair.merging import SLOTS, Offset, factor, fold, foldable, gather, merge
from symlint.repair.narrowing import arrange, lifeless, zeros
from symlint.repair.plan import Key, Pending, Repair, Stage
from symlint.repair.promises import Forecast, Intent
from symlint.repair.surgery import discard, free_name, idle, narrowed, overwrite, source_of, store, stored, stored_value
from symlint.symmetry.motion.motion import Weights, fresh_weights
from symlint.symmetry.structure import Structure
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import changes

OPTIONAL = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "LayerNormalization": 2}
"""Operator -> the operand that may be missing, which counts as zero."""


def redundant(context: Context, space: str, tensors: Collection[str]) -> Iterator[Translation]:
    """The translations of a space that take a whole tensor to zero."""
    program = context.structure.program
    actions = (action for action in context.structure.shifts if action.space == space)
    for moved in (action.translation for action in sorted(actions, key=lambda action: action.id)):
        if whole(context.structure, moved) and program.weights[moved.weight] in tensors:
            yield moved


def whole(structure: Structure, translation: Translation) -> bool:
    """Whether a translation reaches every number of a stored tensor, each for itself."""
    loose = translation.free and translation.full and not translation.gained
    return loose and translation.weight not in structure.program.detached


def drop(weights: Weights, translation: Translation) -> str:
    """Take a bias to zero; what others have to take over is added to them. The name of the stored tensor."""
    value = weights.get(translation.weight)
    order = [np.argsort(classes) for classes in translation.wave.classes]
    size = -value[np.ix_(*order)] if value.ndim else -value
    for name, change in list(changes(translation, weights.numbers, size.reshape(translation.shape))):
        weights.put(name, weights.get(name) + change)
    weights.put(translation.weight, np.zeros_like(value))
    return weights.structure.program.weights[translation.weight]


def droppable(file: ir.Model, model: Model, name: str) -> bool:
    """Whether the file can do without a stored tensor that is zero; `model` is the file as symlint reads it."""
    use = _use(file, name)
    if use is None:
        return False
    node, k = use
    if node.op_type == "Add":
        other, out = node.inputs[1 - k], node.outputs[0]
        if other is None or other.name is None or out.name is None or out in file.graph.outputs:
            return False
        return model.shapes.get(out.name) == model.shapes.get(other.name, ())
    return OPTIONAL.get(node.op_type) == k


def remove(file: ir.Model, name: str) -> None:
    """Take a stored tensor of zeros out of the file, with the addition that it was for."""
    use, before = _use(file, name), idle(file)
    assert use is not None
    node, k = use
    if node.op_type == "Add":
        other = node.inputs[1 - k]
        assert other is not None
        ir.convenience.replace_all_uses_with(node.outputs[0], other)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
    else:
        node.replace_input_with(k, None)
        if k == len(node.inputs) - 1:
            node.resize_inputs(k)
    discard(file, before)


def bypass(file: ir.Model, model: Model, zeros: Collection[str]) -> bool:
    """Leave out additions of a branch that is zero for every input, and the branch; whether there was one.

    Args:
        file: changes in place.
        model: the file as symlint reads it.
        zeros: names of values that are zero.
    """
    found, before = False, idle(file)
    for node in list(file.graph):
        out = node.outputs[0]
        if node.op_type != "Add" or out in file.graph.outputs:
            continue
        for value, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
            if value is None or other is None or source_of(value).name not in zeros:
                continue
            if model.shapes.get(out.name or "") == model.shapes.get(source_of(other).name or "", ()):
                ir.convenience.replace_all_uses_with(out, other)
                file.graph.remove(node, safe=True)
                found = True
                break
    if found:
        discard(file, before)
    return found


def _use(file: ir.Model, name: str) -> tuple[ir.Node, int] | None:
    """The one place where a stored tensor is read."""
    found = [
        (node, k)
        for node in file.graph
        for k, value in enumerate(node.inputs)
        if value is not None and node.op_type != "Identity" and source_of(value).name == name
    ]
    return found[0] if len(found) == 1 else None


def shift(file: ir.Model, offset: Offset) -> None:
    """Add an offset to what a contraction of the file makes, in place."""
    node = next(n for n in file.graph.all_nodes() if offset.step.node.first in {o.name for o in n.outputs})
    values = offset.values
    if not values.any():
        return
    if node.op_type in SLOTS:
        _slotted(file, node, SLOTS[node.op_type], values)
        return
    out = node.outputs[0]
    uses = list(out.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and out not in file.graph.outputs:
        reader = uses[0].node
        other = reader.inputs[1 - uses[0].idx]
        old = None if other is None else stored_value(other)
        if other is not None and old is not None and _own(other) and (fresh := _joined(old, values)) is not None:
            overwrite(other, fresh)
            return
    _added(file, node, values)


def _slotted(file: ir.Model, node: ir.Node, slot: int, values: Array) -> None:
    given = node.inputs[slot] if len(node.inputs) > slot else None
    channels = _slim(values) if node.op_type in ("Gemm", "FusedGemm") else values.reshape(-1)
    if node.op_type in ("Gemm", "FusedGemm"):
        alpha, beta = (node.attributes[n].as_float() if n in node.attributes else 1.0 for n in ("alpha", "beta"))
        if not beta:  # what stands in its place does not count
            node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
            given = None
        channels = channels * (alpha / (beta or 1.0))
    weight = next((v for v in node.inputs[1::-1] if v is not None and stored_value(v) is not None), node.inputs[1])
    assert weight is not None
    stored = stored_value(weight)
    kind = np.float32 if stored is None else stored.dtype
    if given is None:
        name = f"{(weight.name or 'weight').removesuffix('.weight')}.bias"
        fresh = store(file, name, channels.astype(kind))
        if len(node.inputs) <= slot:
            node.resize_inputs(slot + 1)
        node.replace_input_with(slot, fresh)
        return
    old = stored_value(given)
    made = None if old is None else _joined(old, channels)
    if made is None:
        _added(file, node, values)
    elif _own(given):
        overwrite(given, made)
    else:
        node.replace_input_with(slot, store(file, f"{given.name}.shifted", made))


def _joined(old: Array, values: Array) -> Array | None:
    """A bias with an offset, where it has the shape for that."""
    made = old.astype(np.float64) + _slim(values, old.ndim)
    return np.asarray(made.astype(old.dtype)) if made.shape == old.shape else None


def _slim(values: Array, least: int = 1) -> Array:
    """An array without leading axes of size 1, down to so many axes."""
    lead = 0
    while lead < values.ndim - least and values.shape[lead] == 1:
        lead += 1
    return values.reshape(values.shape[lead:])


def _own(value: ir.Value) -> bool:
    """Whether a stored tensor has one use only."""
    origin = source_of(value)
    return len(list(origin.uses())) == 1 and len(list(value.uses())) == 1


def _added(file: ir.Model, node: ir.Node, values: Array) -> None:
    """An Add of its own behind the node, whose result keeps its name."""
    out = node.outputs[0]
    name = out.name or ""
    weight = next((v for v in node.inputs if v is not None and stored_value(v) is not None), None)
    stored = None if weight is None else stored_value(weight)
    kind = np.float32 if stored is None or stored.dtype.kind != "f" else stored.dtype
    bias = store(file, f"{name}.bias", _slim(values).astype(kind))
    add = ir.Node("", "Add", [out, bias], num_outputs=1, name=f"{node.name or name}.bias")
    made = add.outputs[0]
    made.type, made.shape = out.type, out.shape
    assert node.graph is not None
    node.graph.insert_after(node, add)
    ir.convenience.replace_all_uses_with(out, made, replace_graph_outputs=True)
    add.replace_input_with(0, out)
    out.name, made.name = free_name(file, f"{name}.unbiased"), name


def absorbed(structure: Structure) -> tuple[ir.Model, tuple[str, ...]] | None:
    """The file without stored tensors that translations take to zero, and their names; None where there are none.

    One of two biases that are added, the bias of a normalisation before a reader that has one, and what softmaxes and
    normalisations do not see. A tensor into which another has gone stays, until the next time.
    """
    program = structure.program
    weights, file = fresh_weights(structure), narrowed(structure, {}, {})
    gone: list[str] = []
    taken: set[str] = set()
    for moved in (action.translation for action in structure.shifts):
        if not whole(structure, moved):
            continue
        name = program.weights[moved.weight]
        takers = {program.weights[way.weight] for way in moved.absorbers}
        if name in taken or takers & {*gone} or not droppable(file, program.model, name):
            continue
        gone.append(drop(weights, moved))
        taken |= takers
    if not gone:
        return None
    file = narrowed(structure, stored(weights), {})
    for name in gone:
        remove(file, name)
    return file, tuple(gone)


@dataclass(frozen=True)
class Settling:
    """The repairs that keep every unit, on one file."""

    context: Context

    # -- branches -------------------------------------------------------------------------------------------------
    def bypasses(self, chosen: Sequence[Repair]) -> Stage | None:
        """Leave out branches of which nothing is alive, and that end in a sum."""
        dead = lifeless(chosen)
        if not dead:
            return None
        file = narrowed(self.context.structure, {}, {})
        if not bypass(file, self.context.symmetry.model, zeros(self.context)):
            return None
        done = [(r, len(r.finding.units)) for r in dead if any(_gone(file, t) for t in r.finding.tensors)]
        return Stage(file, tuple(done)) if done else None

    # -- constants and biases -------------------------------------------------------------------------------------
    def settles(self, chosen: Sequence[Repair], taken: Container[Key]) -> Stage | None:
        """Fold constant units into biases, and then drop biases that others can take over.

        Args:
            chosen: the repairs.
            taken: those whose units can be taken away afterwards; no others are folded.
        """
        # What is folded may go into a bias that is to be dropped.
        folded = [r for r in chosen if isinstance(r.remedy, Fold) and r.key in taken]
        return self._settled(folded) or self._settled([r for r in chosen if isinstance(r.remedy, Drop)])

    def _settled(self, chosen: Sequence[Repair]) -> Stage | None:
        if not chosen:
            return None
        structure = self.context.structure
        weights, file = fresh_weights(structure), narrowed(structure, {}, {})
        offsets: list[Offset] = []
        gone: list[str] = []
        done: list[tuple[Repair, int]] = []
        waiting: list[Pending] = []
        for repair in chosen:
            if isinstance(repair.remedy, Drop):
                dropped = self._drops(file, weights, repair.space, repair.remedy, gone)
                gone += dropped
                sizes = [structure.program.model.tensors[name].size for name in dropped]
                done += [(repair, sum(sizes))] if dropped else []
            else:
                done.append((repair, 0))
                waiting.append(Pending(repair, self._folds(weights, repair, offsets)))
        if not done:
            return None
        file = narrowed(structure, stored(weights), {})
        for offset in offsets:
            shift(file, offset)
        for name in gone:
            remove(file, name)
        return Stage(file, tuple(done), tuple(waiting))

    def _folds(self, weights: Weights, repair: Repair, offsets: list[Offset]) -> tuple[int, ...]:
        """The units that are read no more; what they contributed is added to `offsets`."""
        found = foldable(self.context, repair.space, repair.finding.units)
        if found.units:
            offsets += fold(self.context, weights, repair.space, found.units)
        if found.groups:
            merge(self.context, weights, repair.space, found.groups)
        return found.spare

    def _drops(self, file: ir.Model, weights: Weights, space: str, asked: Drop, gone: Sequence[str]) -> list[str]:
        """The tensors that a repair takes to zero, of those that the file can do without and that are still there."""
        program, found = self.context.structure.program, list[str]()
        for moved in redundant(self.context, space, asked.tensors):
            takers = {program.weights[way.weight] for way in moved.absorbers}
            if takers & {*gone, *found}:
                continue
            if droppable(file, program.model, program.weights[moved.weight]):
                found.append(drop(weights, moved))
        return found


def _gone(file: ir.Model, name: str) -> bool:
    return not any(name in g.initializers or any(o.name == name for n in g for o in n.outputs) for g in file.graphs())


class Worker:
    """Carries out repairs on one file."""

    def __init__(self, context: Context, align: int = 1, *, shrinks: bool = False) -> None:
        self.context = context
        self.structure = context.structure
        self.model = self.structure.program.model
        self.forecast = Forecast(context, align, shrinks=shrinks)
        self.left: dict[Key, str] = {}
        """What the last stage could not carry out, and why."""

    def stage(self, chosen: Sequence[Repair], pending: Sequence[Pending]) -> Stage | None:
        """The next stage; None where nothing can be done.

        What goes into biases comes first, since new biases belong to spaces of their own.
        """
        self.left = dict[Key, str]()
        if not chosen and not pending:
            return None
        settling = Settling(self.context)
        if (bypassed := settling.bypasses(chosen)) is not None:
            return bypassed
        intent = self.forecast.of(chosen, pending)
        self.left.update(intent.reasons)
        return settling.settles(chosen, intent.taken) or self._removes(chosen, pending, intent)

    def _removes(self, chosen: Sequence[Repair], pending: Sequence[Pending], intent: Intent) -> Stage | None:
        """Take units away, once others do the work of those that are not dead."""
        if not intent.removal.widths:
            return None
        weights, done = fresh_weights(self.structure), list[tuple[Repair, int]]()
        for repair in chosen:
            if repair.key not in intent.taken or isinstance(repair.remedy, Fold):
                continue
            self._passes_on(weights, repair)
            done.append((repair, intent.taken[repair.key]))
        arrange(weights, intent.removal)
        widths = intent.removal.widths
        taken = {wait.repair.key: intent.waiting.get(wait.repair.key, 0) for wait in pending}
        file = narrowed(self.structure, stored(weights), widths, self.forecast.whole)
        return Stage(file, tuple(done), cut=True, taken=taken)

    def _passes_on(self, weights: Weights, repair: Repair) -> None:
        """Let others do the work of what goes."""
        match repair.remedy:
            case MergeHeads():
                gather(self.context, weights, repair.space)
            case Merge(groups):
                merge(self.context, weights, repair.space, groups)
            case Factor():
                factor(self.context, weights, next(p for s, p in self.context.products if s.id == repair.space))
