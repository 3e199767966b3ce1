"""Pages: self-contained HTML for people, from templates beside this file; plots are inline SVG.

A page asks for nothing outside itself and can be read without its script. What comes from a model is text to it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from symlint import __version__
from symlint.audit.outcome import Report, Run, reparable, safety
from symlint.cli.report import Style
from symlint.cli.report.full import architectural, consequences, node
from symlint.cli.report.words import count, listed, number, printable, ranges, share
from symlint.lint.finding import Finding, Level
from symlint.model.records import dataclass
from symlint.symmetry.spaces import Space


def render(template: str, **values: Any) -> str:
    """The page of a template in the folder beside this file."""
    # Imported here, since only these formats need it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    pages.filters |= {"count": count, "ranges": ranges, "number": _number, "parted": _parted, "spoken": _spoken}
    pages.globals |= {"share": share, "version": __version__}
    return pages.get_template(template).render(values)


def _shown(value: object) -> object:
    """Text from a model without what could steer a reader's eye; None is empty."""
    if value is None:
        return ""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else printable(value)


def _number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _parted(name: str) -> Markup:
    """A name that a narrow page breaks after its separators."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[/._:])(?=[^/._:])", printable(name)))


def _spoken(command: str) -> Markup:
    """A command of which no page breaks an option in two, or parts it from its value."""
    from markupsafe import Markup

    words = re.split(r" (?=-)", command)
    options = (Markup('<span class="whole">{}</span>').format(printable(word)) for word in words[1:])
    return Markup(" ").join([_parted(words[0]), *options])


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


_ROWS = 1000
"""Rows of a map that are shown."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A cell of the map."""

    name: str
    parameters: int
    level: Level | None
    """The highest of the findings that speak of it."""
    target: str
    """The anchor of what is told of it; empty for none."""


