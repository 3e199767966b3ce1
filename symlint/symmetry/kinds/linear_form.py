"""Linear forms: tensors that are linear in one source along some axes, written out position by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Array
from symlint.program.steps import Concat, Einsum

Cells = NDArray[Any]
"""For every position: (position in the source, factors) -> sign."""


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor that is linear in the source along some of its axes."""

    axes: tuple[int, ...]
    cells: Cells


def _cell(cells: Cells, k: tuple[int, ...]) -> Iterator[tuple[Any, int]]:
    terms: dict[Any, int] = cells.item(*k)
    yield from terms.items()


def each(cells: Cells, act: Callable[[int], int]) -> Cells:
    """Another sign for every term."""
    made = np.empty(cells.shape, object)
    for k in np.ndindex(cells.shape):
        made[k] = {source: act(sign) for source, sign in _cell(cells, k)}
    return made


def summed(a: Cells, b: Cells, sign: int) -> Cells:
    """Terms added up, the second with a sign."""
    made = np.empty(a.shape, object)
    for k in np.ndindex(a.shape):
        whole = dict(a[k])
        for source, size in _cell(b, k):
            whole[source] = whole.get(source, 0) + sign * size
        made[k] = {source: size for source, size in whole.items() if size}
    return made


def times(cells: Cells, factors: Array) -> Cells:
    """Every term with one more factor, by position."""
    made = np.empty(cells.shape, object)
    spread = np.broadcast_to(factors, cells.shape)
    for k in np.ndindex(cells.shape):
        made[k] = {(j, (*key, spread[k])): sign for (j, key), sign in _cell(cells, k)}
    return made


def regrouped(step: Einsum, form: Form) -> Form | None:
    """A rearrangement that keeps what comes from the source in order and apart from the rest."""
    (spec,) = step.specs
    mine = [label for a in form.axes for label in spec[a]]
    order = [label for axis in step.result for label in axis if label in mine]
    axes = tuple(a for a, axis in enumerate(step.result) if set(axis) & set(mine))
    if order != mine or any(set(step.result[a]) - set(mine) for a in axes):
        return None
    held = {label for axis in spec for label in axis}
    if held != {label for axis in step.result for label in axis}:
        return None
    shape = [int(np.prod([step.sizes[label] for label in step.result[a]])) for a in axes]
    return Form(axes, form.cells.reshape(shape)) if int(np.prod(shape)) == form.cells.size else None


def joined(step: Concat, forms: Sequence[Form]) -> Form | None:
    """Forms put behind each other, along one of their axes or a new one."""
    if len({f.axes for f in forms}) > 1:
        return None
    axes = forms[0].axes
    if step.axis in axes:
        return Form(axes, np.concatenate([f.cells for f in forms], axis=axes.index(step.axis)))
    place = sum(a < step.axis for a in axes)
    return Form(tuple(sorted((*axes, step.axis))), np.stack([f.cells for f in forms], axis=place))
