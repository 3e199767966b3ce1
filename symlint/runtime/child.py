"""The child in which onnxruntime runs: it loads, runs and times models, one request a line.

A request and its answer are JSON, arrays pass through files of a folder. `symlint.runtime.runner` starts `main` and is
its other end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from symlint.model.graph import Array
from symlint.runtime.runner import Rollout, rolled_out

LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "exact": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
"""How far onnxruntime rewrites a graph before it runs it, and its own words for that."""
CLOCK = time.thread_time if time.get_clock_info("thread_time").resolution <= 1e-6 else time.perf_counter
"""Times a model on one thread, which is the caller's: where it can be told, without what else the machine does."""
MOST = 20
"""How many times as often as was asked for a model is timed at most."""


class _Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sessions: dict[int, Any] = {}
        self.held: dict[int, list[Any]] = {}

    def load(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """A session under a key, with other values for some initializers; the inputs and outputs that it declares."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[request["level"]])
        # Threads that spin while they wait take the processor from whatever else a build machine does.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if request["level"] == "exact":
            # Sums of two products of bytes saturate on processors without an instruction for four, which makes the
            # order of units count: they are replaced.
            options.add_session_config_entry("session.x64quantprecision", "1")
        if request["threads"]:
            options.intra_op_num_threads = options.inter_op_num_threads = request["threads"]
        held = []
        if request["weights"]:
            for name, value in _arrays(self.folder / request["weights"]).items():
                held.append(ort.OrtValue.ortvalue_from_numpy(value))
                options.add_initializer(name, held[-1])
        # Operators that draw random numbers start from here.
        ort.set_seed(request["seed"])
        session = ort.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
        self.sessions[request["key"]], self.held[request["key"]] = session, held
        return {
            "inputs": [[x.name, list(x.shape), x.type] for x in session.get_inputs()],
            "outputs": [[x.name, x.type] for x in session.get_outputs()],
        }

    def drop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Forget a session."""
        self.sessions.pop(request["key"], None)
        self.held.pop(request["key"], None)
        return {}

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of one session, in a file; lists and tables among them are taken apart."""
        session, feeds = self.sessions[request["key"]], _arrays(self.folder / request["feeds"])
        begun = time.perf_counter()
        if request["steps"]:
            loop = Rollout(tuple(map(tuple, request["states"])), request["steps"], shown=request["shown"])
            names = [y.name for y in session.get_outputs()]
            outputs = list(rolled_out(partial(session.run, None), names, feeds, loop))
        else:
            outputs = session.run(None, feeds)
        seconds = time.perf_counter() - begun
        arrays = [y for output in outputs if (y := array_of(output)) is not None]
        named: dict[str, Any] = {f"y{k}": array for k, array in enumerate(arrays)}
        np.savez(self.folder / request["out"], **named)
        return {"seconds": seconds, "count": len(arrays)}

    def time(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds of sessions of one thread, each on its inputs, taken in turns, so often and at least so long."""
        wanted = request["keys"], request["feeds"]
        sessions = [(self.sessions[key], _arrays(self.folder / x)) for key, x in zip(*wanted, strict=True)]
        seconds: list[list[float]] = [[] for _ in sessions]
        for session, feeds in sessions:
            session.run(None, feeds)
        end = time.perf_counter() + request["lasting"]
        for number in range(MOST * request["repeats"]):
            if number >= request["repeats"] and time.perf_counter() >= end:
                break
            for (session, feeds), taken in zip(sessions, seconds, strict=True):
                begun = CLOCK()
                session.run(None, feeds)
                taken.append(CLOCK() - begun)
        return {"seconds": seconds}

    def double(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a file in float64, in another file."""
        from symlint.runtime.double import evaluate

        found = evaluate(Path(request["path"]), _arrays(self.folder / request["feeds"]))
        arrays = [y for output in found if (y := array_of(output)) is not None]
        named: dict[str, Any] = {f"y{k}": array for k, array in enumerate(arrays)}
        np.savez(self.folder / request["out"], **named)
        return {"count": len(arrays)}


def array_of(output: Any) -> Array | None:
    """An output as one array; None where it is absent. Strings get a fixed length.

    The items of a list are stacked, or stand one behind the other where their shapes differ; of a table the values are
    taken, in the order of its keys.
    """
    if output is None:
        return None
    if isinstance(output, dict):
        return np.asarray([output[key] for key in sorted(output)])
    if isinstance(output, list):
        items = [item for item in map(array_of, output) if item is not None]
        if len({item.shape for item in items}) == 1:
            return np.stack(items)
        return np.concatenate([item.reshape(-1) for item in items]) if items else np.zeros(0, np.float32)
    array = np.asarray(output)
    return array.astype(str) if array.dtype == object else array


def _arrays(path: Path) -> dict[str, Array]:
    """Arrays by name; the names, which may be anything, are an array themselves."""
    with np.load(path) as saved:
        return {str(name): saved[f"a{k}"] for k, name in enumerate(saved["names"])}


def main(folder: str) -> None:
    """Answer requests from standard input until it ends."""
    # Whatever a library prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = _Server(Path(folder))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request["do"])(request)
        except Exception as error:
            answer = {"failure": " ".join(str(error).split())[:300] or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
