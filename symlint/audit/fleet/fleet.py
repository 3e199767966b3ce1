"""The fleet: jobs go to whoever does them at once, reports come back in the order of the models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol

from symlint.audit.engine import Job, unbegun
from symlint.audit.outcome import Report
from symlint.lint.rule import Rule
from symlint.model.budget import DONE, Watch

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
