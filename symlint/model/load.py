"""From an ONNX file to a `Model`: read, checked, inlined, aliased, with concrete shapes.

Nothing is executed and no weight is read: a `Tensor` reads its values when it is asked to.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from symlint.model.errors import UnreadableModel
from symlint.model.file import guard
from symlint.model.file.convert import Converter, Reading, plain_domain
from symlint.model.file.guard import model_file, parse
from symlint.model.file.stored import StoredFile, Weights, default_budget
from symlint.model.graph import Model
from symlint.model.shapes.concrete import Skeleton, make_concrete


def load(path: str | Path, *, budget: int | None = None) -> Model:
    """Read an ONNX file into a `Model`, with one concrete choice of every symbolic dimension.

    ``budget`` is how many bytes of weights may stay in memory once they were read: by default all of a model of up to
    512 MB. Raises UnreadableModel (SYM001 unreadable, SYM002 Git LFS pointer, SYM003 missing external data), and
    nothing else.
    """
    name = str(path)
    try:
        file = model_file(Path(path), name)
        proto, outline = parse(file)
        files = guard.check(proto, outline, name, Path(path).parent)
        size = file.size + sum(other.size for other in files.values())
        weights = Weights(default_budget(size) if budget is None else budget, files)
        node_version = ""
        if proto.functions:
            proto, node_version = _inlined(proto, outline.secret)
        return _build(proto, file, Reading(outline, file, files, weights), node_version)
    except UnreadableModel:
        raise
    except Exception as error:  # whatever an untrusted file provokes is told in one line
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise UnreadableModel(name, f"could not be parsed as ONNX: {reason}") from error


def files(path: str | Path) -> dict[str, StoredFile]:
    """The files of a model by the names that it has for them; its own, without a name, is the first.

    Raises UnreadableModel as `load` does, for what already its outline shows.
    """
    file = model_file(Path(path), str(path))
    proto, outline = parse(file)
    return {"": file, **guard.check(proto, outline, str(path), Path(path).parent)}


def _inlined(proto: onnx.ModelProto, key: str) -> tuple[onnx.ModelProto, str]:
    """The model with its functions written out; under ``key`` a node tells its version if it has one of its own."""
    import logging

    import onnx_ir as ir

    from symlint.model.file.saving import inline

    # Its warnings about a file would reach the terminal unescaped; what matters of them is checked by the guard.
    logging.getLogger("onnx_ir").addHandler(logging.NullHandler())
    model = ir.serde.deserialize_model(proto)
    for function in model.functions.values():
        for node in function.all_nodes():
            node.version = function.opset_imports.get(node.domain)
        for domain, version in function.opset_imports.items():
            model.opset_imports.setdefault(domain, version)
        # Each node now knows its version, so a function may differ from the model; the inliner would refuse that.
        function.opset_imports.clear()
    inline(model)
    for node in model.graph.all_nodes():
        if node.version:
            node.metadata_props[key] = str(node.version)
    return ir.serde.serialize_model(model), key


def _build(proto: onnx.ModelProto, file: StoredFile, reading: Reading, node_version: str) -> Model:
    versions = {plain_domain(item.domain): item.version for item in proto.opset_import}
    opset = versions.setdefault("", 1)
    notes = []
    if opset > onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        notes.append(f"opset {opset} is newer than the installed onnx knows; read with the operators of {newest}")
    walk = Converter(reading, versions, node_version)
    graph = walk.graph(proto.graph)
    skeleton = Skeleton(
        graph, walk.tensors, {name: walk.types[name] for name in graph.inputs if name in walk.types}, walk.types
    )
    concrete = make_concrete(skeleton)
    return Model(
        path=file.name,
        file=file,
        opset=opset,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        graph=graph,
        tensors=walk.tensors,
        shapes=concrete.shapes,
        dtypes=concrete.dtypes,
        constants=concrete.constants,
        symbols=concrete.symbols,
        moving=concrete.moving,
        notes=(*notes, *concrete.notes),
        called=walk.called,
        literals=frozenset(walk.literals),
        unread=frozenset(walk.tensors.keys() - walk.read - walk.bound),
        bound=frozenset(walk.bound & walk.tensors.keys()),
        weights=reading.weights,
    )
