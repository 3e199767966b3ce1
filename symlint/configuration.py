"""The configuration file: the nearest ``symlint.toml``, or ``pyproject.toml`` with a table ``[tool.symlint]``.

It is looked for in the working directory and above; flags of the command line win over it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from symlint.asked import TARGETS, Mirror
from symlint.asked import surface as parts
from symlint.errors import UsageProblem
from symlint.settings import LEVELS, THRESHOLDS, Settings, suggestion

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MIRROR = ("name", "tensors", "surface", "axes")


def read(start: Path) -> Settings:
    """The settings of the nearest configuration file at or above a folder, or the defaults."""
    for folder in (start.absolute(), *start.absolute().parents):
        for name, table in (("symlint.toml", ()), ("pyproject.toml", ("tool", "symlint"))):
            file = folder / name
            if file.is_file() and (values := _table(file, table)) is not None:
                return _settings(file, values)
    return Settings()


def _table(file: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    try:
        values: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if keys:  # somebody else's pyproject.toml, which other tools will name
            return None
        raise UsageProblem(f"{file}: {error}") from error
    for key in keys:
        values = values.get(key)
        if not isinstance(values, dict):
            return None
    return dict(values)


def _settings(file: Path, values: dict[str, Any]) -> Settings:
    readers: dict[str, Callable[[object], Any]] = {
        "select": _selectors,
        "ignore": _selectors,
        "fail-on": _threshold,
        "levels": _levels,
        "rules": _thresholds,
        "target": _target,
        "largest-input": _size,
        "mirrors": partial(_mirrors, file.parent),
    }
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in readers:
            raise UsageProblem(f"{file}: unknown setting {key!r}{suggestion(key, readers)}")
        try:
            given[key.replace("-", "_")] = readers[key](value)
        except ValueError as error:
            raise UsageProblem(f"{file}: {key}: {error}") from None
    return Settings(**given, origins=dict.fromkeys(given, str(file)))


def _selectors(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of codes or names, not {value!r}")
    return tuple(value)


def _threshold(value: object) -> str:
    if not isinstance(value, str) or value not in THRESHOLDS:
        raise ValueError(f"expected one of {', '.join(THRESHOLDS)}, not {value!r}")
    return value


def _levels(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of rule = level, not {value!r}")
    for level in value.values():
        if level != "off" and level not in LEVELS:
            raise ValueError(f"expected error, warning, note or off, not {level!r}")
    return value


def _thresholds(value: object) -> dict[str, dict[str, float]]:
    if not isinstance(value, dict) or not all(map(_numbers, value.values())):
        raise ValueError(f"expected a table of rules with a table of thresholds each, not {value!r}")
    return value


def _numbers(table: object) -> bool:
    return isinstance(table, dict) and all(type(number) in (int, float) for number in table.values())


def _target(value: object) -> str:
    if not isinstance(value, str) or value not in TARGETS:
        raise ValueError(f"expected one of {', '.join(TARGETS)}, not {value!r}")
    return value


def _size(value: object) -> float:
    if type(value) not in (int, float) or not 0 < float(str(value)) < float("inf"):
        raise ValueError(f"expected a positive number, not {value!r}")
    return float(str(value))


def _mirrors(folder: Path, value: object) -> tuple[Mirror, ...]:
    tables = value if isinstance(value, list) else [value]
    return tuple(_mirror(folder, table) for table in tables)


def _mirror(folder: Path, table: object) -> Mirror:
    if not isinstance(table, dict) or not {"name", "tensors", "surface"} <= table.keys() <= {*_MIRROR}:
        raise ValueError(f"expected tables with name, tensors, surface (and axes), not {table!r}")
    surface = table["surface"]
    if not isinstance(table["name"], str) or not isinstance(surface, str):
        raise ValueError(f"expected a name and a surface in words, not {table!r}")
    tensors, axes = _selectors(table["tensors"]), table.get("axes", [])
    if not isinstance(axes, list) or not all(type(axis) is int for axis in axes):
        raise ValueError(f"expected a list of axes, not {axes!r}")
    if not tensors or len(axes) > len(tensors):
        raise ValueError(f"expected an axis for each of {len(tensors)} tensors at most, not {axes!r}")
    path = str(folder / surface) if parts(surface).word == "file" else surface
    return Mirror(table["name"], tensors, path, tuple(axes))
