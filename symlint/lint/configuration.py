"""The configuration file: the nearest ``symlint.toml``, or ``pyproject.toml`` with a table ``[tool.symlint]``.

It is looked for in the working directory and above; flags of the command line win over it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from symlint.errors import UsageProblem, suggestion
from symlint.evidence.options import TARGETS, Mirror
from symlint.evidence.options import surface as parts
from symlint.lint.settings import LEVELS, THRESHOLDS, Settings
from symlint.model.amounts import duration, memory

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
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
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
        "max-memory": memory,
        "time-budget": duration,
        "mirrors": partial(_mirrors, file.parent),
    }
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key == "tool" and file.name == "symlint.toml":
            raise UsageProblem(f"{file}: in symlint.toml the keys stand at the top, without [tool.symlint]")
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
        if not isinstance(level, str) or level not in (*LEVELS, "off"):
            raise ValueError(f"expected error, warning, note or off, not {level!r}")
    return value


def _thresholds(value: object) -> dict[str, dict[str, float]]:
    if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
        raise ValueError(f"expected a table of rules with a table of thresholds each, not {value!r}")
    for selector, table in value.items():
        for name, number in table.items():
            if type(number) not in (int, float) or not 0 <= number < float("inf"):
                raise ValueError(f"{selector}.{name}: expected a finite number of at least 0, not {number!r}")
    return value


def _target(value: object) -> str:
    if not isinstance(value, str) or value not in (*TARGETS, ""):
        raise ValueError(f"expected one of {', '.join(TARGETS)}, or nothing, not {value!r}")
    return value


def _size(value: object) -> float:
    if type(value) not in (int, float) or not 0 < float(str(value)) < float("inf"):
        raise ValueError(f"expected a positive number, not {value!r}")
    return float(str(value))


def _mirrors(folder: Path, value: object) -> tuple[Mirror, ...]:
    tables = value if isinstance(value, list) else [value]
    mirrors = tuple(_mirror(folder, table) for table in tables)
    if twice := _twice([mirror.name for mirror in mirrors]):
        raise ValueError(f"two mirrors are called {twice!r}: give each a name of its own")
    return mirrors


def _twice(words: Sequence[str]) -> str:
    """The first word that repeats an earlier one."""
    return next((word for k, word in enumerate(words) if word in words[:k]), "")


def _mirror(folder: Path, table: object) -> Mirror:
    if not isinstance(table, dict) or not {"name", "tensors", "surface"} <= table.keys() <= {*_MIRROR}:
        raise ValueError(f"expected tables with name, tensors, surface (and axes), not {table!r}")
    surface = table["surface"]
    if not isinstance(table["name"], str) or not isinstance(surface, str):
        raise ValueError(f"expected a name and a surface in words, not {table!r}")
    tensors, axes = _selectors(table["tensors"]), table.get("axes", [])
    if not isinstance(axes, list) or not all(type(axis) is int for axis in axes):
        raise ValueError(f"expected a list of axes, not {axes!r}")
    mine = f"mirror {table['name']!r}"
    if not tensors:
        raise ValueError(f"{mine}: tensors is empty: name every weight that the reflection moves")
    if twice := _twice(tensors):
        raise ValueError(f"{mine}: tensors names {twice!r} twice: once is enough")
    if axes and len(axes) != len(tensors):
        counts = f"axes has {len(axes)} entries, tensors has {len(tensors)}"
        raise ValueError(f"{mine}: {counts}: give one for each, or no axes")
    try:
        path = _directions(folder / surface) if parts(surface).word == "file" else surface
    except ValueError as error:
        raise ValueError(f"{mine}: {error}") from None
    return Mirror(table["name"], tensors, path, tuple(axes))


def _directions(file: Path) -> str:
    """The path of a file of numpy, which is told by its first bytes."""
    try:
        with file.open("rb") as stream:
            if stream.read(6) == b"\x93NUMPY":
                return str(file)
    except OSError as error:
        raise ValueError(f"surface {file.name}: {error.strerror}: expected at {file}") from None
    raise ValueError(f"surface {file.name} is no array of numpy: write it with numpy.save")
