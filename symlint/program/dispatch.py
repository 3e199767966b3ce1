"""Methods that are chosen by the type of a step."""

from __future__ import annotations

from functools import singledispatch, singledispatchmethod, wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    dispatched = singledispatchmethod
else:

    def dispatched(func: Any) -> Any:
        """`functools.singledispatchmethod` as a plain function, whose binding and choice cost next to nothing."""
        dispatcher = singledispatch(func)
        chosen: dict[type, Any] = {}  # for each type that has come by: methods are registered before any is called

        @wraps(func)
        def call(self: Any, step: Any, *rest: Any) -> Any:
            kind = step.__class__
            method = chosen.get(kind)
            if method is None:
                method = chosen[kind] = dispatcher.dispatch(kind)
            return method(self, step, *rest)

        call.register = dispatcher.register
        return call
