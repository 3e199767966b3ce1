"""Sources: a model as a caller has it, and the file that the engine reads."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field
from os import PathLike, fspath, path
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from symlint.model.errors import MissingModel
from symlint.model.records import dataclass

Source = str | PathLike[str] | bytes | onnx.ModelProto
"""A path, the bytes of a file, or a parsed model."""


@dataclass(slots=True)
class Stored:
    """The file of a source."""

    path: str
    name: str
    """What reports call it: the path, ``<bytes>`` or ``<ModelProto>``."""
    folder: TemporaryDirectory[str] | None = None
    """Where it lies when it was made for this call."""
    lasting: bool = field(default=False, init=False)

    def outlive(self, owner: object) -> None:
        """Keep the file as long as there is an object that reads from it."""
        if self.folder is not None:
            weakref.finalize(owner, self.folder.cleanup)
            self.lasting = True

    def close(self) -> None:
        """Remove a file that was made for this call, unless something outlives it."""
        if self.folder is not None and not self.lasting:
            self.folder.cleanup()


@contextmanager
def stored(*models: Source) -> Iterator[tuple[Stored, ...]]:
    """The files of some models, while this lasts.

    Raises `MissingModel` for a path at which there is nothing.
    """
    with ExitStack() as stack:
        found = [_stored(model, stack) for model in models]
        yield tuple(found)


def _stored(model: Source, stack: ExitStack) -> Stored:
    if not isinstance(model, (bytes, onnx.ModelProto)):
        name = fspath(model)
        if not path.lexists(name):
            raise MissingModel(name)
        return Stored(name, Path(name).as_posix())
    folder = TemporaryDirectory(prefix="symlint-")
    file = Path(folder.name) / "model.onnx"
    made = Stored(str(file), "<bytes>" if isinstance(model, bytes) else "<ModelProto>", folder)
    stack.callback(made.close)
    if isinstance(model, bytes):
        file.write_bytes(model)
    else:
        _write(model, file)
    return made


def _write(model: onnx.ModelProto, file: Path) -> None:
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

    try:
        file.write_bytes(model.SerializeToString())
    except (EncodeError, ValueError):  # protobuf writes no more than 2 GB
        import onnx_ir as ir

        from symlint.repair.storage import save

        save(ir.serde.deserialize_model(model), file, least=1024)
