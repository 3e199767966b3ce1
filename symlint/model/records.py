"""Classes of named fields, made in a quarter of the time.

`dataclasses.dataclass` compiles up to six functions for each class, and a check needs two hundred classes before it has
read its file: a tenth of the time that a small network takes. Here the constructor alone is compiled for each.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError
from functools import cache, partial
from operator import attrgetter
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, eq=True, slots=False):
        """`dataclasses.dataclass`, as far as it is used here."""
        if cls is None:
            return partial(dataclass, frozen=frozen, eq=eq, slots=slots)
        # Without one the standard library looks for the signature, which takes longer than all of this.
        cls.__doc__ = cls.__doc__ or cls.__name__
        made = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots)
        fields = dataclasses.fields(made)
        made.__init__ = _late(made, fields, frozen)
        own = {"__repr__": _shown}
        if frozen:
            own |= {"__setattr__": _refused, "__delattr__": _refused, "__setstate__": _restored}
        if eq:
            own["__eq__"] = _equality(values := attrgetter(*[f.name for f in fields if f.compare] or ["__class__"]))
            own["__hash__"] = (lambda self: hash(values(self))) if frozen else None
        for name in own.keys() - {name for name, value in cls.__dict__.items() if value is not None}:
            setattr(made, name, own[name])
        return made


def _late(cls: type, fields: tuple[dataclasses.Field[Any], ...], frozen: bool) -> Any:
    """A constructor that is compiled at its first call: half of the classes never see one."""
    made = cache(partial(_constructor, cls, fields, frozen))

    def first(self: Any, /, *given: Any, **named: Any) -> None:
        if cls.__init__ is first:  # type: ignore[misc]  # else it was wrapped by now
            cls.__init__ = made()  # type: ignore[misc]
        made()(self, *given, **named)

    return first


def _constructor(cls: type, fields: tuple[dataclasses.Field[Any], ...], frozen: bool) -> Any:
    """What fills in the fields, in their order: by the way around the guard where there is one."""
    known: dict[str, Any] = {"MISSING": MISSING, "put": object.__setattr__}
    given, named, lines = ["self"], ["*"], []
    for f in fields:
        value = f.name
        if f.default is not MISSING:
            known[f"_{f.name}"] = f.default
        elif f.default_factory is not MISSING:
            known[f"_{f.name}"] = f.default_factory
            value = f"_{f.name}() if {f.name} is MISSING else {f.name}" if f.init else f"_{f.name}()"
        if f.init:
            default = f"_{f.name}" if f.default is not MISSING else "MISSING"
            (named if f.kw_only else given).append(f"{f.name}={default}" if f"_{f.name}" in known else f.name)
        elif f.default is not MISSING:
            value = f"_{f.name}"
        elif f.default_factory is MISSING:
            continue
        if frozen and isinstance(place := getattr(cls, f.name, None), MemberDescriptorType):
            known[f"put_{f.name}"] = place.__set__  # half the time of a search by name
            lines.append(f" put_{f.name}(self, {value})")
        else:
            lines.append(f" put(self, {f.name!r}, {value})" if frozen else f" self.{f.name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    head = ", ".join(given + named * (len(named) > 1))
    exec("\n".join([f"def __init__({head}):", *lines, " return"]), known)  # noqa: S102  (of our own names)
    constructor = known["__init__"]
    constructor.__annotations__ = {f.name: f.type for f in fields if f.init}
    constructor.__qualname__ = f"{cls.__qualname__}.__init__"
    return constructor


def _equality(values: attrgetter[Any]) -> Any:
    def equal(self: object, other: object) -> bool:
        return bool(values(self) == values(other)) if other.__class__ is self.__class__ else NotImplemented

    return equal


def _shown(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refused(self: object, name: str, *_: object) -> None:
    raise FrozenInstanceError(f"{type(self).__qualname__}.{name} is frozen")


def _restored(self: object, state: Any) -> None:
    """What was pickled or copied: names in a dictionary, and in places of their own."""
    for part in state if isinstance(state, tuple) else (state,):
        for name, value in (part or {}).items():
            object.__setattr__(self, name, value)
