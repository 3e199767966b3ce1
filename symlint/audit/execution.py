"""The execution of jobs, in this process or in a child: from the cache if known, else audited, then written down.

Its requests come from a thread, so that it ends when nobody is left who would read the answers, and stops the job at
work when it is told to. `symlint.audit.fleet` starts `main` and is its other end.

Models elsewhere, listed and fetched through fsspec: object stores, hubs, archives, whatever it knows.

A model is fetched whole, with its external data and what is read beside it, into a folder that is thrown away after
its audit. Only files of the model's own folder are asked for.
"""

from __future__ import annotations

import _thread
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TextIO

import onnx

from symlint.audit import record
from symlint.audit.cache import Cache, complete, content
from symlint.audit.engine import Job, carried_out, unbegun, unread
from symlint.audit.outcome import Report, elsewhere
from symlint.lint.rule import Rule, rules
from symlint.model import states
from symlint.model.budget import LOAD, Interrupted, Watch
from symlint.model.errors import MissingModel, UnreadableModel, UsageProblem, raised
from symlint.model.guard import model_file, parse
from symlint.model.records import dataclass


@dataclass(frozen=True, slots=True)
class InTurn:
    """Does jobs one after another, in this process."""

    cache: Cache | None

    def __call__(self, jobs: Sequence[Job], rules: Sequence[Rule], watch: Watch) -> Iterator[Report]:
        """The report of each job, in their order."""
        for job in jobs:
            yield executed(job, rules, watch, self.cache)


def executed(job: Job, rules: Sequence[Rule], watch: Watch, cache: Cache | None) -> Report:
    """The report of one job, with a hash that is known.

    What is found in the cache and what is found by auditing are the same: both have been written and read.
    """
    if watch.interrupted:
        return unbegun(job.path)
    with ExitStack() as stack:
        try:
            with watch.interruptible():
                watch.told(job.path, LOAD, 0.0)
                here = stack.enter_context(_here(job))
                chosen = job.settings.chosen(rules)
                asked = content(here, chosen) if cache else None
                known = cache.found(asked, here) if cache and asked else None
        except Interrupted:
            return unbegun(job.path)
        except UnreadableModel as problem:
            return replace(unread(job.path, problem, rules), settings=job.settings)
        if known is not None:
            return replace(known, settings=job.settings)
        report = record.report(record.of_report(carried_out(here, rules, watch)))
        if cache and asked and complete(report, chosen) and asked.lasting and not watch.interrupted:
            cache.keep(asked, here, report)
    return replace(report, settings=job.settings)


def _here(job: Job) -> AbstractContextManager[Job]:
    """A job with its model on this machine."""
    if not elsewhere(job.path) or os.path.lexists(job.path):
        return nullcontext(job)
    # Imported here: it asks for what is not installed with symlint itself.
    return fetched(job)


_PAUSE = 0.3
"""Seconds between two words on what is at work."""
_log = logging.getLogger(__name__)


class _Answers:
    """Lines to the other end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = 0.0

    def phase(self, path: str, phase: str, share: float) -> None:
        """What a `Watch` tells, less the path, which the other end knows."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + _PAUSE
            self.give({"phase": phase, "share": share})

    def give(self, answer: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(answer) + "\n")
        self._stream.flush()


def main(debug: str = "") -> None:
    """Do jobs from standard input until it ends."""
    # Whatever a library prints must not mix with the answers.
    answers = _Answers(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    logging.basicConfig(level=logging.DEBUG if debug else logging.CRITICAL)
    # As in the command itself: a run makes millions of small objects that live to its end.
    gc.set_threshold(10_000_000, 10, 10)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    with Watch(answers.phase) as watch:
        Thread(target=_listen, args=(requests, watch), daemon=True).start()
        while True:
            answers.give(_answer(requests.get(), watch))


def _listen(requests: SimpleQueue[dict[str, Any]], watch: Watch) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "stop" not in request:
            requests.put(request)
        elif not watch.interrupted:
            _thread.interrupt_main()
    os._exit(0)


def _answer(request: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    try:
        job = record.value(Job, request["job"])
        cache = Cache(Path(request["cache"])) if request["cache"] else None
        report = executed(job, rules(), watch, cache)
    except UsageProblem as problem:
        return {"problem": str(problem)}
    except Exception as error:
        _log.debug("%s: internal error", request["job"]["path"], exc_info=True)
        path = request["job"]["path"]
        reason = f"internal error, please report it: {raised(error)}"
        report = unread(path, UnreadableModel(path, reason), rules())
    return {"report": record.of_report(report)}


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
