"""The options by which `symlint check` is told of many models: processes, a cluster, and a cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from symlint.audit.addresses import elsewhere
from symlint.cli.report.words import printable
from symlint.model.errors import UsageProblem

if TYPE_CHECKING:
    from symlint.audit.engine import Auditor
    from symlint.audit.fleet.cache import Cache

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Means:
    """What the flags say of how jobs are done."""

    jobs: int = 1
    folder: str | None = None
    cached: bool = True
    cluster: str | None = None
    """The address of its scheduler."""

    @property
    def alone(self) -> bool:
        """Whether this process does them, one after another."""
        return self.jobs == 1 and self.cluster is None

    def auditor(self, files: Iterable[str]) -> Auditor | None:
        """Who does the jobs; None for this process alone, without a cache. Raises `UsageProblem`."""
        if self.alone and self.folder is None and not any(map(elsewhere, files)):
            return None
        # Imported here, since most checks are of a few files.
        if self.alone:
            from symlint.audit.fleet.execution import InTurn

            return InTurn(self._cache() if self.folder is not None else None)
        from symlint.audit.fleet.fleet import Fleet

        if self.cluster is not None:
            from symlint.audit.fleet.cluster import Cluster

            return Fleet(Cluster(self.cluster, self._cache()))
        from symlint.audit.fleet.processes import Processes

        return Fleet(Processes(self.jobs, self._cache()))

    def _cache(self) -> Cache | None:
        from symlint.audit.fleet.cache import Cache, default_folder

        if not self.cached:
            return None
        if self.folder is not None:
            return Cache.made(Path(self.folder))
        try:
            return Cache.made(default_folder())
        except UsageProblem as problem:  # nobody has asked for it
            click.echo(f"symlint: without a cache: {printable(str(problem))}", err=True)
            return None


def means_options(command: Command) -> Command:
    """``--jobs``, ``--dask``, ``--cache`` and ``--no-cache``, as one argument `means` of a command."""

    @wraps(command)
    def told(
        *arguments: Any, jobs: int | None, dask: str | None, cache: str | None, no_cache: bool, **others: Any
    ) -> Any:
        if cache is not None and no_cache:
            raise UsageProblem("choose one of --cache and --no-cache")
        if jobs is not None and dask is not None:
            raise UsageProblem("choose one of --jobs and --dask, whose cluster has workers of its own")
        number = 1 if jobs is None else jobs or _cores()
        return command(*arguments, means=Means(number, cache, not no_cache, dask), **others)

    options = (
        click.option("--no-cache", is_flag=True, help="Audit all models anew."),
        click.option(
            "--cache",
            type=click.Path(file_okay=False),
            help="Keep reports in this folder, and audit no model twice.  [default: with --jobs or --dask, "
            "$XDG_CACHE_HOME/symlint or ~/.cache/symlint; else none]",
        ),
        click.option("--dask", metavar="ADDRESS", help="Have the workers of this cluster audit: tcp://HOST:8786."),
        click.option(
            "--jobs",
            type=click.IntRange(0),
            metavar="N",
            help="Audit so many models at once, each in a process of its own; 0 for one per core.  [default: 1]",
        ),
    )
    made: Command = told
    for option in options:
        made = option(made)
    return made


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
