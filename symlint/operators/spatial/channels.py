"""Operators whose channels come last: their counterparts with channels first, between two transpositions."""

from __future__ import annotations

from symlint.model.operators import op
from symlint.operators.normal import group_norm
from symlint.program.lower import Ref, Tracer
from symlint.program.mixing import MixKind


def first(t: Tracer, x: Ref) -> Ref:
    """``b c ...`` from ``b ... c``."""
    return t.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def last(t: Tracer, x: Ref) -> Ref:
    """``b ... c`` from ``b c ...``."""
    return t.transpose(x, (0, *range(2, x.rank), 1))


def pool_last(t: Tracer, x: Ref) -> Ref:
    """Windows over all axes between the first and the last."""
    average = t.node.op.endswith("AveragePool")
    padded = average and any(t.node.attributes.get("pads", ()))
    keep = [0, *[None] * (x.rank - 2), x.rank - 1]
    return t.mix(x, keep, MixKind.POOLING, steady=not padded, linear=average)


@op("com.microsoft.NhwcMaxPool", exact=True)
def max_pool_last(t: Tracer, x: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.NhwcMaxPool"""
    return pool_last(t, x)


@op("com.microsoft.GroupNorm")
def group_norm_last(
    t: Tracer, x: Ref, gain: Ref, bias: Ref, *, groups: int, channels_last: int = 1, activation: int = 0
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupNorm"""
    made = group_norm(t, first(t, x) if channels_last else x, gain, bias, num_groups=groups)
    made = t.apply(made, None, "Swish") if activation else made
    return last(t, made) if channels_last else made


@op("com.microsoft.SkipGroupNorm")
def skip_group_norm(
    t: Tracer,
    x: Ref,
    gain: Ref,
    bias: Ref,
    skip: Ref,
    more: Ref | None,
    *,
    groups: int,
    channels_last: int = 1,
    activation: int = 0,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SkipGroupNorm"""
    thin = [1] * (x.rank - 2)
    channels = (*thin, x.shape[-1]) if channels_last else (x.shape[1], *thin)
    skip = t.reshape(skip, (skip.shape[0], *channels)) if skip.rank == 2 else skip
    whole = t.add(x, skip, more and t.reshape(more, channels))
    made = group_norm_last(t, whole, gain, bias, groups=groups, channels_last=channels_last, activation=activation)
    return made, whole
