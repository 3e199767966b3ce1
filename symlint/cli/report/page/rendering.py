"""Rendering: a template filled in; every text in it is escaped, and steers nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symlint import __version__
from symlint.cli.report.words import count, printable, ranges, share

if TYPE_CHECKING:
    from markupsafe import Markup


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
