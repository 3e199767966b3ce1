"""The parts of attention: heads split off, scores, softmax over the keys, values, heads merged; rotary positions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from symlint.program.lower import Ref, Tracer
from symlint.program.mixing import MixKind
from symlint.program.steps import NONE, SUM, Law


def attend(
    t: Tracer,
    q: Ref,
    k: Ref,
    v: Ref,
    *biases: Ref | None,
    ordered: Sequence[int] = (),
    softcap: float = 0.0,
    sink: Ref | None = None,
    smooth: bool = False,
) -> Ref:
    """``b h s e`` from queries ``b h s d``, keys ``b g t d`` and values ``b g t e``: h = (g r) shares keys by groups.

    ``ordered`` are the axes of the scores ``b h s t`` whose positions decide what is masked. A ``sink`` is one more
    score per head, whose value is zero, and attention that is ``smooth`` has one of zero.
    """
    scores = t.einsum("b (g r) s d, b g t d -> b (g r) s t", q, k)
    scores = t.apply(scores, None, "Tanh") if softcap else scores
    if ordered:
        places = np.indices([n if k in ordered else 1 for k, n in enumerate(scores.shape)]).sum(0)
        masked = t.constant(np.array(np.finfo(np.float32).min))
        scores = t.pointwise(
            Law("sum", (None, Fraction(1), Fraction(1))), t.constant(places), scores, masked, function="Where"
        )
    scores = t.add(scores, *biases)
    if sink is not None:
        scores = t.pointwise(SUM, scores, t.reshape(sink, (sink.shape[0], 1, 1)), function="Sub")
    scores = t.normalise(scores, [-1], function="Softmax" if sink is None and not smooth else "SoftmaxAndOne")
    return t.einsum("b (g r) s t, b g t e -> b (g r) s e", scores, v)


def heads(t: Tracer, x: Ref, count: int) -> Ref:
    """``b h s d`` from ``b s (h d)``; four axes are split already."""
    return x if x.rank == 4 else t.einsum("b s (h d) -> b h s d", x, h=count)


def merge(t: Tracer, x: Ref) -> Ref:
    """``b s (h d)``."""
    return t.einsum("b h s d -> b s (h d)", x)


def cut(t: Tracer, x: Ref, axis: int, sizes: Sequence[int]) -> list[Ref]:
    """Pieces of one axis."""
    ends = np.cumsum([0, *sizes]).tolist()
    return [t.slice(x, axis, a, b) for a, b in pairwise(ends)]


def append(t: Tracer, past: Ref | None, x: Ref, k: int | None, *, shared: bool = False) -> Ref:
    """Keys or values behind those of the past; a buffer of a fixed length, as output `k` may be, pins their places."""
    handed = k is not None and k < len(t.results) and len(t.node.outputs) > k and t.node.outputs[k]
    total = t.results[k] if k is not None and handed else None
    if past is None or past.shape[2] == 0:
        made = x
    elif shared or (total is not None and total[2] == past.shape[2]):
        placed = [t.mix(rows, [0, 1, None, 3], MixKind.CACHE, shape=past.shape) for rows in (x, past)]
        made = t.pointwise(NONE, *placed)
    else:
        made = t.concat([past, x], 2)
    return made


def key_mask(t: Tracer, mask: Ref | None, scores: Sequence[int]) -> tuple[Ref | None, tuple[int, ...]]:
    """A mask as a bias of the scores ``b h s t``, or else the axes along which it depends on positions."""
    if mask is None:
        return None, ()
    if mask.rank == 1 or (mask.rank == 4 and mask.shape[-1] != scores[3]):
        t.unknown([mask], [], "lengths, or a mask of another length than the keys", opaque=False)
        return None, (0, 2, 3)
    wide = {2: (mask.shape[0], 1, 1, mask.shape[-1]), 3: (mask.shape[0], 1, *mask.shape[1:])}
    return t.reshape(t.pointwise(NONE, mask), wide.get(mask.rank, mask.shape)), ()


def rotate(t: Tracer, x: Ref, cos: Ref, sin: Ref, *, interleaved: bool, width: int = 0) -> Ref:
    """Rotary embedding of ``b h s d`` by tables of ``b s p``; d is (2 p), or (p 2) where interleaved."""
    planes = cos.shape[-1]
    width = width or 2 * planes
    head, *tail = cut(t, x, 3, [width, x.shape[3] - width]) if width < x.shape[3] else [x]
    c, s = (t.reshape(r, (*(r.shape[:1] if r.rank == 3 else ()), 1, *r.shape[-2:])) for r in (cos, sin))
    apart = t.reshape(head, (*x.shape[:3], planes, 2) if interleaved else (*x.shape[:3], 2, planes))
    axis = 4 if interleaved else 3
    one, two = (t.reshape(t.slice(apart, axis, k, k + 1), (*x.shape[:3], planes)) for k in (0, 1))
    real = t.pointwise(SUM, t.multiply(one, c), t.multiply(two, s), function="Sub")
    made = (real, t.add(t.multiply(two, c), t.multiply(one, s)))
    thin = (*x.shape[:3], planes, 1) if interleaved else (*x.shape[:3], 1, planes)
    stacked = t.concat([t.reshape(m, thin) for m in made], axis)
    return t.concat([t.reshape(stacked, head.shape), *tail], 3)


def looked_up(t: Tracer, table: Ref, places: Ref | None, batch: int, length: int) -> Ref:
    """Rows of a table of rotations for every position."""
    if table.rank == 3:
        return table
    if places is not None and places.rank == 1:  # where all sequences begin
        batch = 1
    if places is not None:
        t.unknown([places], [], "it is an index", opaque=False)
    return t.mix(table, [None, None, 1], MixKind.LOOKUP, shape=(batch, length, table.shape[1]), steady=True)
