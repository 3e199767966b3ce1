"""Models elsewhere, listed and fetched through fsspec: object stores, hubs, archives, whatever it knows.

A model is fetched whole, with its external data and what is read beside it, into a folder that is thrown away after
its audit. Only files of the model's own folder are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from symlint.audit.engine import Job
from symlint.model import states
from symlint.model.errors import MissingModel, UnreadableModel, UsageProblem
from symlint.model.guard import model_file, parse


def models(address: str) -> list[str]:
    """The addresses of the models at an address: itself, or every ``*.onnx`` below it outside hidden folders.

    Raises `UsageProblem` where what reaches them is not installed.
    """
    try:
        system, root = _opened(address)
        if not system.isdir(root):
            return [address] if system.exists(root) else []
        found = sorted(str(name) for name in system.find(root))
    except UsageProblem:
        raise
    except Exception:  # told of the model, when it is to be read
        return [address]
    chain = address.partition("::")[1:]
    return ["".join((system.unstrip_protocol(name), *chain)) for name in found if _model(name, root)]


def _model(name: str, root: str) -> bool:
    parts = PurePosixPath(name.removeprefix(root)).parts
    return name.lower().endswith(".onnx") and not any(part.startswith(".") for part in parts)


@contextmanager
def fetched(job: Job) -> Iterator[Job]:
    """A job with the model here, while this lasts. Raises UnreadableModel where it cannot be fetched."""
    with TemporaryDirectory(prefix="symlint-") as folder:
        try:
            system, root = _opened(job.path)
            place = Path(folder, PurePosixPath(root).name or "model.onnx")
            system.get_file(root, str(place))
            for name in sorted(_beside(place, job.path)):
                _get(system, PurePosixPath(root).parent / name, place.parent / name)
        except (UnreadableModel, UsageProblem):
            raise
        except FileNotFoundError:
            raise MissingModel(job.path, "no such file") from None
        except Exception as error:  # each store has errors of its own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise UnreadableModel(job.path, f"cannot be fetched: {reason}") from error
        yield replace(job, file=str(place))


def _get(system: Any, source: PurePosixPath, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(str(source), str(target))
    except FileNotFoundError:  # whoever needs it says so
        target.unlink(missing_ok=True)


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    protocol = address.partition("://")[0]
    try:
        import fsspec
    except ImportError:
        raise _missing(address, "fsspec") from None
    try:
        system, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error  # fsspec's own has no name
        raise _missing(address, str(cause.name or protocol)) from None
    except ValueError as error:
        raise UsageProblem(f"{address}: {error}") from error
    return system, str(root)


def _missing(address: str, module: str) -> UsageProblem:
    return UsageProblem(
        f"{address}: {module} is not installed, and the extra `remote` brings it: pip install 'symlint[remote]'"
    )


def _beside(place: Path, name: str) -> set[str]:
    """The files that are read with a model, less those that are refused anyway, outside of its folder."""
    names = {states.SIDECAR}
    for tensor in _tensors(parse(model_file(place, name))[0]):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            names |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    return {name for name in names if _inside(name)}


def _inside(location: str) -> bool:
    path = PurePosixPath(location)
    odd = any(mark in location for mark in "\\:\0")
    return bool(path.parts) and not (odd or path.is_absolute() or ".." in path.parts)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All stored tensors of a message."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        yield from getattr(part, "initializer", ())
        for attribute in (attribute for node in part.node for attribute in node.attribute):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            waiting += [attribute.g] if attribute.HasField("g") else []
            waiting += attribute.graphs
