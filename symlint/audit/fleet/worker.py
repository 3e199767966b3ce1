"""The child in which jobs are done: one request a line, and a line for each answer, both JSON.

Its requests come from a thread, so that it ends when nobody is left who would read the answers, and stops the job at
work when it is told to. `symlint.audit.fleet.processes` starts `main` and is its other end.
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
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TextIO

from symlint.audit.engine import Job, unread
from symlint.audit.fleet import record
from symlint.audit.fleet.cache import Cache
from symlint.audit.fleet.execution import executed
from symlint.lint.rule import rules
from symlint.model.budget import Watch
from symlint.model.errors import UnreadableModel, UsageProblem, raised

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
