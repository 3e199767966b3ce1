"""Operators that are told sizes, places or numbers of groups, and how each is told the new ones."""

from __future__ import annotations

from symlint.model.operators import resize
from symlint.repair.surgery.narrowing import Immovable
from symlint.repair.surgery.site import Site


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
