"""Surgery on a file: every stored tensor and every operator that speaks of sizes adapted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.model.graph import Array, Model, Node
from symlint.model.records import dataclass
from symlint.repair.surgery.narrowing import Immovable, Left, Narrowing
from symlint.repair.surgery.operation import Call, Surgery, Use, uniform
from symlint.repair.surgery.site import Place
from symlint.repair.surgery.tensors import free_name, overwrite, replace, source_of, store, stored_value
from symlint.repair.surgery.waste import Idle, discard, idle


def narrow(file: ir.Model, model: Model, narrowing: Narrowing) -> None:
    """Take the units away that `narrowing` says, in place.

    Args:
        file: the network as it is to be written, its functions inlined.
        model: the same network as symlint reads it.
        narrowing: what is left of every value.
    Raises `Immovable` where an operator cannot be told the new sizes.
    """
    _FileSurgery(file, model, narrowing).run()


@dataclass(frozen=True, slots=True)
class _FilePlace(Place):
    """A node of a file under surgery."""

    file: ir.Model
    at: ir.Node
    node: Node

    def reads(self, k: int) -> bool:
        """Whether there is an operand `k`."""
        return self.at.inputs[k] is not None

    def stored(self, k: int) -> Array | None:
        """The stored tensor that the file holds for operand `k` by now."""
        value = self.at.inputs[k]
        return None if value is None else stored_value(value)

    def needed(self, k: int) -> bool:
        """Whether anything reads result `k`."""
        return bool(self.at.outputs[k].uses())

    def ends(self, k: int) -> bool:
        """Whether result `k` is one of the network."""
        return self.at.outputs[k] in self.file.graph.outputs

    def set(self, name: str, value: Any) -> None:
        """Give an attribute another value; None takes it away."""
        if value is None:
            self.at.attributes.pop(name, None)
        else:
            self.at.attributes[name] = ir.convenience.convert_attribute(name, value)

    def put(self, k: int, value: Array) -> None:
        """Let the node read a stored value as operand `k`."""
        if k >= len(self.at.inputs):
            self.at.resize_inputs(k + 1)
        source = self.at.inputs[k]
        base = source.name if source is not None and source.name else f"{self.node.first}.{k}"
        self.at.replace_input_with(k, store(self.file, f"{base}.narrow", value))

    def choose(self, k: int, mask: Array, numbers: Array) -> None:
        """Let entries of operand `k` be other numbers, where the mask says so, once a run has computed it."""
        source = self.at.inputs[k]
        assert source is not None
        chosen = store(self.file, f"{source.name}.mask", mask)
        given = store(self.file, f"{source.name}.narrow", numbers)
        where = ir.Node("", "Where", [chosen, given, source], num_outputs=1, name=f"{self.node.name}.sizes")
        where.outputs[0].name = free_name(self.file, f"{source.name}.sizes")
        where.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        assert self.at.graph is not None
        self.at.graph.insert_before(self.at, where)
        self.at.replace_input_with(k, where.outputs[0])

    def insert(self, k: int, op: str, numbers: Sequence[Array], **attributes: int) -> None:
        """Let operand `k` pass through another operator first, which reads stored numbers besides."""
        source, graph = self.at.inputs[k], self.at.graph
        assert source is not None
        assert graph is not None
        given = [store(self.file, f"{source.name}.{op}", value) for value in numbers]
        fresh = ir.node(op, [source, *given], attributes)
        fresh.name = fresh.outputs[0].name = free_name(self.file, f"{source.name}.narrow")
        graph.insert_before(self.at, fresh)
        self.at.replace_input_with(k, fresh.outputs[0])

    def skip(self, k: int) -> None:
        """Leave the node out: what reads result `k` reads its first operand instead."""
        source, graph = self.at.inputs[0], self.at.graph
        assert source is not None
        assert graph is not None
        ir.convenience.replace_all_uses_with(self.at.outputs[k], source)
        graph.remove(self.at, safe=True)


class _FileSurgery(Surgery):
    def __init__(self, file: ir.Model, model: Model, narrowing: Narrowing) -> None:
        super().__init__(model, narrowing)
        self.file = file
        self.places: dict[str, ir.Node] = {}
        self._called: list[ir.Node] = []
        self._fixed: dict[str, ir.Value] = {}

    def run(self) -> None:
        """All of it, less what nothing reads any more."""
        before = idle(self.file)
        if self.empties:
            before = Idle(frozenset(), before.tensors)
            discard(self.file, before)
        self._called = list(self.file.graph.all_nodes())
        self.places = {out.name: n for n in self._called for out in n.outputs if out.name}
        self.operate()
        self._declare()
        discard(self.file, before)

    def calls(self) -> Iterator[tuple[int, Call]]:
        """The nodes of the file, bodies included, in order, each with a number of its own."""
        for number, node in enumerate(self._called):
            inputs = ["" if value is None else source_of(value).name or "" for value in node.inputs]
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            yield number, Call(node.op_type, inputs, [out.name or "" for out in node.outputs], attributes)

    def fix(self, number: int, k: int, name: str, known: Array) -> None:
        """Let operand `k` of a call be stored, which the file computes so far."""
        if name not in self._fixed:
            self._fixed[name] = store(self.file, f"{name}.fixed", known)
        self._called[number].replace_input_with(k, self._fixed[name])

    def place(self, first: str) -> Place | None:
        """Where the node with this first output stands; None where the file has it no more."""
        at = self.places.get(first)
        return None if at is None else _FilePlace(self.file, at, self.nodes[first])

    # -- stored tensors and known values --------------------------------------------------------------------------
    def cut(self, name: str, ways: Sequence[tuple[Left, list[Use]]]) -> None:
        """Cut a stored tensor or a known value as often as it is read in several ways."""
        whole = name in self.model.graph.outputs or len(ways) > 1
        for way, sites in ways:
            if all(kept is None for kept in way) and not self.runs(name):
                continue
            node, k = sites[0]
            place = self.places[node.first]
            value = place.inputs[k]
            assert value is not None
            held = source_of(value).const_value
            if not whole and isinstance(held, ir.LazyTensor):
                replace(value, self._cut_later(held, way))
                continue
            stored = stored_value(value)
            if stored is None:
                self._make(name, way, sites)
            elif whole:
                fresh = store(self.file, f"{name}.{len(sites)}", _cut(stored, way))
                self._rewire(sites, fresh)
            else:
                overwrite(value, _cut(stored, way))

    def _make(self, name: str, way: Left, sites: Sequence[Use]) -> None:
        """A known value that the file computes: stored from now on, or made with other sizes."""
        known = self.model.constants[name]
        place, k = self.places[sites[0][0].first], sites[0][1]
        if name not in self.model.moving:
            fresh = store(self.file, f"{name}.narrow", _cut(known, way))
        elif (value := place.inputs[k]) is not None and uniform(known):
            fresh = self._filled(place, value, known, way)
        else:
            raise Immovable(f"{name!r} is computed at run time")
        self._rewire(sites, fresh)

    def _filled(self, place: ir.Node, value: ir.Value, known: Array, way: Left) -> ir.Value:
        """One number throughout the shape that a value has at run time, but for the axes that are narrowed."""
        primes = {n for n in self.model.symbols.values() if n > 1}
        fixed = [kept is not None or all(n % p for p in primes) for n, kept in zip(known.shape, way, strict=True)]
        mask = np.asarray(fixed)
        sizes = np.asarray([n if kept is None else int(kept.sum()) for n, kept in zip(known.shape, way, strict=True)])
        number = store(self.file, f"{value.name}.number", known.reshape(-1)[:1].reshape(()))
        chosen = [store(self.file, f"{value.name}.{word}", x) for word, x in (("mask", mask), ("sizes", sizes))]
        measured = ir.Node("", "Shape", [value])
        where = ir.Node("", "Where", [*chosen, measured.outputs[0]])
        filled = ir.Node("", "Expand", [number, where.outputs[0]])
        assert place.graph is not None
        for node, word in ((measured, "shape"), (where, "wanted"), (filled, "narrow")):
            node.name = node.outputs[0].name = free_name(self.file, f"{value.name}.{word}")
            place.graph.insert_before(place, node)
        return filled.outputs[0]

    def _rewire(self, sites: Sequence[Use], value: ir.Value) -> None:
        for node, k in sites:
            self.places[node.first].replace_input_with(k, value)

    def _cut_later(self, held: ir.LazyTensor, way: Left) -> ir.LazyTensor:
        """A tensor that is not in memory, cut when it is written."""
        pairs = zip(held.shape.numpy(), way, strict=True)
        sizes = [int(kept.sum()) if kept is not None and n == len(kept) else n for n, kept in pairs]

        def made() -> ir.Tensor[Any]:
            return ir.Tensor(_cut(held.numpy(), way), dtype=held.dtype, name=held.name)

        return ir.LazyTensor(made, held.dtype, ir.Shape(sizes), name=held.name)

    # -- declared shapes ------------------------------------------------------------------------------------------
    def _declare(self) -> None:
        """Tell the new sizes of values that the file declares."""
        values = self.narrowing.whole.lowering.values
        states = {name for loop in self.narrowing.whole.states.values() for name in (loop.input, loop.output)}
        ends = (*self.file.graph.inputs, *self.file.graph.outputs)
        kept_as_is = {end for end in ends if (ref := values.get(end.name or "")) is None or ref.name not in states}
        made = [out for node in self.file.graph.all_nodes() for out in node.outputs]
        for out in (*made, *(x for graph in self.file.graphs() for x in graph.inputs)):
            ref = values.get(out.name or "")
            if out.shape is None or out in kept_as_is:
                continue
            rows: Left = () if ref is None or ref.items is not None else self.narrowing.of(ref.name)
            if ref is None or len(rows) != len(out.shape):
                out.shape = None
            elif any(k is not None for k in rows):
                sizes: Mapping[int, int] = {a: int(k.sum()) for a, k in enumerate(rows) if k is not None}
                dims = [sizes[a] if a in sizes and isinstance(d, int) else d for a, d in enumerate(out.shape)]
                out.shape = ir.Shape(dims)


def _cut(values: Array, way: Left) -> Array:
    for axis, kept in enumerate(way):
        if kept is not None and values.shape[axis] == len(kept):
            values = values.compress(kept, axis=axis)
    return np.asarray(values, order="C")
