"""Spare: stored tensors that nothing reads, and those that hold the same numbers as another one.

Only tensors of at least a kilobyte are looked at. Of those of one type and shape a few bytes are read and compared, and
all of them only where these agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from symlint.model.file.stored import Place, same_numbers, sketch, uniform
from symlint.model.file.wire import LARGE
from symlint.model.graph import Model


def unread(model: Model) -> tuple[str, ...]:
    """The stored tensors of some size that no node reads and that are no output, in the order of the file."""
    return tuple(name for name, _ in _large(model) if name in model.unread)


def copies(model: Model) -> Iterator[tuple[str, ...]]:
    """Groups of stored tensors that are read and hold the same numbers, in the order of the file.

    What is one number throughout is left out, since that is an initial state, and so is what is an input or an output
    of a graph. What takes no bytes of its own is no copy. Raises UnreadableModel if the file has changed.
    """
    alike: defaultdict[object, list[tuple[str, Place]]] = defaultdict(list)
    for name, place in _large(model):
        if name not in model.unread and name not in model.bound:
            alike[place.code, model.tensors[name].shape].append((name, place))
    likely: defaultdict[object, list[tuple[str, Place]]] = defaultdict(list)
    for kind, found in alike.items():
        for name, place in found if len(found) > 1 else ():
            likely[kind, sketch(place)].append((name, place))
    for found in likely.values():
        for group in _same(found):
            if len({place for _, place in group}) > 1 and not uniform(group[0][1]):
                yield tuple(name for name, _ in group)


def spare(model: Model) -> bool:
    """Whether a model stores anything for nothing."""
    return bool(unread(model)) or next(copies(model), None) is not None


def size(model: Model, names: Iterable[str]) -> int:
    """The bytes that stored tensors take in their files, together."""
    places = {place for name in names if (place := model.tensors[name].place) is not None}
    return sum(place.length for place in places)


def _large(model: Model) -> Iterator[tuple[str, Place]]:
    for name, tensor in model.tensors.items():
        if tensor.place is not None and tensor.place.length >= LARGE:
            yield name, tensor.place


def _same(found: Iterable[tuple[str, Place]]) -> list[list[tuple[str, Place]]]:
    """Tensors by their numbers."""
    groups: list[list[tuple[str, Place]]] = []
    for each in found:
        group = next((g for g in groups if same_numbers(g[0][1], each[1])), None)
        if group is None:
            groups.append([each])
        else:
            group.append(each)
    return groups
