"""Reports as JSON Lines, each written as soon as it and all before it are there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from symlint.model.errors import UsageProblem

if TYPE_CHECKING:
    from symlint.audit.outcome import Report

FORM = "jsonl"


@contextmanager
def lines(files: Sequence[Path], *, stdout: bool) -> Iterator[Callable[[Report], None] | None]:
    """Takes reports in their order and writes a line for each; None where there is nothing to write to.

    Args:
        files: to write.
        stdout: whether to print them as well.

    Raises `UsageProblem` for a file that cannot be written.
    """
    if not files and not stdout:
        yield None
        return
    from symlint.audit.acceptance import accepting
    from symlint.cli.report.formats.jsonl import line
    from symlint.lint.rule import rules

    accepts = accepting((), rules(), dt.date.today().isoformat())
    with ExitStack() as stack:
        try:
            # By lines, so that whoever follows a file sees whole ones.
            opened = [stack.enter_context(file.open("w", encoding="utf-8", buffering=1)) for file in files]
        except OSError as error:
            raise _unwritten(error.filename, error) from error

        def write(report: Report) -> None:
            text = line(accepts(report))
            for file in opened:
                try:
                    file.write(text)
                except OSError as error:
                    raise _unwritten(file.name, error) from error
            if stdout:
                click.echo(text, nl=False)

        yield write


def _unwritten(file: str, error: OSError) -> UsageProblem:
    return UsageProblem(f"{file}: cannot write the {FORM} report: {error.strerror}")
