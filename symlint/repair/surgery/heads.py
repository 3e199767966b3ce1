"""Operators that are told numbers of heads and groups, or that keep several things in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from symlint.model.operators import resize
from symlint.repair.surgery.narrowing import Immovable, Kept, Uneven
from symlint.repair.surgery.site import Site

PACKED = (
    *("MatMulNBitsMlp", "MatMulNBitsQkv", "MatMulBnb4", "MatMulFpQ4", "QMoE", "MoE", "GatherBlockQuantized"),
    *("QAttention", "PackedAttention", "PackedMultiHeadAttention", "DecoderMaskedMultiHeadAttention"),
    *("SparseAttention", "PagedAttention", "MRotaryEmbedding", "LongformerAttention"),
    *("GatedRelativePositionBias",),
)
"""Operators of com.microsoft whose operands are laid out in their own way."""


def _heads(site: Site, k: int, count: int) -> int:
    """How many of the heads in the last axis of operand `k` are left."""
    ref = site.ref(k)
    assert ref is not None
    whole = site.narrowing.whole
    halves = whole.axes.factors.split(whole.axes.of[ref.name][-1], count)
    if halves is None:
        raise Immovable(f"{site.node.op} {site.node.name!r} has no such heads")
    return site.narrowing.lengths(halves[:1])[0]


@resize("com.microsoft.MultiHeadAttention", "com.microsoft.GroupQueryAttention", "Attention")
def _attention(site: Site) -> None:
    """Numbers of heads; the scale of the scores stays what the old size of a head made it."""
    old = site.node.attributes
    for name, k in (("num_heads", 0), ("q_num_heads", 0), ("kv_num_heads", 1)):
        if name in old and site.read(k) and site.read(k)[-1] is not None:
            site.place.set(name, _heads(site, k, int(old[name])))
    heads = next((int(old[n]) for n in ("num_heads", "q_num_heads") if n in old), 0)
    width = site.before(0)[-1] // heads if heads and len(site.before(0)) == 3 else site.before(0)[-1]
    if site.node.op.endswith("GroupQueryAttention") and site.place.reads(2):
        _grouped(site, [int(old[name]) for name in ("num_heads", "kv_num_heads")])
    if site.read(0)[-1] is not None and not old.get("scale"):
        site.place.set("scale", float(width) ** -0.5)


def _grouped(site: Site, counts: Sequence[int]) -> None:
    """Check that heads have a size that onnxruntime takes, and lose whole planes where positions turn them.

    https://github.com/microsoft/onnxruntime, group_query_attention_helper.h and group_query_attention.cc
    """
    node, whole = site.node, site.before(1)[-1] // counts[1]
    turns = bool(node.attributes.get("do_rotary", 0)) and site.place.reads(8)
    keys, values = (site.after(k)[-1] // _heads(site, k, counts[1]) for k in (1, 2))
    multiple = 16 if turns else 8
    size = min(whole, -(-max(keys, values) // multiple) * multiple)
    if (keys, values) != (size, size):
        one = f"{node.op} {node.name!r} takes keys and values of one size only, a multiple of {multiple}"
        wanted = {ref.name: Fraction(size, whole) for k in (1, 2) if (ref := site.ref(k)) is not None}
        raise Uneven(one, {(name, -1): share for name, share in wanted.items()})
    for k, count in enumerate(counts):
        kept = site.read(k)[-1]
        if turns and kept is not None:
            heads = [head for head in kept.reshape(count, -1) if head.any()]
            _turned(site, heads, 7, interleaved=bool(node.attributes.get("rotary_interleaved", 0)))


@resize("LinearAttention", "com.microsoft.LinearAttention")
def _linear_attention(site: Site) -> None:
    for name, k in (("q_num_heads", 0), ("kv_num_heads", 1)):
        if site.read(k)[-1] is not None:
            site.place.set(name, _heads(site, k, int(site.node.attributes[name])))


@resize("RotaryEmbedding", "com.microsoft.RotaryEmbedding")
def _rotary(site: Site) -> None:
    """Whole heads may go, and whole planes of all of them, whose angles go from the tables."""
    node, kept = site.node, site.read(0)[-1]
    table = 2 if node.op.startswith("com.") else 1
    planes, left = site.before(table)[-1], site.after(table)[-1]
    if kept is None:
        return
    told = int(node.attributes.get("num_heads", 0))
    count = 1 if len(site.read(0)) == 4 else told or len(kept) // (2 * planes)
    heads = [head for head in kept.reshape(count, -1) if head.any()]
    _turned(site, heads, table, interleaved=bool(node.attributes.get("interleaved", 0)))
    if told and count > 1:
        site.place.set("num_heads", len(heads))
    if node.attributes.get("rotary_embedding_dim", 0):
        site.place.set("rotary_embedding_dim", 2 * left)


def _turned(site: Site, heads: Sequence[Kept], table: int, *, interleaved: bool) -> None:
    """Check that heads lose the same planes, and the tables, operands `table` and the next, the same angles."""
    planes = site.before(table)[-1]
    angles = [kept if (kept := site.read(k)[-1]) is not None else np.ones(planes, bool) for k in (table, table + 1)]
    pairs = [head[: 2 * planes].reshape((planes, 2) if interleaved else (2, planes)) for head in heads]
    halves = [half for pair in pairs for half in (pair.T if interleaved else pair)]
    if not all(np.array_equal(half, angles[0]) for half in (*halves, angles[1])):
        raise Immovable(f"{site.node.op} {site.node.name!r} turns them by where they stand")


@resize("com.microsoft.MatMulNBits")
def _packed(site: Site) -> None:
    """The numbers of one row share bytes and scales; rows stand alone."""
    if site.read(0)[-1] is not None:
        raise Immovable(f"{site.node.op} {site.node.name!r} packs several units into a byte")
    site.place.set("N", site.result()[-1])


@resize(*(f"com.microsoft.{word}" for word in PACKED))
def _unknown(site: Site) -> None:
    raise Immovable(f"{site.node.op} {site.node.name!r} keeps several things in one tensor")


@resize("com.microsoft.Attention")
def _joint_attention(site: Site) -> None:
    """Queries, keys and values of one weight: sizes of the three, and the number of heads."""
    old, kept = site.node.attributes, site.read(1)[1]
    if kept is None:
        return
    heads = int(old["num_heads"])
    sizes = [int(n) for n in old.get("qkv_hidden_sizes", (len(kept) // 3,) * 3)]
    ends = np.cumsum([0, *sizes])
    fresh = [int(kept[a:b].sum()) for a, b in pairwise(ends)]
    halves = _parts(site, site.node.outputs[0], heads)
    site.place.set("num_heads", halves)
    if len(set(fresh)) > 1 or "qkv_hidden_sizes" in old:
        site.place.set("qkv_hidden_sizes", fresh)
    if not old.get("scale"):
        site.place.set("scale", float(sizes[0] // heads) ** -0.5)


def _parts(site: Site, name: str, count: int, axis: int = -1) -> int:
    """How many of the parts of an axis are left."""
    whole = site.narrowing.whole
    halves = whole.axes.factors.split(whole.axes.of[whole.lowering.values[name].name][axis], count)
    if halves is None:
        raise Immovable(f"{site.node.op} {site.node.name!r} has no such parts")
    return site.narrowing.lengths(halves[:1])[0]


@resize("GroupNormalization")
def _groups(site: Site) -> None:
    site.place.set("num_groups", _parts(site, site.node.outputs[0], int(site.node.attributes["num_groups"]), 1))


@resize("com.microsoft.GroupNorm", "com.microsoft.SkipGroupNorm")
def _groups_last(site: Site) -> None:
    axis = -1 if site.node.attributes.get("channels_last", 1) else 1
    site.place.set("groups", _parts(site, site.node.outputs[0], int(site.node.attributes["groups"]), axis))
