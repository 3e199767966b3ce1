"""Rendering: a template filled in; every text in it is escaped, and steers nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from symlint import __version__
from symlint.cli.report.words import count, printable, ranges, share


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
    pages.filters |= {"count": count, "ranges": ranges, "number": _number}
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
