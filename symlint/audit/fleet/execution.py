"""The execution of one job, wherever that is: from the cache if it is known, else audited, then written down."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace

from symlint.audit.addresses import elsewhere
from symlint.audit.engine import Job, carried_out, unbegun, unread
from symlint.audit.fleet import record
from symlint.audit.fleet.cache import Cache, complete, content
from symlint.audit.outcome import Report
from symlint.lint.rule import Rule
from symlint.model.budget import LOAD, Interrupted, Watch
from symlint.model.errors import UnreadableModel
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
    from symlint.audit.fleet.remote import fetched

    return fetched(job)
