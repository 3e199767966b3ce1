"""Surgery on a file: new weights, fewer units, every stored tensor and operator that speaks of sizes adapted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.evidence.settled import Settled
from symlint.model.graph import Array, Model, Node, Tensor
from symlint.model.records import dataclass
from symlint.model.saving import Lazy, rewrite
from symlint.model.stored import CODES, numpy_type
from symlint.repair.narrowing import Immovable, Left, Narrowing, Place, Whole
from symlint.repair.operation import Call, Surgery, Use, uniform
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure


def store(file: ir.Model, name: str, value: Array) -> ir.Value:
    """A new stored tensor of the file."""
    name = free_name(file, name)
    tensor = ir.Tensor(np.asarray(value, order="C"), name=name)
    fresh = ir.Value(name=name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    file.graph.register_initializer(fresh)
    if file.ir_version < 4:  # there every stored tensor is listed as an input
        file.graph.inputs.append(fresh)
    return fresh


def replace(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Give an initializer another tensor."""
    value = source_of(value)
    value.const_value, value.shape = tensor, ir.Shape(tensor.shape.numpy())


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


@dataclass(frozen=True, slots=True)
class Idle:
    """What had no reader before a change, and is left as it was."""

    nodes: frozenset[ir.Node]
    tensors: frozenset[str]


def idle(file: ir.Model) -> Idle:
    """The nodes and stored tensors that nothing reads."""
    return Idle(frozenset(_unread_nodes(file)), frozenset(_unread_tensors(file)))


def discard(file: ir.Model, spared: Idle) -> None:
    """Remove what nothing reads any more, in place, but for what nothing had read before."""
    while gone := [node for node in _unread_nodes(file) if node not in spared.nodes]:
        for node in gone:
            assert node.graph is not None
            node.graph.remove(node, safe=True)
    for name in [name for name in _unread_tensors(file) if name not in spared.tensors]:
        del file.graph.initializers[name]


def _unread_nodes(file: ir.Model) -> Iterator[ir.Node]:
    outputs = {out for graph in file.graphs() for out in graph.outputs}  # a body may hand out a value of an outer graph
    return (node for node in file.graph if not any(o.uses() or o in outputs for o in node.outputs))


def _unread_tensors(file: ir.Model) -> Iterator[str]:
    ends = {*file.graph.outputs, *file.graph.inputs}
    return (name for name, value in file.graph.initializers.items() if not value.uses() and value not in ends)


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


def stored(weights: Weights) -> dict[str, Array]:
    """The present values of all weights that have moved, in the types of the file."""
    tensors = weights.structure.program.model.tensors
    return {name: _rounded(tensors[name], value) for name, value in weights.now.items()}


def _rounded(tensor: Tensor, values: Array) -> Array:
    return values.astype(numpy_type(CODES[tensor.dtype]))


def _settled(model: Model) -> list[str]:
    return [name for name, tensor in model.tensors.items() if isinstance(tensor.read, Settled)]


class _Written(Lazy):
    """The values of a file: some that are given, and those of settled tensors, each made when it is asked for."""

    def __init__(self, model: Model, values: Mapping[str, Array]) -> None:
        self.tensors, self.given = model.tensors, values
        self.names = tuple(dict.fromkeys((*values, *_settled(model))))

    def __getitem__(self, name: str) -> Array:
        tensor = self.tensors[name]
        return self.given[name] if name in self.given else _rounded(tensor, tensor.read())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def dtype(self, name: str) -> np.dtype[Any]:
        """The type of the file."""
        return numpy_type(CODES[self.tensors[name].dtype])

    def forget(self) -> None:
        """Settled values are not kept."""


def narrowed(
    structure: Structure, values: Mapping[str, Array], widths: Mapping[int, int], whole: Whole | None = None
) -> ir.Model:
    """The file of a structure with its settled and with other weights, and with the first units only of some leaves."""
    model = structure.program.model
    file = rewrite(model.path, _Written(model, values) if _settled(model) else values)
    if widths:
        narrow(file, model, Narrowing(structure, whole or Whole(structure), widths))
    return file
