"""Operators that are told sizes, heads, groups or places along an axis, and how each is told the new ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from symlint.model.graph import Array
from symlint.model.operators import resize
from symlint.repair.narrowing import Immovable, Kept, Left, Site, Uneven, same


@resize("Reshape", "Expand")
def _shape(site: Site) -> None:
    """A wanted shape names the narrowed axes; lengths that a run decides are left to be found out."""
    given = site.known(1)
    made = site.made()
    entries: dict[int, int] = {}
    if given is None:
        raise Immovable(f"the shape of {site.node.op} {site.node.name!r} is computed at run time")
    lead = len(made) - given.size
    old = site.model.shapes[site.node.outputs[0]]
    for axis, kept in enumerate(made):
        k = axis - lead
        if kept is None and k >= 0 and site.shifty(1) and not site.varies(axis):
            entries[k] = old[axis]
        if (
            kept is None
            or k < 0
            or int(given[k]) == -1
            or (site.node.op == "Expand" and int(given[k]) == 1 != old[axis])
        ):
            continue
        if site.node.op == "Reshape" and int(given[k]) == 0 and _same_axis(site, axis):
            continue
        entries[k] = -1 if site.varies(axis) else int(kept.sum())
    if [entries.get(k, int(n)) for k, n in enumerate(given)].count(-1) > 1:
        raise Immovable(f"several lengths of {site.node.op} {site.node.name!r} are known at run time only")
    site.override(1, entries)


def _same_axis(site: Site, axis: int) -> bool:
    before, after = site.read(0), site.made()
    return axis < len(before) and site.after(0)[axis] == site.result()[axis] and after[axis] is not None


@resize("Conv", "ConvInteger", "QLinearConv", "com.microsoft.QLinearConv", "com.microsoft.FusedConv")
def _convolution(site: Site) -> None:
    weight = 3 if "QLinear" in site.node.op else 1
    group = int(site.node.attributes.get("group", 1))
    if group > 1:
        _grouped(site, group, site.after(0)[1], site.after(weight)[1])


@resize("DeformConv")
def _deformed_convolution(site: Site) -> None:
    if int(site.node.attributes.get("offset_group", 1)) > 1 and site.read(0)[1] is not None:
        raise Immovable(f"DeformConv {site.node.name!r} moves groups of them, each in its own way")
    _convolution(site)


@resize("com.microsoft.NhwcConv", "com.microsoft.NhwcFusedConv")
def _last_convolution(site: Site) -> None:
    group = int(site.node.attributes.get("group", 1))
    if group > 1:
        _grouped(site, group, site.after(0)[-1], site.after(1)[1])


@resize("ConvTranspose", "com.microsoft.ConvTransposeWithDynamicPads")
def _transposed_convolution(site: Site) -> None:
    group = int(site.node.attributes.get("group", 1))
    if group > 1:
        _grouped(site, group, site.result()[1], site.after(1)[1])


def _grouped(site: Site, old: int, channels: int, each: int) -> None:
    if channels % each:
        raise Immovable(f"the groups of {site.node.op} {site.node.name!r} would not be equal")
    if channels // each != old:
        site.place.set("group", channels // each)


@resize("LSTM", "GRU", "RNN")
def _cell(site: Site) -> None:
    if "hidden_size" in site.node.attributes:
        site.place.set("hidden_size", site.after(2)[2])


@resize("Resize")
def _resize(site: Site) -> None:
    if site.known(3) is not None:
        axes = site.node.attributes.get("axes") or range(len(site.made()))
        entries = {k: site.result()[a] for k, a in enumerate(axes) if site.made()[a] is not None}
        site.override(3, entries)


@resize("MaxUnpool")
def _unpool(site: Site) -> None:
    if site.known(2) is not None:
        site.override(2, {k: n for k, n in enumerate(site.result()) if site.made()[k] is not None})


@resize("Tile")
def _tile(site: Site) -> None:
    times = site.known(1)
    if times is None or site.shifty(1):
        raise Immovable(f"the repeats of Tile {site.node.name!r} are computed at run time")
    fresh = {}
    for axis, (kept, n, m) in enumerate(zip(site.made(), site.after(0), site.result(), strict=True)):
        if kept is not None and n * int(times[axis]) != m:
            if m % n:
                raise Immovable(f"Tile {site.node.name!r} repeats some of them only")
            fresh[axis] = m // n
    site.override(1, fresh)


@resize(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "ReduceSumSquare", "Squeeze", "Unsqueeze", "com.microsoft.ExpandDims", "CumSum", "CumProd", "TopK"),
    *("SequenceAt", "SequenceErase", "SequenceInsert", "ReverseSequence", "Loop", "DFT", "STFT", "Trilu"),
    *("com.microsoft.Trilu", "AffineGrid", "Col2Im", "ConstantOfShape", "RoiAlign", "NonMaxSuppression"),
    *("TensorScatter", "BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"),
    *("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "ai.onnx.ml.ArrayFeatureExtractor"),
)
def _as_it_was(_: Site) -> None:
    """Their whole numbers are axes, counts and places along axes whose units never go."""


def unknown(site: Site) -> None:
    """An operator of which nobody says how it is resized must not be told places or sizes by a stored number.

    Raises `Immovable` where it is.
    """
    weights = site.narrowing.whole.lowering.program.weights
    for k, name in enumerate(site.node.inputs):
        value = site.known(k) if name and name not in weights else None
        if value is not None and value.dtype.name in ("int32", "int64"):
            raise Immovable(f"{site.node.op} {site.node.name!r} is told {name!r}, and nothing says how it is resized")


@resize("Split")
def _split(site: Site) -> None:
    axis = int(site.node.attributes.get("axis", 0)) % len(site.read(0))
    sizes = [site.result(k)[axis] for k in range(len(site.node.outputs))]
    if site.read(0)[axis] is None:
        return
    if 0 in sizes:
        _split_less(site, sizes)
    elif site.node.opset < 13 and "split" in site.node.attributes:
        site.place.set("split", sizes)
    elif len(site.node.inputs) > 1 and site.node.inputs[1]:
        site.place.put(1, np.asarray(sizes, np.int64))
    elif len(set(sizes)) > 1:
        if site.node.opset < 13:
            site.place.set("split", sizes)
            return
        site.place.put(1, np.asarray(sizes, np.int64))
        site.place.set("num_outputs", None)


def _split_less(site: Site, sizes: list[int]) -> None:
    """Without the parts of which nothing is left, and without the split where one part is all."""
    parts = [k for k, n in enumerate(sizes) if n]
    if any(site.place.needed(k) for k, n in enumerate(sizes) if not n):
        raise Immovable(f"nothing would be left of a part of Split {site.node.name!r} that is read")
    if len(parts) != 1 or site.place.ends(parts[0]):
        raise Immovable(f"Split {site.node.name!r} would have an empty part")
    site.place.skip(parts[0])


@resize("SplitToSequence")
def _split_to_sequence(site: Site) -> None:
    """One size for all parts leaves another rest when some are narrower: each is given its own."""
    axis = int(site.node.attributes.get("axis", 0)) % len(site.read(0))
    parts = site.narrowing.whole.lowering.values[site.node.outputs[0]].items or ()
    if site.read(0)[axis] is None or len(site.node.inputs) < 2:
        return
    rows = [(site.narrowing.of(part.name)[axis], part.shape[axis]) for part in parts]
    sizes = [n if kept is None else int(kept.sum()) for kept, n in rows]
    if 0 in sizes:
        raise Immovable(f"nothing would be left of a part of SplitToSequence {site.node.name!r}")
    site.place.put(1, np.asarray(sizes, np.int64))


@resize("Slice")
def _slice(site: Site) -> None:
    old, shape, left = site.node.attributes, site.before(0), site.read(0)
    starts, ends, axes, steps = (site.known(k) for k in range(1, 5))
    if "starts" in old:
        starts, ends = np.asarray(old["starts"]), np.asarray(old["ends"])
        axes = np.asarray(old["axes"]) if "axes" in old else None
    if starts is None or ends is None:
        raise Immovable(f"the bounds of Slice {site.node.name!r} are computed at run time")
    along = range(len(starts)) if axes is None else [int(a) % len(shape) for a in axes]
    first, last = dict[int, int](), dict[int, int]()
    for k, axis in enumerate(along):
        kept = left[axis]
        step = 1 if steps is None else int(steps[k])
        start, stop, step = slice(int(starts[k]), int(ends[k]), step).indices(shape[axis])
        whole = start == 0 and stop == shape[axis] and step == 1 and not -1 < int(ends[k]) <= stop
        if kept is None or (whole and not site.shifty(2)):
            continue
        place = np.cumsum(kept) - 1
        chosen = [int(place[i]) for i in range(start, stop, step) if kept[i]]
        if step < 0 or not chosen or any(b - a != step for a, b in pairwise(chosen)):
            raise Immovable(f"what Slice {site.node.name!r} takes would not be evenly spaced")
        first[k], last[k] = chosen[0], chosen[-1] + 1
    if "starts" in old:
        site.place.set("starts", [first.get(k, int(n)) for k, n in enumerate(starts)])
        site.place.set("ends", [last.get(k, int(n)) for k, n in enumerate(ends)])
        return
    site.override(1, first)
    site.override(2, last)


@resize("Gather", "com.microsoft.TorchEmbedding")
def _gather(site: Site) -> None:
    axis = int(site.node.attributes.get("axis", 0)) % len(site.read(0))
    kept = site.read(0)[axis]
    if kept is None:
        return
    indices = site.known(1)
    if indices is None:
        raise Immovable(f"the indices of Gather {site.node.name!r} are computed at run time")
    wanted = indices % len(kept)
    over = site.made()[axis : axis + indices.ndim]
    if indices.ndim == 1 and over[0] is not None:
        wanted = wanted[over[0]]
    if not kept[wanted].all():
        raise Immovable(f"Gather {site.node.name!r} takes one of them")
    site.place.put(1, np.asarray(np.cumsum(kept) - 1, indices.dtype)[wanted])


@resize("GatherND", "com.microsoft.GatherND", "Compress")
def _chosen(site: Site) -> None:
    """Fixed indices along one axis, each of which may stand in a row of its own; with units that go they go as well."""
    deep, scatters, compresses = "ND" in site.node.op, "Scatter" in site.node.op, site.node.op == "Compress"
    axis = int(site.node.attributes.get("batch_dims", 0) if deep else site.node.attributes.get("axis", 0))
    kept, indices = site.read(0)[axis], site.known(1)
    if indices is None:
        raise Immovable(f"the indices of {site.node.op} {site.node.name!r} are computed at run time")
    if scatters and not same((kept,), (site.made()[axis],)):
        raise Immovable(f"{site.node.op} {site.node.name!r} writes over some of them")
    if compresses:
        site.place.put(1, indices if kept is None else indices[kept[: len(indices)]])
        return
    for k, rows in enumerate(site.read(2) if scatters else site.made()):
        if rows is not None and k < indices.ndim - deep:
            indices = indices.compress(rows, k)
    if kept is not None:
        if not kept[indices % len(kept)].all():
            raise Immovable(f"{site.node.op} {site.node.name!r} takes one of them")
        indices = np.asarray(np.cumsum(kept) - 1, indices.dtype)[indices % len(kept)]
    site.place.put(1, indices)


@resize("ScatterND")
def _scatter(site: Site) -> None:
    """What is written over need not be there before, so its units belong to the result alone."""
    made, indices, shape = site.made(), site.known(1), site.before(1)
    along = [k for k in range(shape[-1]) if made[k] is not None]
    data = site.place.stored(0)
    for axis, (there, kept) in enumerate(zip(site.read(0), made, strict=True)):
        if data is not None:
            data = data if kept is None else data.compress(kept, axis=axis)
        elif kept is not None and (there is None or not np.array_equal(kept, there)):
            if there is not None and not there[kept].all():
                raise Immovable(f"{site.node.op} {site.node.name!r} writes into some of them only")
            places = np.flatnonzero(kept) if there is None else (np.cumsum(there) - 1)[kept]
            site.place.insert(0, "Gather", [places.astype(np.int64)], axis=axis)
    if data is not None:
        site.place.put(0, data)
    if not along and all(kept is None for kept in site.read(2)[: len(shape) - 1]):
        return
    if indices is None or site.node.inputs[1] in site.model.moving:
        raise Immovable(f"{site.node.op} {site.node.name!r} writes at places that are computed at run time")
    site.place.put(1, _places(indices, made))


def _places(indices: Array, made: Left) -> Array:
    """Where the units that are left are written. Raises `Immovable` where they are no whole rows of the indices."""
    fresh, there = indices.copy(), np.ones(indices.shape[:-1], bool)
    for k in range(indices.shape[-1]):
        if (kept := made[k]) is not None:
            there &= kept[indices[..., k]]
            fresh[..., k] = (np.cumsum(kept) - 1)[indices[..., k]]
    for axis in range(there.ndim):
        some = there.any(axis=tuple(k for k in range(there.ndim) if k != axis))
        fresh, there = fresh.compress(some, axis=axis), there.compress(some, axis=axis)
    if not there.all():
        raise Immovable("they are written at places that are not in rows")
    return np.asarray(fresh, order="C")


@resize("GatherElements", "Scatter", "ScatterElements")
def _addressed(site: Site) -> None:
    """Indices that are repeated for units are repeated for fewer; those that are stored are cut."""
    if site.known(1) is not None and site.node.inputs[1] not in site.model.moving:
        _chosen(site)
        return
    axis = int(site.node.attributes.get("axis", 0)) % len(site.before(1))
    units = site.made() if site.node.op == "GatherElements" else site.read(2)
    ends = {k: int(kept.sum()) for k, kept in enumerate(units) if kept is not None and site.read(1)[k] is None}
    if axis in ends:
        raise Immovable(f"{site.node.op} {site.node.name!r} addresses them at run time")
    if any(site.varies(k) for k in ends):
        raise Immovable(f"the indices of {site.node.op} {site.node.name!r} are repeated as often as a run decides")
    if not ends:
        return
    numbers = ([0] * len(ends), list(ends.values()), list(ends))
    site.place.insert(1, "Slice", [np.asarray(n, np.int64) for n in numbers])


@resize("Pad", "com.microsoft.Pad")
def _pad(site: Site) -> None:
    """What is padded along a narrowed axis are units as well."""
    shape, axes, given = site.before(0), site.known(3), site.known(1)
    amounts = site.node.attributes.get("pads") if given is None else given.tolist()
    along = range(len(shape)) if axes is None else [int(a) % len(shape) for a in axes]
    if amounts is None:
        raise Immovable(f"the amounts of Pad {site.node.name!r} are computed at run time")
    fresh = {}
    for k, axis in enumerate(along):
        kept, before, after = site.made()[axis], int(amounts[k]), int(amounts[k + len(along)])
        if kept is None or not (before or after):
            continue
        if min(before, after) < 0:
            raise Immovable(f"Pad {site.node.name!r} takes some of them away")
        fresh[k] = int(kept[:before].sum())
        fresh[k + len(along)] = int(kept[len(kept) - after :].sum())
    if given is None:
        site.place.set("pads", [fresh.get(k, int(n)) for k, n in enumerate(amounts)])
    else:
        site.override(1, {k: n for k, n in fresh.items() if n != amounts[k]})


@resize("CenterCropPad")
def _centred(site: Site) -> None:
    """Of an axis that keeps all its units the wanted size is the new one; elsewhere the middle is another."""
    rank = len(site.read(0))
    axes = [int(a) % rank for a in site.node.attributes.get("axes") or range(rank)]
    fresh = {}
    for k, axis in enumerate(axes):
        if site.read(0)[axis] is not None:
            if site.before(0)[axis] != site.model.shapes[site.node.outputs[0]][axis]:
                raise Immovable(f"CenterCropPad {site.node.name!r} takes some of them away")
            fresh[k] = site.result()[axis]
    site.override(1, fresh)


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
        _grouped_heads(site, [int(old[name]) for name in ("num_heads", "kv_num_heads")])
    if site.read(0)[-1] is not None and not old.get("scale"):
        site.place.set("scale", float(width) ** -0.5)


def _grouped_heads(site: Site, counts: Sequence[int]) -> None:
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
