"""Lowering: an operator rule describes its operator to a `Tracer`, which writes the steps of the program."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.program.mixing import MixKind
from symlint.program.notation import regroup
from symlint.program.recorder import Recorder, Ref, Unsupported
from symlint.program.steps import Slice, Spec

__all__ = ["Ref", "Tracer", "Unsupported"]


RUNS = 64
"""Runs of neighbours into which a lookup in several dimensions is cut."""
UNITS = 4096
"""Indices of a choice among units that is followed."""


class Tracer(Recorder):
    """A recorder that also knows the operators which only rearrange."""

    def slice(self, x: Ref, axis: int, start: int, stop: int, step: int = 1) -> Ref:
        """Indices from `start` to `stop` of one axis; a step regroups the axis first."""
        size = x.shape[axis]
        if step == 1:
            if start == 0 and stop == size:
                return x
            if not 0 <= start < stop <= size:
                raise Unsupported(f"the indices from {start} to {stop} of an axis of {size} are none", opaque=False)
            shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
            out = self._new(shape)
            self.steps.append(Slice(out, x.name, axis, start, stop, self.node))
            return Ref(out, shape)
        if step < 1 or size % step or start >= step or stop <= size - step:
            return self.mix(x, [None if k == axis else k for k in range(x.rank)], MixKind.STRIDED)
        rows = self.reshape(x, (*x.shape[:axis], size // step, step, *x.shape[axis + 1 :]))
        picked = self.slice(rows, axis + 1, start, start + 1)
        return self.reshape(picked, (*x.shape[:axis], size // step, *x.shape[axis + 1 :]))

    def take(self, x: Ref, axis: int, indices: Array) -> Ref:
        """Fixed indices of one axis: runs of neighbours become slices; the shape of `indices` replaces the axis."""
        if not indices.size:
            raise Unsupported("it takes nothing", opaque=False)
        flat = [int(i) % x.shape[axis] for i in indices.reshape(-1)]
        runs: list[tuple[int, int]] = []
        for i in flat:
            if runs and runs[-1][1] == i:
                runs[-1] = (runs[-1][0], i + 1)
            else:
                runs.append((i, i + 1))
        few = len(runs) <= RUNS
        if len(runs) > 1 and (indices.ndim == 1 or not few):
            keep = [None if k == axis else k for k in range(x.rank)]
            shape = (*x.shape[:axis], len(flat), *x.shape[axis + 1 :])
            chosen = (axis, tuple(flat)) if len(flat) <= UNITS and indices.ndim == 1 else None
            picked = self.mix(x, keep, MixKind.FIXED_LOOKUP, shape=shape, steady=True, chosen=chosen)
        else:
            picked = self.concat([self.slice(x, axis, a, b) for a, b in runs], axis)
        return self.reshape(picked, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def transpose(self, x: Ref, order: Sequence[int]) -> Ref:
        """The axes of `x` in another order."""
        if list(order) == list(range(x.rank)):
            return x
        if sorted(order) != list(range(x.rank)):
            raise Unsupported(f"{list(order)[:32]} is no order of {x.rank} axes")
        labels: Spec = tuple((f"t{k}",) if size > 1 else () for k, size in enumerate(x.shape))
        sizes = {f"t{k}": size for k, size in enumerate(x.shape)}
        return self.contract([x], [labels], tuple(labels[k] for k in order), sizes)

    def reshape(self, x: Ref, shape: Sequence[int]) -> Ref:
        """The elements of `x` in row-major order under another shape."""
        if tuple(shape) == x.shape:
            return x
        if prod(x.shape) != prod(shape):
            raise Unsupported(f"cannot reshape {list(x.shape)} to {list(shape)}")
        found = regroup(x.shape, tuple(shape))
        if found is None:
            return self._reshape_in_part(x, tuple(shape))
        before, after, sizes = found
        return self.contract([x], [before], after, sizes)

    def _reshape_in_part(self, x: Ref, shape: Shape) -> Ref:
        """Axes whose groups have no common refinement lose their units, the others keep them."""
        keep: list[int | None] = []
        i = 0
        left = right = 1
        start = 0
        for size in shape:
            right *= size
            keep.append(None)
            while left < right and i < x.rank:
                left, i = left * x.shape[i], i + 1
            if left == right:
                if i - start == 1 and x.shape[start] == size:
                    keep[-1] = start
                start = i
        return self.mix(x, keep, MixKind.RESHAPE, shape=shape)

    def expand(self, x: Ref, shape: Sequence[int]) -> Ref:
        """`x` repeated along new axes and along axes of size 1."""
        full = np.broadcast_shapes(x.shape, tuple(shape))
        if full == x.shape:
            return x
        new = len(full) - x.rank
        spec: Spec = tuple((f"e{new + k}",) if size > 1 else () for k, size in enumerate(x.shape))
        made: Spec = tuple((f"e{k}",) if size > 1 else () for k, size in enumerate(full))
        return self.contract([x], [spec], made, {f"e{k}": size for k, size in enumerate(full)})
