"""Connected components of an undirected graph."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V", bound=Hashable)


def components(neighbours: Mapping[V, Collection[V]]) -> Iterator[set[V]]:
    """The connected components, by their first vertices; every edge is listed at both of its ends."""
    seen = set[V]()
    for start in neighbours:
        if start in seen:
            continue
        component, waiting = {start}, [start]
        while waiting:
            fresh = [v for v in neighbours[waiting.pop()] if v not in component]
            component.update(fresh)
            waiting += fresh
        seen |= component
        yield component
