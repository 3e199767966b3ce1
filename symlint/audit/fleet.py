"""The fleet: jobs go to processes of this machine or to a Dask cluster, reports come back in the order of the models.

Each thread of a worker has a child that audits, so that a model that takes its process down costs no worker. A worker
that is lost loses nothing: the scheduler gives its jobs to others.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryFile
from threading import Lock, Thread, local
from typing import IO, Any, Protocol
from uuid import uuid4

from symlint import __version__
from symlint.audit import record
from symlint.audit.cache import Cache
from symlint.audit.engine import Job, unbegun, unread
from symlint.audit.outcome import Report
from symlint.lint.rule import Rule, rules
from symlint.model.budget import DONE, LOAD, Watch
from symlint.model.errors import UnreadableModel, UsageProblem
from symlint.runtime import child_process

Answer = Callable[[int, Report | Exception], None]
Told = Callable[[str, str, float], None]
"""Gets the path of a model, what is done to it, and how much of all is done."""
_GLANCE = 0.1
"""Seconds between two looks at whether somebody has pressed Ctrl-C."""


class Hands(Protocol):
    """Those who do jobs."""

    def begin(self, jobs: Sequence[Job], answer: Answer, told: Told) -> None:
        """Do jobs; each answer comes with the number of its job, from whichever thread."""

    def stop(self) -> Iterable[int]:
        """End what is at work with what it has found by now; the jobs that are not begun then."""

    def close(self) -> None:
        """Leave nothing behind."""


class Fleet:
    """Has jobs done by others."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    def __call__(self, jobs: Sequence[Job], rules: Sequence[Rule], watch: Watch) -> Iterator[Report]:
        """The report of each job, in their order, each as soon as it and all before it are there."""
        for job in jobs:
            job.settings.chosen(rules)  # what cannot be followed is told before the work
        answers: SimpleQueue[tuple[int, Report | Exception]] = SimpleQueue()
        found: dict[int, Report] = {}
        stopped, given = False, 0
        try:
            self._hands.begin(jobs, lambda number, answer: answers.put((number, answer)), watch.told)
            while given < len(jobs):
                if watch.interrupted and not stopped:
                    stopped = True
                    for number in self._hands.stop():
                        answers.put((number, unbegun(jobs[number].path)))
                try:
                    number, answer = answers.get(timeout=_GLANCE)
                except Empty:
                    continue
                if isinstance(answer, Exception):
                    raise answer
                found[number] = answer
                watch.told(jobs[number].path, DONE, 1.0)
                while given in found:
                    yield found.pop(given)
                    given += 1
        finally:
            self._hands.close()


_KILLED = 9
_DYING = 2.0
"""Seconds for which a child that says nothing more may still be on its way to its exit code."""


class Worker:
    """One child; where it has died, the next job starts another."""

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache
        self._lock = Lock()
        self._errors: IO[bytes] | None = None
        self._child: subprocess.Popen[str] | None = None
        self._stopped = False

    def carried_out(self, job: Job, told: Told | None = None) -> Report:
        """The report of a job. Raises `UsageProblem` where its settings cannot be followed."""
        folder = str(self._cache.folder) if self._cache else ""
        child = self._begin()
        if child is None:
            return unbegun(job.path)
        assert child.stdout
        heard = self._say({"job": record.plain(job), "cache": folder})
        for line in child.stdout if heard else ():
            if not line.endswith("\n"):
                break
            answer = json.loads(line)
            if "report" in answer:
                return replace(record.report(answer["report"]), settings=job.settings)
            if "problem" in answer:
                raise UsageProblem(answer["problem"])
            if told:
                told(job.path, answer["phase"], answer["share"])
        return self._death(job, child)

    def stop(self) -> None:
        """Ask for the report of what is found by now, and begin nothing."""
        with self._lock:
            self._stopped = True
        self._say({"stop": True})

    def kill(self) -> None:
        """End the child."""
        with self._lock:
            self._stopped = True
            if self._child:
                self._child.kill()

    def close(self) -> int:
        """Leave nothing of the child; its exit code."""
        with self._lock:
            child, self._child = self._child, None
        if child is None:
            return 0
        child.kill()
        code = child.wait()
        for stream in (child.stdin, child.stdout, self._errors):
            if stream:
                with suppress(OSError):  # what was to be written has nowhere to go
                    stream.close()
        return code

    def _say(self, request: dict[str, Any]) -> bool:
        """Whether a line could be written."""
        with self._lock:
            child = self._child
            try:
                if child is None or child.stdin is None:
                    return False
                child.stdin.write(json.dumps(request) + "\n")
                child.stdin.flush()
            except OSError:
                return False
            return True

    def _begin(self) -> subprocess.Popen[str] | None:
        debug = logging.getLogger("symlint").isEnabledFor(logging.DEBUG)
        with self._lock:
            if self._stopped:
                return None
            if self._child is None:
                self._errors = None if debug else TemporaryFile()  # noqa: SIM115 - it lives as long as the child
                self._child = subprocess.Popen(
                    child_process.command("symlint.audit.execution", *(["debug"] if debug else [])),
                    env=child_process.environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    text=True,
                    encoding="utf-8",
                    # Ctrl-C at a terminal would reach the children as well, and once more through `stop`.
                    start_new_session=True,
                )
            return self._child

    def _death(self, job: Job, child: subprocess.Popen[str]) -> Report:
        """The report of a job that its process has not outlived."""
        with suppress(subprocess.TimeoutExpired):
            child.wait(_DYING)
        said = self._last_words()
        code = self.close()
        how = f"died of signal {-code}" if code < 0 else f"ended: {said}"
        if code == -_KILLED:
            how = "was killed; has the machine run out of memory?"
        reason = f"the process of its audit {how}"
        return replace(unread(job.path, UnreadableModel(job.path, reason), rules()), settings=job.settings)

    def _last_words(self) -> str:
        if self._errors is None:
            return "see above"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "without a word"


class Processes:
    """Some workers, each with a thread that feeds it."""

    def __init__(self, number: int, cache: Cache | None) -> None:
        self.workers = tuple(Worker(cache) for _ in range(number))
        self._threads: list[Thread] = []
        self._waiting: deque[tuple[int, Job]] = deque()

    def begin(self, jobs: Sequence[Job], answer: Answer, told: Told) -> None:
        """Do jobs; each answer comes with the number of its job, from whichever thread."""
        self._waiting.extend(enumerate(jobs))
        for worker in self.workers[: len(jobs)]:
            self._threads.append(Thread(target=self._feed, args=(worker, answer, told), daemon=True))
            self._threads[-1].start()

    def stop(self) -> list[int]:
        """End what is at work with what it has found by now; the jobs that are not begun then."""
        left = list(self._taken())
        for worker in self.workers:
            worker.stop()
        return left

    def close(self) -> None:
        """Leave nothing behind."""
        list(self._taken())
        for worker in self.workers:
            worker.kill()
        for thread in self._threads:
            thread.join()
        for worker in self.workers:
            worker.close()

    def _taken(self) -> Iterator[int]:
        while job := self._next():
            yield job[0]

    def _next(self) -> tuple[int, Job] | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _feed(self, worker: Worker, answer: Answer, told: Told) -> None:
        while task := self._next():
            number, job = task
            try:
                told(job.path, LOAD, 0.0)
                answer(number, worker.carried_out(job, told))
            except Exception as error:  # told where the answers are read
                answer(number, error)


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
