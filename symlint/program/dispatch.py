"""Methods that are chosen by the type of a step."""

from __future__ import annotations

from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    dispatched = singledispatchmethod
else:

    class dispatched(singledispatchmethod):  # noqa: N801  (a decorator)
        """`functools.singledispatchmethod` without a new wrapper for every call, which cost more than most of them."""

        def __init__(self, func: Any) -> None:
            super().__init__(func)
            self.chosen: dict[type, Any] = {}
            """What was chosen for each type that has come by: methods are registered before any is called."""

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            chosen, choose = self.chosen, self.dispatcher.dispatch

            def call(step: Any, *rest: Any) -> Any:
                kind = step.__class__
                method = chosen.get(kind)
                if method is None:
                    method = chosen[kind] = choose(kind)
                return method(instance, step, *rest)

            return call
