"""Records: dataclasses that are frozen to a type checker, which goes through all of this tree, and cheap at run time.

Of a frozen class `dataclasses` compiles six functions anew in every process, and there are some two hundred; each field
of each instance is set through a function that refuses it to anybody else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, eq: bool = True, **rest: Any) -> Any:
        """`dataclasses.dataclass`; a `frozen` one is compared, hashed and shown as such, but can be changed."""
        if cls is None:
            return lambda given: dataclass(given, frozen=frozen, eq=eq, **rest)
        if not frozen or "order" in rest:
            return dataclasses.dataclass(cls, frozen=frozen, eq=eq, **rest)
        cls.__doc__ = cls.__doc__ or cls.__name__  # else its signature is looked into
        own = set(vars(cls))
        made = dataclasses.dataclass(cls, eq=False, repr=False, **rest)
        for name, method in _methods(dataclasses.fields(made), eq=eq).items():
            if name not in own:
                setattr(made, name, method)
        return made


def _single(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda one: tuple(getattr(one, name) for name in names)


def _methods(fields: tuple[dataclasses.Field[Any], ...], *, eq: bool) -> dict[str, Any]:
    """What a dataclass has besides its constructor."""
    shown = [f.name for f in fields if f.repr]
    compared = [f.name for f in fields if f.compare]
    key: Callable[[Any], tuple[Any, ...]] = attrgetter(*compared) if len(compared) > 1 else _single(compared)

    @recursive_repr("...")
    def text(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def equal(self: Any, other: Any) -> Any:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(key(self))

    return {"__repr__": text, **({"__eq__": equal, "__hash__": hashed} if eq else {})}
