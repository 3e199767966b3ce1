"""Methods that are chosen by the type of a step."""

from __future__ import annotations

from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    dispatched = singledispatchmethod
else:

    class dispatched(singledispatchmethod):  # noqa: N801  (a decorator)
        """`functools.singledispatchmethod` without a new wrapper for every call, which cost more than most of them."""

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            choose = self.dispatcher.dispatch
            return lambda step, *rest: choose(step.__class__)(instance, step, *rest)
