"""Figures: small plots as inline SVG, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from markupsafe import Markup, escape

_BINS = 240
"""Places of a strip; of a wider space several units share one."""
WIDE, HIGH = 180, 44
_LEAST = 1e-8
"""Singular values below this, relative to the largest, are drawn at the bottom."""


def _figure(width: int, height: int, label: str, body: str) -> Markup:
    head = f'<svg class="plot" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return Markup(f'{head} aria-label="{escape(label)}">{body}</svg>')  # noqa: S704 - numbers, and one escaped label


def strip(units: Sequence[int], size: int, label: str) -> Markup:
    """The units of a space in a row, with those of a finding marked."""
    bins = min(size, _BINS)
    marked = sorted({unit * bins // size for unit in units if unit < size})
    runs = (list(group) for _, group in groupby(enumerate(marked), lambda pair: pair[1] - pair[0]))
    width = _BINS / bins
    marks = "".join(f"M{run[0][1] * width:g} 0h{len(run) * width:g}v12h-{len(run) * width:g}z" for run in runs)
    return _figure(
        _BINS, 12, label, f'<rect class="all" width="{_BINS}" height="12"/><path class="marked" d="{marks}"/>'
    )


def spectrum(values: Sequence[float], noise: float, label: str) -> Markup:
    """Singular values relative to the largest, on a logarithmic scale, and the floor of rounding."""
    if not values:
        return Markup("")
    floor = f'<path class="floor" d="M0 {_y(noise):.1f}H{WIDE}"/>'
    steps = max(len(values) - 1, 1)
    line = "L".join(f"{WIDE * k / steps:.1f} {_y(value):.1f}" for k, value in enumerate(values))
    return _figure(WIDE, HIGH, label, f'{floor}<path class="line" d="M{line}"/>')


def _y(value: float) -> float:
    return HIGH * math.log10(max(value, _LEAST)) / math.log10(_LEAST) * 0.94 + 0.03 * HIGH


def course(lines: Sequence[tuple[str, Sequence[float | None]]], most: float, label: str) -> Markup:
    """Numbers from file to file, each line in a class of its own, between nothing and the most that they could be."""
    body = "".join(f'<path class="line {name}" d="{_path(values, most)}"/>' for name, values in lines)
    return _figure(WIDE, HIGH, label, f'<path class="floor" d="M0 {0.03 * HIGH:.1f}H{WIDE}"/>{body}')


def _path(values: Sequence[float | None], most: float) -> str:
    """A line, interrupted where a number is missing."""
    steps, drawn = max(len(values) - 1, 1), False

    def places() -> Iterator[str]:
        nonlocal drawn
        for k, value in enumerate(values):
            if value is not None:
                y = HIGH * (0.97 - 0.94 * min(value / max(most, 1e-12), 1))
                yield f"{'L' if drawn else 'M'}{WIDE * k / steps:.1f} {y:.1f}"
            drawn = value is not None

    return "".join(places())