@dataclass(frozen=True, slots=True)
class Block:
    """A row of the map."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Of all its layers."""
        return sum(layer.parameters for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Map:
    """What is shown of a network's blocks."""

    rows: tuple[Block, ...]
    narrow: int
    """Blocks that are left out."""

    @property
    def widest(self) -> int:
        """The parameters of the largest block."""
        return max((row.parameters for row in self.rows), default=0) or 1


def drawn(sizes: Sequence[tuple[str, int]], found: Mapping[str, tuple[Level | None, str]]) -> Map:
    """The map of a network, of at most as many rows as a page holds; the arguments are those of `blocks`."""
    every = blocks(sizes, found)
    return Map(tuple(largest(every, _ROWS)), max(len(every) - _ROWS, 0))


def largest(rows: Sequence[Block], count: int) -> list[Block]:
    """So many rows in their order: those of which findings speak first, then those with most parameters."""
    order = sorted(rows, key=lambda row: (all(layer.level is None for layer in row.layers), -row.parameters))
    kept = {row.name for row in order[:count]}
    return [row for row in rows if row.name in kept]


def blocks(sizes: Sequence[tuple[str, int]], found: Mapping[str, tuple[Level | None, str]]) -> list[Block]:
    """The rows of the map.

    Args:
        sizes: layers with their parameters, in order.
        found: layer -> the highest level of its findings, None for none, and the anchor of what is told of it.
    """
    rows: dict[str, list[Layer]] = {}
    for name, parameters in sizes:
        level, target = found.get(name, (None, ""))
        rows.setdefault(block(name), []).append(Layer(name, parameters, level, target))
    return [Block(name, tuple(layers)) for name, layers in rows.items()]


def block(layer: str) -> str:
    """The module that a layer is of: up to the first number, as in ``encoder.layer.0``, else the layer itself.

    >>> block("encoder.layer.0.attention.query"), block("conv1")
    ('encoder.layer.0', 'conv1')
    """
    found = re.match(r"(?:[^./]+[./])*?\d+(?=[./])", layer.lstrip("/"))
    return found[0] if found else layer


_CARDS = 400
"""Findings of a model that are shown, the highest levels first."""
_UNITS, _TENSORS, _FACTS, _SPECTRA = 24, 6, 60, 3
"""Units, tensors, and characters of a fact that are told; spectra that are drawn."""


@dataclass(frozen=True, slots=True)
class _Card:
    """A finding, in the words of the page."""

    id: str
    finding: Finding
    level: str
    node: str
    tolerance: str
    units: str
    strip: Any
    spectra: tuple[tuple[str, Any], ...]
    """Captions and figures."""
    more: int
    """Spectra that are not drawn."""
    saves: str
    tensors: str
    accepted: str
    consequences: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    command: str


def html_report(run: Run, style: Style) -> str:
    """The page."""
    models = [_model(run, k, one) for k, one in enumerate(run.reports)]
    return render(
        "audit.html",
        verdict=run.verdict,
        fail_on=run.fail_on,
        rules=sum(not rule.on_failure for rule in run.rules),
        missing=run.missing,
        models=models,
    )


def _model(run: Run, index: int, one: Report) -> dict[str, Any]:
    free = [finding for finding in one.findings if architectural(finding)]
    order = sorted((f for f in one.findings if not architectural(f)), key=lambda finding: -finding.level)
    cards = [_card(one, finding, f"m{index}f{k}") for k, finding in enumerate(order[:_CARDS])]
    counts = [sum(f.level is level for f in one.findings) for level in (Level.ERROR, Level.WARNING, Level.NOTE)]
    failed = "incomplete" if one.incomplete else "fail" if run.failing(one) else "pass"
    takes = "" if one.takes is None else f"{one.takes:,} ({share(one.takes, one.coverage.total)})"
    return {
        "path": one.path,
        "verdict": failed,
        "counts": counts,
        "total": one.coverage.total,
        "audited": "" if one.incomplete else share(one.coverage.audited, one.coverage.total),
        "takes": takes,
        "incomplete": one.incomplete,
        "skipped": [f"{item.name}: {item.reason}" for item in one.skipped],
        "reasons": [(why, f"{n:,.0f} parameters") for why, n in one.coverage.reasons],
        "map": drawn(one.layers, _levels(cards)),
        "cards": cards,
        "free": listed(f"{n} {name}" for name, n in sorted(Counter(f.name for f in free).items())),
        "left": len(order) - len(cards),
    }


def _levels(cards: Sequence[_Card]) -> dict[str, tuple[Level, str]]:
    """Layer -> its highest level, and where that is told."""
    found: dict[str, tuple[Level, str]] = {}
    for card in cards:
        found.setdefault(card.finding.layer, (card.finding.level, card.id))
    return found


def _card(one: Report, finding: Finding, anchor: str) -> _Card:

    space = one.spaces.get(finding.space or "")
    size = 0 if space is None else space.copies if finding.spectra else space.size * space.copies
    fits = finding.units and size > max(finding.units)
    saved = f"{count(finding.saves, 'parameter')} ({share(finding.saves, one.coverage.total)} of the model)"
    label = f"{len(finding.units)} of {size} units"
    return _Card(
        anchor,
        finding,
        str(finding.level),
        node(finding),
        number(finding.facts["tolerance"]) if isinstance(finding.facts.get("tolerance"), float) else "",
        ranges(finding.units, _UNITS),
        strip(finding.units, size, label) if fits else "",
        tuple(_captioned(finding, space)),
        max(len(finding.spectra) - _SPECTRA, 0),
        saved if finding.saves else "",
        listed(finding.tensors, _TENSORS),
        finding.accepted.reason or finding.accepted.by if finding.accepted else "",
        tuple(consequences(finding)),
        tuple(_facts(finding)),
        _command(one, finding),
    )


def _captioned(finding: Finding, space: Space | None) -> Iterator[tuple[str, Any]]:
    """The spectra of a finding, each with what it shows."""
    for one in finding.spectra[:_SPECTRA]:
        told = f"rank {one.rank} of {one.bound}"
        several = space is not None and space.copies > 1
        caption = f"{one.copy}: {told}" if several else told
        label = f"{one.rank} singular values above a gap, of {one.bound}; noise {number(one.noise)}"
        yield caption, spectrum(one.values, one.noise, label)


def _facts(finding: Finding) -> Iterator[tuple[str, str]]:
    """The numbers that the message rests on, as far as they are short."""
    for name, value in finding.facts.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        text = listed(map(number, items))
        if name not in ("tolerance", "start") and text and len(text) <= _FACTS and not isinstance(value, Mapping):
            yield name.replace("_", " "), text


def _command(one: Report, finding: Finding) -> str:
    """What repairs it."""
    if not finding.fixable:
        return ""
    asked = f" --safety {safety(one)}" if finding in reparable(one) and safety(one) != "exact" else ""
    return f"symlint fix {shlex.quote(one.path)} -o OUT --select {finding.rule}{asked}"
