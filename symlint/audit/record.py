"""Records: reports and settings as JSON and back, by the types of their fields, so that nothing is ever unpickled.

A report that is read is the one that was written: every format prints the same of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache, partial
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from symlint.audit.outcome import Report

_T = TypeVar("_T")
_CLASS = "is"
"""The key under which a record of several possible classes says which one it is."""


def of_report(report: Report) -> dict[str, Any]:
    """A report as a record, less the settings, which whoever asked for it knows. Hashes its file."""
    return {**plain(replace(report, settings=None)), "sha256": report.sha256}


def report(record: Mapping[str, Any]) -> Report:
    """The report of a record. Raises ValueError for what is none."""
    return replace(value(Report, {**record, "hashed": None}), hashed=partial(str, str(record["sha256"])))


def plain(item: Any) -> Any:
    """A value in JSON's types: frozen data as tables, sequences and sets as lists, numpy's numbers as Python's."""
    if isinstance(item, Enum):
        return item.name
    if is_dataclass(item):
        named = {field.name: plain(getattr(item, field.name)) for field in fields(item) if field.name != "hashed"}
        return {_CLASS: type(item).__name__, **named}
    if isinstance(item, PurePath):
        return str(item)
    if hasattr(item, "tolist"):
        return plain(item.tolist())
    if isinstance(item, Mapping):
        return {str(key): plain(each) for key, each in item.items()}
    if isinstance(item, frozenset):
        return sorted(map(plain, item))
    return [plain(each) for each in item] if isinstance(item, (tuple, list)) else item


def value(kind: type[_T], record: Any) -> _T:
    """The value of a type that a record holds. Raises ValueError where it holds none."""
    try:
        return cast("_T", _read(kind, record))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no record of {kind.__name__}: {type(error).__name__}: {error}") from error


def _read(hint: Any, record: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or origin is Literal:
        return record
    if origin in (Union, UnionType):
        return _one_of(inner, record)
    if origin is tuple and inner[1:] != (...,):
        return tuple(_read(each, item) for each, item in zip(inner, record, strict=True))
    if origin in (tuple, frozenset):
        return origin(_read(inner[0], item) for item in record)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _read(inner[1], item) for key, item in record.items()}
    return _of_class(hint, record)


def _one_of(kinds: tuple[Any, ...], record: Any) -> Any:
    if record is None and NoneType in kinds:
        return None
    left = [kind for kind in kinds if kind is not NoneType]
    if len(left) > 1:
        left = [kind for kind in left if kind.__name__ == record[_CLASS]]
    (kind,) = left
    return _read(kind, record)


def _of_class(kind: type, record: Any) -> Any:
    if is_dataclass(kind):
        hints, made = _hints(kind), cast("type", kind)
        return made(**{f.name: _read(hints[f.name], record[f.name]) for f in fields(kind) if f.name != "hashed"})
    if issubclass(kind, Enum):
        return kind[record]
    if issubclass(kind, PurePath):
        return kind(record)
    if issubclass(kind, tuple):  # a NamedTuple
        return kind(*(_read(each, item) for each, item in zip(_hints(kind).values(), record, strict=True)))
    if not isinstance(record, (int, float) if kind is float else kind):
        raise TypeError(f"{record!r} is no {kind.__name__}")
    return record


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)
