"""One node of a file under surgery: what it reads, what is left of it, and ways to tell it other numbers."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.model.graph import Array, Model, Node, Shape
from symlint.program.recorder import Ref
from symlint.repair.surgery.narrowing import Immovable, Left, Narrowing


@dataclass(frozen=True, slots=True)
class Site:
    """A node of the file with what the narrowing says of its operands and results."""

    file: ir.Model
    model: Model
    place: ir.Node
    node: Node
    narrowing: Narrowing
    tainted: Set[str]
    """Values that are computed from the size of something narrowed."""

    # -- reading --------------------------------------------------------------------------------------------------
    def ref(self, k: int) -> Ref | None:
        """The tensor that is read as operand `k`."""
        return self.narrowing.whole.lowering.uses.get((self.node.outputs[0], k))

    def read(self, k: int) -> Left:
        """What is left of operand `k`."""
        ref = self.ref(k)
        return () if ref is None or ref.items is not None else self.narrowing.of(ref.name)

    def made(self, k: int = 0) -> Left:
        """What is left of result `k`."""
        ref = self.narrowing.whole.lowering.values.get(self.node.outputs[k])
        return () if ref is None or ref.items is not None else self.narrowing.of(ref.name)

    @property
    def touched(self) -> bool:
        """Whether anything is narrowed here."""
        rows = [*map(self.read, range(len(self.node.inputs))), *map(self.made, range(len(self.node.outputs)))]
        return any(kept is not None for row in rows for kept in row)

    def before(self, k: int) -> Shape:
        """The old shape of operand `k`."""
        ref = self.ref(k)
        assert ref is not None
        return ref.shape

    def after(self, k: int) -> Shape:
        """The new shape of operand `k`."""
        pairs = zip(self.before(k), self.read(k), strict=False)
        return tuple(n if kept is None else int(kept.sum()) for n, kept in pairs)

    def result(self, k: int = 0) -> Shape:
        """The new shape of result `k`."""
        shape = self.model.shapes[self.node.outputs[k]]
        return tuple(n if kept is None else int(kept.sum()) for n, kept in zip(shape, self.made(k), strict=True))

    def known(self, k: int) -> Array | None:
        """The value of operand `k`, where the file decides it."""
        if k >= len(self.node.inputs) or not self.node.inputs[k]:
            return None
        name = self.node.inputs[k]
        if name in self.model.constants:
            return self.model.constants[name]
        tensor = self.model.tensors.get(name)
        return None if tensor is None else tensor.read()

    def stored(self, k: int) -> Array | None:
        """The stored tensor that the file holds for operand `k` by now."""
        value = self.place.inputs[k]
        return None if value is None else stored_value(value)

    def shifty(self, k: int) -> bool:
        """Whether operand `k` is computed from the size of something narrowed, and of lengths that a run decides."""
        return self.node.inputs[k] in self.tainted and self.node.inputs[k] in self.model.moving

    def varies(self, axis: int, k: int = 0) -> bool:
        """Whether the length of an axis of result `k` holds one that a run may change."""
        ref = self.narrowing.whole.lowering.values[self.node.outputs[k]]
        whole = self.narrowing.whole
        fixed = whole.lowering.program.weights.keys()
        factors, numbers = whole.axes.factors, [n for n in self.model.symbols.values() if n > 1]
        return any(
            fixed.isdisjoint(factors.holders.get(x, ())) and any(factors.size(x) % n == 0 for n in numbers)
            for x in factors.leaves(whole.axes.of[ref.name][axis])
        )

    # -- writing --------------------------------------------------------------------------------------------------
    def set(self, name: str, value: Any) -> None:
        """Give an attribute of the node another value."""
        self.place.attributes[name] = ir.convenience.convert_attribute(name, value)

    def put(self, k: int, value: Array) -> None:
        """Let the node read a stored value as operand `k`."""
        source = self.place.inputs[k]
        base = source.name if source is not None and source.name else f"{self.node.outputs[0]}.{k}"
        self.place.replace_input_with(k, self.store(self.file, f"{base}.narrow", value))

    def override(self, k: int, entries: dict[int, int]) -> None:
        """Let entries of a list of sizes, operand `k`, be other numbers; the others stay as the file computes them."""
        source = self.place.inputs[k]
        old = self.known(k)
        if source is None or not entries:
            return
        stored = stored_value(source)
        if stored is None and old is not None and self.node.inputs[k] not in self.model.moving:
            stored = old
        if stored is not None:
            fresh = stored.copy()
            for position, number in entries.items():
                fresh.reshape(-1)[position] = number
            if not np.array_equal(fresh, stored):
                self.put(k, fresh)
            return
        if old is None:
            raise Immovable(f"the sizes that {self.node.op} {self.node.name!r} is given are computed at run time")
        mask, numbers = np.zeros(old.shape, bool), np.zeros(old.shape, np.int64)
        for position, number in entries.items():
            mask.reshape(-1)[position], numbers.reshape(-1)[position] = True, number
        chosen = self.store(self.file, f"{source.name}.mask", mask)
        given = self.store(self.file, f"{source.name}.narrow", numbers)
        where = ir.Node("", "Where", [chosen, given, source], num_outputs=1, name=f"{self.node.name}.sizes")
        where.outputs[0].name = free_name(self.file, f"{source.name}.sizes")
        where.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        assert self.place.graph is not None
        self.place.graph.insert_before(self.place, where)
        self.place.replace_input_with(k, where.outputs[0])

    def insert(self, k: int, op: str, numbers: Sequence[Array], **attributes: int) -> None:
        """Let operand `k` pass through another operator first, which reads stored numbers besides."""
        source, graph = self.place.inputs[k], self.place.graph
        assert source is not None
        assert graph is not None
        given = [self.store(self.file, f"{source.name}.{op}", value) for value in numbers]
        fresh = ir.node(op, [source, *given], attributes)
        fresh.name = fresh.outputs[0].name = free_name(self.file, f"{source.name}.narrow")
        graph.insert_before(self.place, fresh)
        self.place.replace_input_with(k, fresh.outputs[0])

    @staticmethod
    def store(file: ir.Model, name: str, value: Array) -> ir.Value:
        """A new stored tensor of the file."""
        name = free_name(file, name)
        tensor = ir.Tensor(np.asarray(value, order="C"), name=name)
        fresh = ir.Value(name=name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        file.graph.register_initializer(fresh)
        if file.ir_version < 4:  # there every stored tensor is listed as an input
            file.graph.inputs.append(fresh)
        return fresh

    @staticmethod
    def replace(value: ir.Value, tensor: ir.TensorProtocol) -> None:
        """Give an initializer another tensor."""
        value = source_of(value)
        value.const_value, value.shape = tensor, ir.Shape(tensor.shape.numpy())

    @staticmethod
    def overwrite(value: ir.Value, array: Array) -> None:
        """Give a stored tensor another value, wherever the file keeps it."""
        value = source_of(value)
        maker = value.producer()
        old = value.const_value if maker is None else maker.attributes["value"].as_tensor()
        same = old is not None and old.dtype.itemsize == array.dtype.itemsize
        tensor = ir.Tensor(array, dtype=old.dtype if old is not None and same else None, name=value.name)
        if maker is None:
            value.const_value = tensor
        else:
            for name in list(maker.attributes):
                del maker.attributes[name]
            maker.attributes["value"] = ir.AttrTensor("value", tensor)
        value.shape = ir.Shape(array.shape)


def source_of(value: ir.Value) -> ir.Value:
    """What a value is an Identity of."""
    while (maker := value.producer()) is not None and maker.op_type == "Identity" and maker.inputs[0] is not None:
        value = maker.inputs[0]
    return value


def stored_value(value: ir.Value) -> Array | None:
    """The numbers of a stored tensor; None for a computed value."""
    value = source_of(value)
    maker = value.producer()
    if maker is None:
        return None if value.const_value is None else value.const_value.numpy()
    if maker.op_type != "Constant":
        return None
    if "value" in maker.attributes:
        return maker.attributes["value"].as_tensor().numpy()
    key, attribute = next(iter(maker.attributes.items()))
    return np.asarray(attribute.value, np.int64 if "int" in key else np.float32)


def free_name(file: ir.Model, name: str) -> str:
    """A name that no value of the file has yet."""
    taken = {*file.graph.initializers}
    taken.update(v.name for node in file.graph.all_nodes() for v in node.outputs if v.name)
    taken.update(v.name for v in file.graph.inputs if v.name)
    count, found = 1, name
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found
