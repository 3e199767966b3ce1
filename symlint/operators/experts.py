"""Mixtures of experts: a router weights what some of them make of each token."""

from __future__ import annotations

from math import prod

from symlint.model.operators import op
from symlint.operators.quantised import lift, unpack
from symlint.program.lower import Ref, Tracer, Unsupported

HOMOGENEOUS = {"relu": "Relu", "identity": "Identity"}


@op("com.microsoft.MoE")
def mixture(
    t: Tracer,
    x: Ref,
    router: Ref,
    up: Ref,
    up_bias: Ref | None,
    down: Ref,
    down_bias: Ref | None,
    other: Ref | None,
    other_bias: Ref | None,
    *,
    activation_type: str = "relu",
    activation_beta: float = 0.0,
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    use_sparse_mixer: int = 0,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MoE"""
    shift = bool(activation_beta) or swiglu_limit is not None
    weights = route(t, router, sparse=bool(use_sparse_mixer))
    matrices, biases = (up, down, other), (up_bias, down_bias, other_bias)
    return expert(t, x, weights, matrices, biases, activation_type, swiglu_fusion, shift)


def route(t: Tracer, router: Ref, *, sparse: bool) -> Ref:
    """The weight of every expert, zero where it is not chosen: a map that commutes with permutations of experts."""
    whole = t.normalise(router, [-1], function="SparseMixer" if sparse else "Softmax")
    return t.normalise(whole, [-1], function="Chosen")


def expert(
    t: Tracer,
    x: Ref,
    weights: Ref,
    matrices: tuple[Ref, Ref, Ref | None],
    biases: tuple[Ref | None, Ref | None, Ref | None],
    activation: str,
    fusion: int,
    shift: bool,
) -> Ref:
    """What all experts make of every token, weighted; `shift`: the linear half of a gate is moved or clipped."""
    tokens = t.reshape(x, (prod(x.shape[:-1]), x.shape[-1]))
    hidden = _project(t, "n k, e m k -> n e m", tokens, matrices[0], biases[0])
    beside = matrices[2] and _project(t, "n k, e m k -> n e m", tokens, matrices[2], biases[2])
    if activation == "swiglu" and fusion:
        hidden, beside = _halves(t, hidden, interleaved=fusion == 1)
    if activation == "swiglu" and shift and beside is not None:
        beside = t.apply(beside, None, "Shifted")
    function = HOMOGENEOUS.get(activation, "Gate")
    hidden = t.apply(hidden, None if function == "Gate" else 1, function)
    hidden = hidden if beside is None else t.multiply(hidden, beside)
    made = _project(t, "n e m, e k m -> n e k", hidden, matrices[1], biases[1])
    return t.reshape(t.einsum("n e, n e k -> n k", weights, made), x.shape)


def _project(t: Tracer, pattern: str, x: Ref, w: Ref, bias: Ref | None) -> Ref:
    return t.add(t.einsum(pattern, x, w), bias)


def _halves(t: Tracer, x: Ref, *, interleaved: bool) -> tuple[Ref, Ref]:
    """The gate and the linear half of a fused projection ``n e (m 2)``, or ``n e (2 m)``."""
    n, e, both = x.shape
    apart, axis = t.reshape(x, (n, e, both // 2, 2) if interleaved else (n, e, 2, both // 2)), 3 if interleaved else 2
    gate, linear = (t.reshape(t.slice(apart, axis, k, k + 1), (n, e, both // 2)) for k in (0, 1))
    return gate, linear


@op("com.microsoft.QMoE")
def quantised_mixture(
    t: Tracer,
    x: Ref,
    router: Ref,
    up: Ref,
    up_scales: Ref | None,
    up_bias: Ref | None,
    down: Ref,
    down_scales: Ref | None,
    down_bias: Ref | None,
    other: Ref | None,
    other_scales: Ref | None,
    other_bias: Ref | None,
    up_zeros: Ref | None,
    down_zeros: Ref | None,
    other_zeros: Ref | None,
    mixing: Ref | None,
    *,
    quant_type: str = "int",
    activation_type: str = "relu",
    activation_beta: float = 0.0,
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    use_sparse_mixer: int = 0,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QMoE"""
    if quant_type != "int" or up_scales is None or down_scales is None:
        raise Unsupported(f"experts of quantisation {quant_type}")
    shift = bool(activation_beta) or swiglu_limit is not None
    weights = route(t, router, sparse=bool(use_sparse_mixer))
    weights = weights if mixing is None else t.normalise(t.multiply(weights, mixing), [-1], function="Chosen")
    inner = up.shape[1] // (2 if swiglu_fusion else 1)
    return expert(
        t,
        x,
        weights,
        (
            _levels(t, up, up_scales, up_zeros, x.shape[-1]),
            _levels(t, down, down_scales, down_zeros, inner),
            other and _levels(t, other, other_scales, other_zeros, x.shape[-1]),
        ),
        (up_bias, down_bias, other_bias),
        activation_type,
        swiglu_fusion,
        shift,
    )


def _levels(t: Tracer, w: Ref, scales: Ref | None, zeros: Ref | None, width: int) -> Ref:
    """Weights ``e n k`` of several to the byte, with levels per row or per block of a row."""
    each = width // w.shape[-1]
    whole = unpack(t, w, width, each)
    rows, blocks = w.shape[1], width // (scales.shape[2] if scales is not None and scales.rank == 3 else 1)
    if zeros is not None:
        zeros = unpack(t, zeros, rows if zeros.rank == 2 else width // blocks, each)
    scale, zero = (t.reshape(v, (*v.shape, 1)) if v is not None and v.rank == 2 else v for v in (scales, zeros))
    return lift(t, whole, scale, zero, 2, blocks)
