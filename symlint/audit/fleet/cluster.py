"""A Dask cluster that is there: its scheduler moves paths and settings, its workers read the models.

Each thread of a worker has a child that audits, so that a model that takes its process down costs no worker. A worker
that is lost loses nothing: the scheduler gives its jobs to others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import local
from typing import Any
from uuid import uuid4

from symlint import __version__
from symlint.audit.engine import Job, unread
from symlint.audit.fleet import record
from symlint.audit.fleet.cache import Cache
from symlint.audit.fleet.fleet import Answer, Told
from symlint.audit.fleet.processes import Worker
from symlint.lint.rule import rules
from symlint.model.errors import UnreadableModel, UsageProblem

_PATIENCE = 10
"""Seconds for which a scheduler may take to answer."""
_here = local()


def done(request: str) -> str:
    """Do a job, as a worker of the cluster; both are records as JSON."""
    asked = json.loads(request)
    if asked["symlint"] != __version__:
        raise UsageProblem(f"a worker has symlint {__version__}, and this is {asked['symlint']}: install the same one")
    folder = asked["cache"]
    children: dict[str, Worker] = vars(_here).setdefault("children", {})
    if folder not in children:
        children[folder] = Worker(Cache.made(Path(folder)) if folder else None)
    report = children[folder].carried_out(record.value(Job, asked["job"]))
    return json.dumps(record.of_report(report))


class Cluster:
    """The client of a scheduler."""

    def __init__(self, address: str, cache: Cache | None) -> None:
        """Raises `UsageProblem` where Dask is not installed, or no scheduler answers."""
        try:
            from distributed import Client
        except ImportError:
            needed = "Dask is not installed, and the extra `dask` brings it: pip install 'symlint[dask]'"
            raise UsageProblem(f"--dask {address}: {needed}") from None
        try:
            self._client: Any = Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise UsageProblem(f"--dask {address}: no scheduler answers: {' '.join(str(error).split())}") from error
        self._folder = str(cache.folder) if cache else ""
        self._futures: list[Any] = []
        self._stopped = False

    def begin(self, jobs: Sequence[Job], answer: Answer, told: Told) -> None:
        """Do jobs; each answer comes with the number of its job, from a thread of the client's."""
        run = uuid4().hex
        for number, job in enumerate(jobs):
            request = {"symlint": __version__, "job": record.plain(job), "cache": self._folder}
            future = self._client.submit(done, json.dumps(request), key=f"symlint-{run}-{number}", pure=False)
            self._futures.append(future)
            future.add_done_callback(partial(self._arrived, number, job, answer))

    def stop(self) -> list[int]:
        """Wait for no job any more; all that are not done."""
        self._stopped = True
        left = [number for number, future in enumerate(self._futures) if not future.done()]
        self._client.cancel([self._futures[number] for number in left])
        return left

    def close(self) -> None:
        """Leave nothing behind on the cluster."""
        self.stop()
        self._client.close()

    def _arrived(self, number: int, job: Job, answer: Answer, future: Any) -> None:
        if self._stopped:
            return
        try:
            error = future.exception()
            if error is None:
                report = record.report(json.loads(future.result()))
                answer(number, replace(report, settings=job.settings))
                return
        except Exception as failure:  # the scheduler has gone, or forgotten it
            error = failure
        if isinstance(error, UsageProblem):
            answer(number, error)
            return
        reason = f"its audit ended on the cluster: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        answer(number, unread(job.path, UnreadableModel(job.path, reason), rules()))
