"""A model file and its external data on disk: what is read, and what is refused before that."""

from __future__ import annotations

from pathlib import Path

import onnx

from symlint.model.errors import MissingModel, UnreadableModel
from symlint.model.file.stored import StoredFile
from symlint.model.file.wire import Outline, outline

PROTOBUF_LIMIT = 2**31
_LFS = b"version https://git-lfs"
_SIGNATURES = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint is one): export the model to ONNX first"),
    (b"\x80\x02", "a Python pickle (an older PyTorch checkpoint?): export the model to ONNX first"),
    (b"\x80\x03", "a Python pickle: export the model to ONNX first"),
    (b"\x80\x04", "a Python pickle: export the model to ONNX first"),
    (b"\x80\x05", "a Python pickle: export the model to ONNX first"),
    (b"\x1f\x8b", "a gzip file: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: decompress it first"),
    (b"\x89HDF", "an HDF5 file (Keras?): export the model to ONNX first"),
    (b"GGUF", "a GGUF model: symlint reads ONNX"),
    (b"\x7fELF", "an executable"),
)


def model_file(path: Path, name: str) -> StoredFile:
    """A model file as it is now. Raises UnreadableModel, SYM002 for a Git LFS pointer."""
    try:
        if not path.exists():
            raise MissingModel(name)
        if path.is_dir():
            raise MissingModel(name, "is a directory; name a model file in it")
        if not path.is_file():
            raise UnreadableModel(name, "is not a regular file; expected an ONNX file")
        file = StoredFile(path, name)
        if file.size >= PROTOBUF_LIMIT:
            raise UnreadableModel(
                name, f"has {file.size} bytes, protobuf allows 2 GiB; store the weights as external data"
            )
    except OSError as error:
        raise UnreadableModel(name, f"cannot be read: {error.strerror or error}") from error
    if not file.size:
        raise UnreadableModel(name, "is empty; expected an ONNX model")
    if _head(file).startswith(_LFS):
        reason = "is a Git LFS pointer, not the model itself; run `git lfs pull`"
        raise UnreadableModel(name, reason, "SYM002")
    return file


def parse(file: StoredFile) -> tuple[onnx.ModelProto, Outline]:
    """The model in a file, without its large tensors, and where these are.

    Raises UnreadableModel with what the file looks like if it is no model.
    """
    proto = onnx.ModelProto()
    try:
        walked = outline(file)
        proto.ParseFromString(walked.data)
        # Protobuf skips fields that it does not know, so that some other files parse as a model of nothing.
        if proto.HasField("graph") or proto.ir_version:
            return proto, walked
    except UnreadableModel:  # it has changed meanwhile
        raise
    except Exception:  # protobuf's own error is told in symlint's words
        del proto
    found = _looks_like(_head(file))
    raise UnreadableModel(file.name, f"could not be parsed as ONNX: {file.size} bytes of what looks like {found}")


def _head(file: StoredFile) -> bytes:
    return file.read(0, min(512, file.size)).tobytes()


def data_file(folder: Path, location: str, path: str) -> Path:
    """The external data file ``location``, resolved, if it exists inside the model's folder.

    Raises UnreadableModel: SYM001 when it lies outside of ``folder``, SYM003 when it is missing.
    """
    wanted = Path(location)
    outside = f"external data {location!r} lies outside of the model's folder; put the file beside the model"
    if not location or "\0" in location:
        raise UnreadableModel(path, "a tensor is stored in an external file without a usable name; export it again")
    if wanted.is_absolute() or wanted.drive or ".." in wanted.parts or "\\" in location:
        raise UnreadableModel(path, outside)
    root = folder.resolve()
    found = (root / wanted).resolve()
    if root not in found.parents:
        raise UnreadableModel(path, outside)
    if not found.is_file():
        raise UnreadableModel(path, f"external data file {location!r} is missing; put it beside the model", "SYM003")
    return found


def _looks_like(head: bytes) -> str:
    """What the first bytes of a file that is no ONNX model say it is; a phrase for an error message."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model: convert it to ONNX first"
    if head[8:10] == b'{"':
        return "a safetensors file: it holds weights without a network, export the model to ONNX"
    if head[:1] == b"\x08":  # field 1 of ModelProto, ir_version
        return "an ONNX file that ends early or is damaged: fetch it again"
    if head and all(byte >= 32 or byte in (9, 10, 13) for byte in head):
        return "text"
    return "no file type that symlint knows"
