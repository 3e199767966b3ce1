"""The rows of a profile, which every format shows: one per space and file, in the order of the program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from symlint.cli.report.data import comma_separated, dump, shares
from symlint.cli.report.words import cell, printable
from symlint.comparison.trajectory import Measures, Portrait, Trajectory
from symlint.evidence.ranks import few

COLUMNS = (
    *("model", "layer", "op", "role", "units", "live", "constant", "distinct", "effective_width", "rank"),
    *("stable_rank", "effective_rank", "noise", "written_norm", "read_norm", "least_share", "most_share"),
    *("parameters", "saves", "ranks", "space", "series"),
)
_DIGITS = 5
"""Significant ones: rounding in another gauge shows in those after them."""


def records(found: Trajectory) -> Iterator[dict[str, Any]]:
    """The rows, each with all columns; None where a number means nothing there or cannot be told."""
    for portrait in found.portraits:
        for one, series in zip(portrait.spaces, portrait.series, strict=True):
            yield dict(zip(COLUMNS, (portrait.path, *_values(one), one.state.id, series), strict=True))


def _values(one: Measures) -> Iterator[object]:
    state, spectrum = one.state, one.spectrum
    yield from (state.name, one.op, one.role, state.units, state.live, one.constant, one.distinct)
    yield from (_short(state.width), one.rank)
    yield from (_short(x) for x in ((spectrum.stable, spectrum.effective, spectrum.noise) if spectrum else (None,) * 3))
    yield from (_short(x) for x in (one.norms.written, one.norms.read, one.least, one.most))
    yield from (one.parameters, one.saves, list(one.ranks))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def points(one: Measures) -> tuple[float, ...]:
    """The singular values of a space relative to the largest, as many as can be seen."""
    return few(one.spectrum.values) if one.spectrum else ()


def as_csv(found: Trajectory) -> str:
    """One line per row under the names of the columns; the ranks of copies with blanks between them."""
    return comma_separated(COLUMNS, (map(_written, record.values()) for record in records(found)))


def _written(value: object) -> object:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return cell(printable(value)) if isinstance(value, str) else "" if value is None else value


def as_json(found: Trajectory) -> str:
    """One document: per file the rows, with the singular values of each space."""
    rows = list(records(found))
    models, start = [], 0
    for portrait in found.portraits:
        mine = rows[start : start + len(portrait.spaces)]
        start += len(mine)
        spaces = [
            {**{k: v for k, v in row.items() if k != "model"}, "spectrum": points(one)}
            for row, one in zip(mine, portrait.spaces, strict=True)
        ]
        models.append({**_model(portrait), "spaces": spaces})
    return dump({"schema_version": "1", "models": models})


def _model(portrait: Portrait) -> dict[str, Any]:
    report = portrait.report
    return {"path": report.path, "sha256": report.sha256, "coverage": shares(report.coverage)}
