"""The configuration file: the nearest ``symlint.toml``, or ``pyproject.toml`` with a table ``[tool.symlint]``.

It is looked for beside each model and above, and else in the working directory and above; flags of the command line win
over it.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from symlint.evidence.options import TARGETS, TRANSFORMATIONS, Equivariance, InputRange, Mirror
from symlint.evidence.options import surface as parts
from symlint.lint.settings import COMMAND, LEVELS, THRESHOLDS, Acceptance, Settings
from symlint.model.budget import duration, memory, percent
from symlint.model.errors import UsageProblem, suggestion
from symlint.model.states import STARTS, Declaration

PARTS = ("share", "-model")
"""How the names of thresholds end that are parts of a whole."""
_MIRROR = ("name", "tensors", "surface", "axes")


def read(start: Path) -> Settings:
    """The settings of the nearest configuration file at or above a folder, or the defaults."""
    for folder in (start.absolute(), *start.absolute().parents):
        for name, table in (("symlint.toml", ()), ("pyproject.toml", ("tool", "symlint"))):
            file = folder / name
            if file.is_file() and (values := _table(file, table)) is not None:
                return _settings(file, values)
    return Settings()


class Configurations:
    """The settings of each model of a run: those of the configuration nearest to it, under what the flags say."""

    def __init__(self, file: str | None = None, **flags: Any) -> None:
        """Read the configuration of the run.

        Args:
            file: the configuration of every model, whatever stands beside it.
            flags: fields of `Settings` that win over it; None for what was not given.

        Raises `UsageProblem` for a configuration that cannot be followed.
        """
        self._flags = flags
        self.named = file or ""
        """The configuration that was asked for; empty for the nearest."""
        self._folders: dict[Path, Settings] = {}
        self.run = (read(Path.cwd()) if file is None else _named(Path(file))).override(COMMAND, **flags)
        """The settings where no model is: of the file, or of the working directory."""

    def of(self, path: str) -> Settings:
        """The settings of one model."""
        folder = Path(path).absolute().parent
        if folder not in self._folders:
            near = Settings() if self.named else read(folder)
            self._folders[folder] = near.override(COMMAND, **self._flags) if near.file else self.run
        return self._folders[folder].at(path)


def _named(file: Path) -> Settings:
    keys = ("tool", "symlint") if file.name == "pyproject.toml" else ()
    if not file.is_file():
        raise UsageProblem(f"{file}: no such configuration")
    values = _table(file.absolute(), keys)
    if values is None:
        raise UsageProblem(f"{file} has no table [tool.symlint] that could be read")
    return _settings(file.absolute(), values)


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
        "min-understood": percent,
        "mirrors": partial(_mirrors, file.parent),
        "equivariances": _equivariances,
        "inputs": _inputs,
        "states": _states,
        "find-states": _truth,
        "exclude": _patterns,
        "per-file-ignores": partial(_by_file, _selectors),
        "per-file-levels": partial(_by_file, _levels),
        "accept": partial(_accept, str(file)),
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
    return Settings(**given, origins=dict.fromkeys(given, str(file)), file=str(file))


def _selectors(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of codes or names, not {value!r}")
    return tuple(value)


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"expected a list of patterns of files, not {value!r}")
    return tuple(value)


def _by_file(read: Callable[[object], Any], value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table with patterns of files for keys, not {value!r}")
    return {pattern: read(item) for pattern, item in value.items()}


_ACCEPT = ("fingerprint", "rule", "layer", "reason", "expires")


def _accept(file: str, value: object) -> tuple[Acceptance, ...]:
    tables = value if isinstance(value, list) else [value]
    return tuple(_acceptance(file, table) for table in tables)


def _acceptance(file: str, table: object) -> Acceptance:
    if not isinstance(table, dict) or not table.keys() <= {*_ACCEPT}:
        unknown = [key for key in table if key not in _ACCEPT] if isinstance(table, dict) else []
        more = f"{unknown[0]!r}{suggestion(unknown[0], _ACCEPT)}" if unknown else repr(table)
        raise ValueError(f"expected tables with {', '.join(_ACCEPT)}, not {more}")
    words = {key: item for key, item in table.items() if key != "expires"}
    if not all(isinstance(item, str) and item for item in words.values()):
        raise ValueError(f"expected words in quotes, not {table!r}")
    if ("fingerprint" in words) == ("rule" in words) or ("fingerprint" in words and "layer" in words):
        raise ValueError(f"give either a fingerprint, or a rule and perhaps a layer, not {table!r}")
    if "reason" not in words:
        raise ValueError(f"{words.get('fingerprint') or words['rule']}: give a reason, for whoever reads the report")
    return Acceptance(**words, expires=_day(table.get("expires")), origin=file)


def _day(value: object) -> str:
    """A date of TOML, or one in quotes, as YYYY-MM-DD."""
    if value is None:
        return ""
    try:
        if isinstance(value, str):
            return dt.date.fromisoformat(value).isoformat()
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return value.isoformat()
    except ValueError:
        pass
    raise ValueError(f"expires: expected a day like 2027-06-30, not {value!r}")


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
            if name.endswith(PARTS) and number > 1:
                raise ValueError(f"{selector}.{name}: expected a part from 0 to 1, not {number!r}")
    return value


_STATE = ("input", "output", "start", "is-output")


def _states(value: object) -> tuple[Declaration, ...]:
    tables = value if isinstance(value, list) else [value]
    return tuple(declaration for table in tables for declaration in _state(table))


def _state(table: object) -> Iterator[Declaration]:
    if not isinstance(table, dict) or not {"input", "output"} <= table.keys() <= {*_STATE}:
        raise ValueError(f"expected tables with input and output (and start, is-output), not {table!r}")
    start = table.get("start", "zero")
    if not all(isinstance(table[key], str) and table[key] for key in ("input", "output")) or start not in STARTS:
        raise ValueError(f"expected names in quotes, and a start of {', '.join(STARTS)}, not {table!r}")
    yield Declaration(table["input"], table["output"], start)
    if _truth(table.get("is-output", False)):
        yield Declaration("", table["output"])


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, not {value!r}")
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


_EQUIVARIANCE = ("name", "input", "axis", "output", "action", "tolerance")


def _equivariances(value: object) -> tuple[Equivariance, ...]:
    tables = value if isinstance(value, list) else [value]
    return tuple(map(_equivariance, tables))


def _equivariance(table: object) -> Equivariance:
    if not isinstance(table, dict) or not {"name", "input"} <= table.keys() <= {*_EQUIVARIANCE}:
        raise ValueError(f"expected tables with name, input (and axis, output, action, tolerance), not {table!r}")
    words = {key: table.get(key, "") for key in ("name", "input", "output", "action")}
    if not all(isinstance(word, str) for word in words.values()) or not words["input"]:
        raise ValueError(f"expected names in quotes, not {table!r}")
    known = {"name": TRANSFORMATIONS, "action": ("invariant", "equivariant", "")}
    for key, choices in known.items():
        if words[key] not in choices:
            raise ValueError(f"{key}: expected one of {', '.join(filter(None, choices))}, not {words[key]!r}")
    axis, tolerance = table.get("axis"), table.get("tolerance", 0)
    if axis is not None and (type(axis) is not int or axis < 0):
        raise ValueError(f"axis: expected a number from 0 on, not {axis!r}")
    if type(tolerance) not in (int, float) or not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance: expected a finite number of at least 0, not {tolerance!r}")
    return Equivariance(**words, axis=axis, tolerance=float(tolerance))


def _inputs(value: object) -> tuple[InputRange, ...]:
    tables = value if isinstance(value, list) else [value]
    inputs = tuple(map(_input, tables))
    if twice := _twice([one.name for one in inputs]):
        raise ValueError(f"input {twice!r} is declared twice: once is enough")
    return inputs


def _input(table: object) -> InputRange:
    keys = table.keys() if isinstance(table, dict) else set[str]()
    if not isinstance(table, dict) or not {"name"} < keys <= {"name", "low", "high"}:
        raise ValueError(f"expected tables with name, and low or high or both, not {table!r}")
    ends = [table[key] for key in ("low", "high") if key in table]
    if not isinstance(table["name"], str) or not all(type(end) in (int, float) and abs(end) < inf for end in ends):
        raise ValueError(f"expected a name in quotes and finite numbers, not {table!r}")
    if ends != sorted(ends):
        raise ValueError(f"input {table['name']!r}: low is {ends[0]:g}, above high, which is {ends[1]:g}")
    return InputRange(table["name"], float(table.get("low", -inf)), float(table.get("high", inf)))


def _directions(file: Path) -> str:
    """The path of a file of numpy, which is told by its first bytes."""
    try:
        with file.open("rb") as stream:
            if stream.read(6) == b"\x93NUMPY":
                return str(file)
    except OSError as error:
        raise ValueError(f"surface {file.name}: {error.strerror}: expected at {file}") from None
    raise ValueError(f"surface {file.name} is no array of numpy: write it with numpy.save")
