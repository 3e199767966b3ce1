"""Surgery: a model file with fewer units, every stored tensor and every operator that speaks of sizes adapted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.model.graph import Array, Graph, Model, Node
from symlint.model.operators import known
from symlint.program.recorder import Ref
from symlint.repair.surgery import heads, layouts, places  # noqa: F401 - the others enter their operators
from symlint.repair.surgery.narrowing import Immovable, Left, Narrowing, same
from symlint.repair.surgery.site import Site, free_name, source_of, stored_value
from symlint.repair.surgery.waste import Idle, discard, idle


def narrow(file: ir.Model, model: Model, narrowing: Narrowing) -> None:
    """Take the units away that `narrowing` says, in place.

    Args:
        file: the network as it is to be written, its functions inlined.
        model: the same network as symlint reads it.
        narrowing: what is left of every value.
    Raises `Immovable` where an operator cannot be told the new sizes.
    """
    _Surgery(file, model, narrowing).run()


class _Surgery:
    def __init__(self, file: ir.Model, model: Model, narrowing: Narrowing) -> None:
        self.file, self.model, self.narrowing = file, model, narrowing
        self.uses = narrowing.whole.lowering.uses
        self.nodes = {node.outputs[0]: node for node in _all(model.graph) if node.outputs}
        self.places: dict[str, ir.Node] = {}
        self.tainted: set[str] = set()
        """Values that the file computes from the size of something narrowed."""

    def run(self) -> None:
        """Layouts first, while all values still have their old names; then what is stored."""
        before = idle(self.file)
        if any(not kept.any() for kept in self.narrowing.masks.values()):
            # What nothing reads would be asked for a part of no units.
            before = Idle(frozenset(), before.tensors)
            discard(self.file, before)
        self.places = {
            out.name: n for n in self.file.graph.all_nodes() for out in n.outputs[:1] if out.name is not None
        }
        self._freeze()
        for first, node in self.nodes.items():
            place = self.places.get(first)
            if place is not None:
                site = Site(self.file, self.model, place, node, self.narrowing, self.tainted)
                if site.touched:
                    (known(node.op).resize or layouts.unknown)(site)
        self._store()
        self._declare()
        discard(self.file, before)

    # -- stored tensors and known values --------------------------------------------------------------------------
    def _store(self) -> None:
        """Cut stored tensors; one that is read in several ways is stored as often."""
        wanted: defaultdict[str, list[tuple[Node, int, Left]]] = defaultdict(list)
        for first, node in self.nodes.items():
            for k, name in enumerate(node.inputs):
                ref = self.uses.get((first, k))
                if (
                    first in self.places
                    and ref is not None
                    and ref.items is None
                    and (name in self.model.tensors or name in self.model.constants)
                ):
                    wanted[name].append((node, k, self._rows(node, k, ref)))
        for name, uses in wanted.items():
            ways: list[tuple[Left, list[tuple[Node, int]]]] = []
            for node, k, rows in uses:
                for way, sites in ways:
                    if same(way, rows):
                        sites.append((node, k))
                        break
                else:
                    ways.append((rows, [(node, k)]))
            if self._runs(name) or any(kept is not None for way, _ in ways for kept in way):
                self._write(name, ways)

    def _rows(self, node: Node, k: int, ref: Ref) -> Left:
        """What is left of an operand; one number throughout takes the sizes of what it meets."""
        rows = self.narrowing.of(ref.name)
        if (0 not in ref.shape and ref.value is None) or any(kept is not None for kept in rows):
            return rows
        if node.op in ("LSTM", "GRU", "RNN") and k > 4:
            weight = self.uses[node.outputs[0], 2]
            return (*rows[:-1], self.narrowing.of(weight.name)[2])
        made = self.narrowing.whole.lowering.values.get(node.outputs[0])
        if node.op == "Concat" and made is not None and 0 in ref.shape:
            along = int(node.attributes["axis"]) % len(ref.shape)
            return tuple(None if a == along else kept for a, kept in enumerate(self.narrowing.of(made.name)))
        if made is None or (not known(node.op).broadcasts and (k or "Scatter" not in node.op)):
            return rows
        met = zip(ref.shape[::-1], made.shape[::-1], self.narrowing.of(made.name)[::-1], strict=False)
        return tuple(kept if n == m else None for n, m, kept in met)[::-1]

    def _write(self, name: str, ways: Sequence[tuple[Left, list[tuple[Node, int]]]]) -> None:
        whole = name in self.model.graph.outputs or len(ways) > 1
        for way, sites in ways:
            if all(kept is None for kept in way) and not self._runs(name):
                continue
            node, k = sites[0]
            place = self.places[node.outputs[0]]
            value = place.inputs[k]
            assert value is not None
            held = source_of(value).const_value
            if not whole and isinstance(held, ir.LazyTensor):
                Site.replace(value, self._cut_later(held, way))
                continue
            stored = stored_value(value)
            if stored is None:
                self._make(name, way, sites)
            elif whole:
                fresh = Site.store(self.file, f"{name}.{len(sites)}", self._cut(stored, way))
                self._rewire(sites, fresh)
            else:
                Site.overwrite(value, self._cut(stored, way))

    def _make(self, name: str, way: Left, sites: Sequence[tuple[Node, int]]) -> None:
        """A known value that the file computes: stored from now on, or made with other sizes."""
        known = self.model.constants[name]
        place, k = self.places[sites[0][0].outputs[0]], sites[0][1]
        if name not in self.model.moving:
            fresh = Site.store(self.file, f"{name}.narrow", self._cut(known, way))
        elif (value := place.inputs[k]) is not None and _uniform(known):
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
        number = Site.store(self.file, f"{value.name}.number", known.reshape(-1)[:1].reshape(()))
        chosen = [Site.store(self.file, f"{value.name}.{word}", x) for word, x in (("mask", mask), ("sizes", sizes))]
        measured = ir.Node("", "Shape", [value])
        where = ir.Node("", "Where", [*chosen, measured.outputs[0]])
        filled = ir.Node("", "Expand", [number, where.outputs[0]])
        assert place.graph is not None
        for node, word in ((measured, "shape"), (where, "wanted"), (filled, "narrow")):
            node.name = node.outputs[0].name = free_name(self.file, f"{value.name}.{word}")
            place.graph.insert_before(place, node)
        return filled.outputs[0]

    def _runs(self, name: str) -> bool:
        """Whether a value of one number has a shape that a run decides and that was taken from something narrowed."""
        known = self.model.constants.get(name)
        layout = known is not None and known.ndim == 1 and known.dtype.kind == "i"
        return (
            known is not None and name in self.tainted and name in self.model.moving and _uniform(known) and not layout
        )

    def _rewire(self, sites: Sequence[tuple[Node, int]], value: ir.Value) -> None:
        for node, k in sites:
            self.places[node.outputs[0]].replace_input_with(k, value)

    def _cut_later(self, held: ir.LazyTensor, way: Left) -> ir.LazyTensor:
        """A tensor that is not in memory, cut when it is written."""
        pairs = zip(held.shape.numpy(), way, strict=True)
        sizes = [int(kept.sum()) if kept is not None and n == len(kept) else n for n, kept in pairs]

        def made() -> ir.Tensor[Any]:
            return ir.Tensor(self._cut(held.numpy(), way), dtype=held.dtype, name=held.name)

        return ir.LazyTensor(made, held.dtype, ir.Shape(sizes), name=held.name)

    @staticmethod
    def _cut(values: Array, way: Left) -> Array:
        for axis, kept in enumerate(way):
            if kept is not None and values.shape[axis] == len(kept):
                values = values.compress(kept, axis=axis)
        return np.asarray(values, order="C")

    # -- numbers that are computed from sizes ---------------------------------------------------------------------
    def _freeze(self) -> None:
        """Store what is computed from the size of something narrowed: scales, lengths, masks, sizes of layouts."""
        stored: dict[str, ir.Value] = {}
        for node in list(self.file.graph.all_nodes()):
            first = node.outputs[0].name or ""
            if node.op_type in ("Shape", "Size") and node.inputs[0] is not None:
                ref = self.narrowing.whole.lowering.values.get(node.inputs[0].name or "")
                cut = ref is not None and ref.items is None and any(k is not None for k in self.narrowing.of(ref.name))
                self.tainted.update(o.name or "" for o in node.outputs if cut)
            elif any(v is not None and v.name in self.tainted for v in node.inputs):
                if first in self.model.constants or node.op_type == "Identity":
                    self.tainted.update(o.name or "" for o in node.outputs)
                    continue
                for k, value in enumerate(node.inputs):
                    if value is not None and (name := value.name or "") in self.tainted:
                        fixed = self.model.constants.get(name)
                        if fixed is not None and name not in self.model.moving:
                            if name not in stored:
                                stored[name] = Site.store(self.file, f"{name}.fixed", fixed)
                            node.replace_input_with(k, stored[name])
                        elif fixed is None or not (_uniform(fixed) or (known(node.op_type).resize and k > 0)):
                            raise Immovable(f"{name!r} is computed from their number")

    # -- declared shapes ------------------------------------------------------------------------------------------
    def _declare(self) -> None:
        """Tell the new sizes of values that the file declares."""
        values = self.narrowing.whole.lowering.values
        kept_as_is = {*self.file.graph.inputs, *self.file.graph.outputs}
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


def _uniform(values: Array) -> bool:
    return values.size > 0 and bool((values == values.reshape(-1)[0]).all())


def _all(graph: Graph) -> list[Node]:
    found: list[Node] = []
    for node in graph.nodes:
        found.append(node)
        for value in node.attributes.values():
            for body in value if isinstance(value, tuple) else (value,):
                if isinstance(body, Graph):
                    found += _all(body)
    return found
