"""Operators that are told places along an axis, and how each is told where they are now."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from symlint.model.graph import Array
from symlint.model.operators import resize
from symlint.repair.surgery.narrowing import Immovable, Left, same
from symlint.repair.surgery.site import Site


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
