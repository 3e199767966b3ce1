"""From an ONNX file to a `Model`: read, checked, inlined, aliased, with concrete shapes.

Nothing is executed and no weight is decoded: a `Tensor` reads its values when it is asked to.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from symlint import guard
from symlint.concrete import Skeleton, make_concrete
from symlint.convert import Converter, plain_domain
from symlint.errors import UnreadableModel
from symlint.files import parse, read_bytes
from symlint.graph import Model

# Its warnings about a file would reach the terminal unescaped; what matters of them is checked here.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())


def load(path: str | Path) -> Model:
    """Read an ONNX file into a `Model`, with one concrete choice of every symbolic dimension.

    Raises UnreadableModel (SYM001 unreadable, SYM002 Git LFS pointer, SYM003 missing external data), and nothing else.
    """
    name = str(path)
    try:
        data = read_bytes(Path(path), name)
        digest = hashlib.sha256(data).hexdigest()
        proto = parse(data, name)
        del data
        folder = Path(path).parent
        guard.check(proto, name, folder)
        return _build(proto, name, digest, folder)
    except UnreadableModel:
        raise
    except Exception as error:  # whatever an untrusted file provokes is told in one line
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise UnreadableModel(name, f"could not be parsed as ONNX: {reason}") from error


def _build(proto: onnx.ModelProto, path: str, digest: str, folder: Path) -> Model:
    model = ir.serde.deserialize_model(proto)
    for function in model.functions.values():
        for node in function.all_nodes():
            node.version = function.opset_imports.get(node.domain)
        for domain, version in function.opset_imports.items():
            model.opset_imports.setdefault(domain, version)
        # Each node now knows its version, so a function may differ from the model; the inliner would refuse that.
        function.opset_imports.clear()
    if model.functions:
        InlinePass()(model)
    versions = {plain_domain(domain): version for domain, version in model.opset_imports.items()}
    opset = versions.setdefault("", 1)
    notes = []
    if opset > onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        notes.append(f"opset {opset} is newer than the installed onnx knows; read with the operators of {newest}")
    walk = Converter(path, folder, versions)
    graph = walk.graph(model.graph)
    skeleton = Skeleton(
        graph, walk.tensors, {name: walk.types[name] for name in graph.inputs if name in walk.types}, walk.types
    )
    concrete = make_concrete(skeleton)
    producer = f"{model.producer_name or ''} {model.producer_version or ''}".strip()
    return Model(
        path=path,
        sha256=digest,
        opset=opset,
        producer=producer,
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
    )
