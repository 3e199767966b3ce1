"""The equivariance law of the rules for onnxruntime's own operators, with onnxruntime as the judge.

Each case says which axes of its inputs carry a permutation that the rule must find, so that no rule is empty.
"""

# ruff: noqa: E501 - a call is a line of a table
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from test_every_operator import TOLERANCE, Arrays, Case, attempts, examine_open, with_weights

from symlint.model.load import load
from symlint.model.operators import known, operators
from symlint.program.steps import Unknown
from symlint.program.translate import parameters, translate

INT = np.int32


@dataclass(frozen=True)
class Call:
    """A call of an operator: shapes of normal inputs, or values; and the (input, axis) that a permutation moves."""

    op: str
    attributes: dict[str, Any]
    inputs: Sequence[Any]
    free: Sequence[tuple[int, int]]
    outputs: int = 1


def u8(*shape: int, top: int = 256) -> np.ndarray:
    """Levels."""
    return np.random.default_rng(7).integers(0, top, shape).astype(np.uint8)


def scales(*shape: int) -> np.ndarray:
    """Positive scales."""
    return np.random.default_rng(5).uniform(0.01, 0.1, shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    """A vector of int32."""
    return np.array(values, INT)


TABLE = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
WIDE = np.random.default_rng(2).normal(size=(16, 8)).astype(np.float32)
GROUPED = {"num_heads": 4, "kv_num_heads": 2}
LENGTHS = [whole(2, 2), np.array(3, INT)]
QKV = [(2, 3, 32), (2, 3, 16), (2, 3, 16)]
HALF, ZERO = np.float32(0.5), np.uint8(3)
WINDOWS: list[dict[str, Any]] = [
    {"strides": [2, 3], "pads": [1, 0, 1, 1]},
    {"strides": [2, 2], "ceil_mode": 1},
    {"strides": [3, 4], "ceil_mode": 1, "pads": [0, 1, 2, 1]},
    {"dilations": [2, 3]},
    *({"strides": [3, 2], "auto_pad": word} for word in ("SAME_UPPER", "SAME_LOWER", "VALID")),
]

CALLS = [
    Call("Attention", {"num_heads": 2}, [(2, 3, 6), (6, 24), (24,)], [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]),
    Call("Attention", {"num_heads": 2, "unidirectional": 1}, [(2, 3, 6), (6, 24), (24,)], [(0, 0), (1, 0), (1, 1)]),
    Call("Attention", {"num_heads": 2}, [(2, 3, 6), (6, 24), (24,), np.array([[1, 1, 0], [1, 0, 0]], INT)], [(1, 1)]),
    Call("Attention", {"num_heads": 2}, [(2, 3, 6), (6, 24), (24,), whole(2, 3)], [(1, 0), (1, 1)]),
    Call("Attention", {"num_heads": 2}, [(2, 1, 6), (6, 24), (24,), None, (2, 2, 2, 3, 4)], [(1, 1)], 2),
    Call("Attention", {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 12]}, [(2, 3, 6), (6, 28), (28,)], [(1, 1)]),
    Call("MultiHeadAttention", {"num_heads": 2}, [(2, 3, 8), (2, 4, 8), (2, 4, 12)], [(0, 1), (0, 2), (1, 1), (2, 2)]),
    Call("MultiHeadAttention", {"num_heads": 2}, [(2, 3, 8)] * 3 + [(24,)], [(0, 2), (3, 0)]),
    Call("MultiHeadAttention", {"num_heads": 2, "unidirectional": 1}, [(2, 3, 8)] * 3, [(0, 0), (0, 2)]),
    Call("MultiHeadAttention", {"num_heads": 2}, [(2, 3, 8)] * 3 + [None, None, (1, 2, 3, 3)], [(0, 2), (5, 1)]),
    Call("MultiHeadAttention", {"num_heads": 2}, [(2, 1, 8)] * 3 + [None] * 3 + [(2, 2, 3, 4)] * 2, [(6, 1)], 3),
    Call("DecoderMaskedMultiHeadAttention", {"num_heads": 2}, [(2, 1, 8), (2, 2, 3, 4), (2, 2, 3, 4)], [(0, 2), (1, 1)]),
    Call("GroupQueryAttention", GROUPED, [*QKV, None, None, *LENGTHS], [(0, 2), (1, 2), (2, 2)], 3),
    Call("GroupQueryAttention", GROUPED, [(2, 3, 64), None, None, None, None, *LENGTHS], [(0, 2)], 3),
    Call("GroupQueryAttention", {**GROUPED, "do_rotary": 1}, [(2, 3, 64), (2, 3, 32), (2, 3, 32), None, None, *LENGTHS, WIDE, WIDE], [(2, 2)], 3),
    Call("GroupQueryAttention", {**GROUPED, "smooth_softmax": 1}, [*QKV, None, None, *LENGTHS], [(0, 2)], 3),
    Call("GroupQueryAttention", GROUPED, [*QKV, None, None, *LENGTHS, *[None] * 4, (4,)], [(0, 2), (11, 0)], 3),
    Call("RotaryEmbedding", {}, [(2, 3, 16), np.array([0], np.int64), TABLE, TABLE], [(0, 0), (0, 2)]),
    Call("MRotaryEmbedding", {"mrope_section": [2, 1, 1]}, [(2, 2, 3, 8), np.zeros((3, 2, 3), np.int64), TABLE, TABLE], [(0, 1)]),
    Call("SkipLayerNormalization", {}, [(2, 3, 4), (2, 3, 4), (4,), (4,), (4,)], [(0, 0), (0, 1), (0, 2), (2, 0)]),
    Call("SkipSimplifiedLayerNormalization", {}, [(2, 3, 4), (2, 3, 4), (4,), (4,)], [(0, 0), (0, 1), (0, 2), (2, 0)]),
    Call("EmbedLayerNormalization", {}, [np.array([[1, 2, 0]], INT), np.zeros((1, 3), INT), (5, 4), (6, 4), (2, 4), (4,), (4,)], [(2, 1), (5, 0)], 2),
    Call("QEmbedLayerNormalization", {}, [np.array([[1, 2, 0]], INT), np.zeros((1, 3), INT), u8(5, 4), u8(6, 4), u8(2, 4), u8(4), u8(4), None, *[HALF] * 5, *[ZERO] * 5], [(2, 1), (5, 0)], 2),
    Call("BiasGelu", {}, [(2, 3, 4), (4,)], [(0, 0), (0, 2), (1, 0)]),
    Call("FastGelu", {}, [(2, 3, 4), (4,)], [(0, 0), (0, 2), (1, 0)]),
    Call("Gelu", {}, [(2, 3)], [(0, 0), (0, 1)]),
    Call("QuickGelu", {"alpha": 1.5}, [(2, 3)], [(0, 0), (0, 1)]),
    Call("ScaledSiLU", {"alpha": 1.5}, [(2, 3)], [(0, 0), (0, 1)]),
    Call("ScaledSiLU", {}, [(2, 3), HALF], [(0, 0), (0, 1)]),
    Call("FusedMatMul", {"transB": 1, "alpha": 0.5}, [(2, 3, 4), (5, 4)], [(0, 0), (0, 1), (0, 2), (1, 0)]),
    Call("FusedMatMul", {"transA": 1}, [(2, 4, 3), (2, 4, 5)], [(0, 0), (0, 1), (0, 2), (1, 2)]),
    Call("FusedMatMul", {"transBatchA": 1}, [(3, 2, 4), (2, 4, 5)], [(0, 0), (0, 1), (0, 2), (1, 2)]),
    Call("FusedGemm", {"activation": "Relu", "transB": 1}, [(3, 4), (5, 4), (5,)], [(0, 0), (0, 1), (1, 0), (2, 0)]),
    Call("FusedConv", {"activation": "Relu"}, [(2, 3, 5, 5), (4, 3, 3, 3), (4,)], [(0, 0), (0, 1), (1, 0)]),
    Call("FusedConv", {"activation": "LeakyRelu", "activation_params": [0.1]}, [(2, 3, 5, 5), (4, 3, 3, 3), (4,)], [(1, 0)]),
    Call("FusedConv", {"activation": "Tanh", "group": 3}, [(2, 3, 5, 5), (3, 1, 3, 3), (3,)], [(0, 0), (0, 1)]),
    Call("GatedAdd", {}, [(2, 3, 4), (2, 3, 4), (2, 3, 1)], [(0, 0), (0, 1), (0, 2)]),
    Call("GatedRMSNorm", {}, [(2, 3, 8), (4,), (2, 3, 8)], [(0, 0), (0, 1), (0, 2), (1, 0)]),
    Call("BranchwiseRMSNorm", {}, [(2, 3, 4), (3, 4)], [(0, 0), (0, 1), (0, 2), (1, 0)]),
    Call("BranchwiseRMSNorm", {"num_branches": 3}, [(2, 12), (12,)], [(0, 0), (0, 1), (1, 0)]),
    Call("HyperConnectionPreMix", {}, [(2, 3, 4), (2, 3)], [(0, 0), (0, 1), (0, 2), (1, 1)]),
    Call("HyperConnectionPostMix", {}, [(2, 3, 4), (2, 4), (2, 3, 1), (2, 3, 3)], [(0, 0), (0, 1), (0, 2), (3, 2)]),
    Call("EngramGate", {}, [(2, 3, 2, 4), (2, 3, 2, 4), (2, 3, 4), (2, 4), (2, 4)], [(0, 0), (0, 1), (0, 2), (0, 3), (2, 2)]),
    Call("LinearAttentionGate", {}, [(2, 3, 4), (4,), (4,), (2, 3, 4)], [(0, 0), (0, 1), (0, 2), (1, 0)], 2),
    *(
        Call("LinearAttention", {"q_num_heads": q, "kv_num_heads": k, "update_rule": rule}, [(2, 3, 4 * q), (2, 3, 4 * k), (2, 3, 6 * k), (2, k, 4, 6), decay, beta], [(0, 0), (0, 2), (1, 2), (2, 2), (3, 1), (3, 3)], 2)
        for q, k, rule, decay, beta in [
            (2, 2, "linear", None, None),
            (4, 2, "gated", (2, 3, 2), None),
            (2, 2, "gated", (2, 3, 8), None),
            (2, 2, "delta", None, (2, 3, 2)),
            (4, 2, "gated_delta", (2, 3, 2), (2, 3, 1)),
            (2, 4, "gated_delta", (2, 3, 4), (2, 3, 4)),
        ]
    ),
    Call("CausalConvWithState", {}, [(2, 3, 5), (3, 1, 4), (3,), (2, 3, 3)], [(0, 0), (0, 1), (1, 0)], 2),
    Call("CausalConvWithState", {"activation": "silu"}, [(2, 3, 5), (3, 1, 4)], [(0, 0), (0, 1), (1, 0)], 2),
    Call("MoE", {"k": 2}, [(5, 4), (5, 3), (3, 6, 4), (3, 6), (3, 4, 6), (3, 4)], [(0, 0), (0, 1), (1, 1), (2, 1), (4, 1)]),
    Call("MoE", {"k": 1, "activation_type": "gelu", "normalize_routing_weights": 1}, [(1, 5, 4), (5, 3), (3, 6, 4), None, (3, 4, 6)], [(0, 2), (1, 1), (2, 1)]),
    Call("MoE", {"k": 2, "activation_type": "identity"}, [(5, 4), (5, 3), (3, 6, 4), None, (3, 4, 6)], [(1, 1), (2, 1)]),
    Call("MoE", {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1}, [(5, 4), (5, 3), (3, 12, 4), (3, 12), (3, 4, 6), (3, 4)], [(1, 1), (2, 1), (4, 2)]),
    Call("MoE", {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "activation_beta": 1.0, "swiglu_limit": 7.0}, [(5, 4), (5, 3), (3, 12, 4), (3, 12), (3, 4, 6), (3, 4)], [(1, 1), (2, 1), (4, 2)]),
    Call("QMoE", {"k": 2, "weights_prepacked": 0}, [(5, 32), (5, 3), u8(3, 16, 16), scales(3, 16), None, u8(3, 32, 8), scales(3, 32)], [(1, 1), (2, 1), (5, 1)]),
    Call("QMoE", {"k": 2, "expert_weight_bits": 8, "weights_prepacked": 0}, [(5, 32), (5, 3), u8(3, 16, 32), scales(3, 16), None, u8(3, 32, 16), scales(3, 32)], [(0, 1), (1, 1), (2, 1), (5, 1), (5, 2)]),
    Call("QMoE", {"k": 2, "block_size": 16, "weights_prepacked": 0}, [(5, 32), (5, 3), u8(3, 16, 16), scales(3, 16, 2), None, u8(3, 32, 8), scales(3, 32, 1)], [(1, 1), (2, 1), (5, 1)]),
    Call("QMoE", {"k": 2, "activation_type": "swiglu", "swiglu_fusion": 1, "weights_prepacked": 0}, [(5, 32), (5, 3), u8(3, 64, 16), scales(3, 64), None, u8(3, 32, 16), scales(3, 32)], [(1, 1), (2, 1), (5, 1)]),
    Call("QMoE", {"k": 2, "weights_prepacked": 0}, [(5, 32), (5, 3), u8(3, 16, 16), scales(3, 16), None, u8(3, 32, 8), scales(3, 32), None, None, None, None, u8(3, 8), u8(3, 16), None, (5, 3)], [(1, 1), (2, 1), (5, 1)]),
    Call("MatMulNBits", {"K": 32, "N": 6, "bits": 4, "block_size": 16}, [(2, 3, 32), u8(6, 2, 8), scales(12)], [(0, 0), (0, 1), (1, 0)]),
    Call("MatMulNBits", {"K": 40, "N": 6, "bits": 4, "block_size": 16}, [(3, 40), u8(6, 3, 8), scales(6, 3), u8(6, 2), None, (6,)], [(0, 0), (1, 0), (5, 0)]),
    Call("MatMulNBits", {"K": 32, "N": 6, "bits": 8, "block_size": 16}, [(3, 32), u8(6, 2, 16), scales(6, 2), u8(6, 2)], [(0, 0), (0, 1), (1, 0), (1, 2)]),
    Call("MatMulBnb4", {"K": 32, "N": 6, "block_size": 16, "quant_type": 1}, [(3, 32), u8(96), scales(12)], [(0, 0), (1, 0)]),
    Call("GatherBlockQuantized", {"block_size": 16, "bits": 8}, [u8(6, 32), np.array([1, 0, 4], np.int64), scales(6, 2)], [(0, 1)]),
    Call("GatherBlockQuantized", {"block_size": 16}, [u8(6, 16), np.array([[1, 0, 4]]), scales(6, 2)], [(0, 1), (2, 1)]),
    Call("GatherBlockQuantized", {"block_size": 16}, [u8(6, 16), np.array([[1, 0, 4]]), scales(6, 2), u8(6, 1)], [(0, 1)]),
    Call("GatherBlockQuantized", {"block_size": 16, "bits": 2}, [u8(6, 8), np.array([1, 0, 4]), scales(6, 2)], [(0, 1), (2, 1)]),
    Call("DynamicQuantizeMatMul", {}, [(3, 4), u8(4, 5), scales(5), u8(5)], [(0, 0), (0, 1), (1, 1)]),
    Call("MatMulIntegerToFloat", {}, [u8(3, 4), u8(4, 5), HALF, scales(5), None, u8(5), (5,)], [(0, 0), (0, 1), (1, 1)]),
    Call("MatMulInteger16", {}, [np.arange(12, dtype=np.int16).reshape(3, 4) ** 2, np.arange(20, dtype=np.int16).reshape(4, 5) ** 2], [(0, 0), (0, 1), (1, 1)]),
    Call("QAttention", {"num_heads": 2}, [u8(2, 3, 6), u8(6, 24), (24,), HALF, HALF, None, ZERO, ZERO], [(0, 0), (0, 1), (1, 0), (1, 1)]),
    Call("QGemm", {"transB": 1}, [u8(3, 4), HALF, ZERO, u8(5, 4), scales(5), u8(5)], [(0, 0), (0, 1), (3, 0)]),
    Call("QLinearAdd", {}, [u8(3, 4), HALF, ZERO, u8(4), HALF, ZERO, HALF, ZERO], [(0, 0), (0, 1)]),
    Call("QLinearMul", {}, [u8(3, 4), HALF, ZERO, u8(4), HALF, ZERO, HALF, ZERO], [(0, 0), (0, 1)]),
    Call("QLinearLeakyRelu", {}, [u8(3, 4), HALF, ZERO, HALF, ZERO], [(0, 0), (0, 1)]),
    Call("QLinearSigmoid", {}, [u8(3, 4), HALF, ZERO, np.float32(1 / 256), ZERO], [(0, 0), (0, 1)]),
    Call("QLinearSoftmax", {"axis": -1, "opset": 13}, [u8(3, 4), HALF, ZERO, np.float32(1 / 256), np.uint8(0)], [(0, 0), (0, 1)]),
    Call("QLinearGlobalAveragePool", {}, [u8(2, 3, 4, 4), HALF, ZERO, HALF, ZERO], [(0, 0), (0, 1), (0, 2)]),
    Call("QLinearGlobalAveragePool", {"channels_last": 1}, [u8(2, 4, 4, 3), HALF, ZERO, HALF, ZERO], [(0, 0), (0, 1), (0, 3)]),
    Call("NhwcMaxPool", {"kernel_shape": [2, 2]}, [u8(2, 4, 4, 3)], [(0, 0), (0, 3)]),
    Call("NhwcMaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}, [u8(2, 7, 6, 3)], [(0, 0), (0, 3)]),
    Call("QLinearAveragePool", {"kernel_shape": [2, 2]}, [u8(2, 3, 4, 4), HALF, ZERO, HALF, ZERO], [(0, 0), (0, 1)]),
    Call("QLinearAveragePool", {"kernel_shape": [2, 2], "channels_last": 1}, [u8(2, 4, 4, 3), HALF, ZERO, HALF, ZERO], [(0, 0), (0, 3)]),
    Call("QLinearConcat", {"axis": 1}, [HALF, ZERO, u8(2, 3), HALF, ZERO, u8(2, 4), HALF, ZERO], [(2, 0), (2, 1), (5, 1)]),
    Call("QLinearWhere", {}, [np.array([True, False, True]), u8(2, 3), HALF, ZERO, u8(2, 3), HALF, ZERO, HALF, ZERO], [(1, 0), (1, 1)]),
    Call("QLinearConv", {"channels_last": 1}, [u8(2, 5, 5, 3), HALF, ZERO, u8(4, 3, 3, 3), HALF, ZERO, np.float32(9), ZERO], [(0, 0), (0, 3), (3, 0)]),
    Call("QLinearConv", {"channels_last": 1, "kernel_shape": [1, 1], "strides": [2, 2]}, [u8(2, 5, 5, 3), HALF, ZERO, u8(4, 3, 1, 1), HALF, ZERO, np.float32(9), ZERO], [(0, 3), (3, 0)]),
    Call("MaxpoolWithMask", {"kernel_shape": [2, 2]}, [(2, 3, 4, 4), np.ones((2, 3, 4, 4), INT)], [(0, 0), (0, 1)]),
    Call("QuantizeLinear", {"axis": 1}, [(2, 3), scales(3), u8(3)], [(0, 0), (0, 1), (1, 0)]),
    Call("DequantizeLinear", {"axis": 1}, [u8(2, 3), scales(3), u8(3)], [(0, 0), (0, 1), (1, 0)]),
    Call("CDist", {"metric": "euclidean"}, [(3, 4), (5, 4)], [(0, 0), (0, 1), (1, 0)]),
    Call("CDist", {}, [(3, 4), (5, 4)], [(0, 0), (0, 1), (1, 0)]),
    Call("Inverse", {}, [(2, 3, 3)], [(0, 0)]),
    Call("Trilu", {}, [(2, 3, 3)], [(0, 0)]),
    Call("Pad", {}, [(2, 3), np.array([0, 1, 0, 1])], [(0, 0), (0, 1)]),
    Call("Pad", {}, [(2, 3), np.array([0, 1, 0, 1]), (1,)], [(0, 0), (0, 1)]),
    Call("ExpandDims", {}, [(2, 3), np.array(1, INT)], [(0, 0), (0, 1)]),
    Call("GatherND", {}, [(2, 3, 4), np.array([[1], [0]])], [(0, 1), (0, 2)]),
    Call("GridSample", {}, [(2, 3, 4, 4), (2, 2, 2, 2)], [(0, 1)]),
    Call("CropAndResize", {}, [(2, 3, 4, 4), np.array([[0, 0, 0.5, 1]], np.float32), whole(1), whole(2, 3)], [(0, 1)]),
    Call("CropAndResize", {"extrapolation_value": 2.0}, [(2, 3, 4, 4), np.array([[0, 0, 1.5, 1]], np.float32), whole(1), whole(2, 3)], [(0, 1)]),
    Call("UnfoldTensor", {"size": 2, "step": 1}, [(3, 5)], [(0, 0)]),
    Call("ConvTransposeWithDynamicPads", {"kernel_shape": [2, 2]}, [(2, 3, 3, 3), (3, 4, 2, 2), np.zeros(4, np.int64), (4,)], [(0, 0), (0, 1), (1, 1), (3, 0)]),
]  # fmt: skip

# Calls whose rules have their laws tried above, or have none to try: only the shapes of their outputs are compared.
SHAPED = [
    *(Call("NhwcMaxPool", {"kernel_shape": [3, 2], **more}, [u8(2, 7, 6, 3)], []) for more in WINDOWS),
    *(Call("QLinearAveragePool", {"kernel_shape": [3, 2], "channels_last": 1, **more}, [u8(2, 7, 6, 3), HALF, ZERO, HALF, ZERO], []) for more in WINDOWS if "dilations" not in more),
    Call("QLinearConv", {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 3}, [u8(2, 3, 5, 5), HALF, ZERO, u8(6, 1, 3, 3), HALF, ZERO, np.float32(9), ZERO], []),
    Call("QLinearConv", {"channels_last": 1, "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 2]}, [u8(2, 5, 7, 3), HALF, ZERO, u8(6, 3, 3, 3), HALF, ZERO, np.float32(9), ZERO], []),
    Call("QEmbedLayerNormalization", {}, [np.array([[1, 2, 0]], INT), None, u8(5, 4), u8(6, 4), None, u8(4), u8(4), np.ones((1, 3), INT), HALF, HALF, None, HALF, HALF, ZERO, ZERO, None, ZERO, ZERO], [], 2),
    Call("QAttention", {"num_heads": 2, "unidirectional": 1}, [u8(2, 1, 6), u8(6, 24), (24,), HALF, HALF, None, ZERO, ZERO, (2, 2, 2, 5, 4)], [], 2),
    Call("MultiHeadAttention", {"num_heads": 2}, [(2, 3, 8), (2, 2, 5, 4), (2, 2, 5, 4)], []),
    Call("MultiHeadAttention", {"num_heads": 2}, [(2, 3, 8), (2, 4, 8), (2, 4, 12)], [], 3),
    Call("MultiHeadAttention", {"num_heads": 2}, [(2, 1, 8)] * 3 + [None] * 3 + [(2, 2, 5, 4)] * 2 + [whole(2)], [], 3),
    Call("DecoderMaskedMultiHeadAttention", {"num_heads": 2, "past_present_share_buffer": 1}, [(2, 1, 8)] * 3 + [None] * 2 + [(2, 2, 5, 4)] * 2 + [whole(2)], [], 3),
    Call("GroupQueryAttention", {**GROUPED, "qk_output": 1}, [*QKV, None, None, *LENGTHS], [], 4),
    Call("GroupQueryAttention", GROUPED, [(2, 1, 32), (2, 1, 16), (2, 1, 16), (2, 2, 4, 8), (2, 2, 4, 8), whole(4, 4), np.array(5, INT)], [], 3),
    Call("GroupQueryAttention", GROUPED, [(2, 1, 32), (2, 1, 16), (2, 1, 16), (2, 2, 4, 8), (2, 2, 4, 8), whole(2, 2), np.array(3, INT)], [], 3),
    Call("LinearAttention", {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": "linear"}, [(2, 3, 16), (2, 3, 8), (2, 3, 12)], [], 2),
    Call("CausalConvWithState", {"channels_last": 1, "dilation": 2}, [(2, 9, 3), (3, 1, 4)], [], 2),
    Call("EngramGate", {}, [(2, 3, 2, 4), (2, 3, 2, 4), (2, 3, 4), (2, 4), (2, 4), (2, 4)], [], 2),
    Call("HyperConnectionPreMix", {"num_branches": 3}, [(2, 12), (2, 3)], []),
    Call("SkipLayerNormalization", {}, [(2, 3, 4), (2, 3, 4), (4,), (4,), (4,)], [], 4),
    Call("DynamicQuantizeLSTM", {"hidden_size": 3}, [(4, 2, 5), u8(1, 5, 12), u8(1, 3, 12), *[None] * 5, scales(1), u8(1), scales(1), u8(1)], [], 3),
    Call("QGemm", {"transA": 1}, [u8(4, 3), HALF, ZERO, u8(4, 5), HALF, ZERO, None, HALF, ZERO], []),
    Call("TransposeMatMul", {"transA": 1}, [(4, 3), (4, 5)], []),
    Call("UnfoldTensor", {"size": 2, "step": 2, "dim": 0}, [(5, 3)], []),
    Call("ExpandDims", {}, [(2, 3), np.array(-1, INT)], []),
    Call("Pad", {"mode": "edge"}, [(2, 3), np.array([1, 1, 0, -1])], []),
    Call("Range", {}, [whole(5), whole(0), whole(-2)], []),
    Call("Range", {}, [whole(1), whole(5)], []),
    Call("Unique", {}, [np.array([2, 1, 1, 3], np.float32)], [], 3),
    Call("MurmurHash3", {"positive": 0}, [np.array([[1, 2]], INT)], []),
    Call("MurmurHash3", {}, [np.array([[1, 2]], INT)], []),
    Call("NGramRepeatBlock", {"ngram_size": 2}, [np.array([[1, 2, 1]]), (1, 7)], []),
    Call("DynamicTimeWarping", {}, [(3, 4)], []),
    Call("BifurcationDetector", {}, [np.array([1, 5, 3, 4]), np.array([1]), np.array(0), np.array([1, 5, 3, 4, 2])], [], 2),
]  # fmt: skip


# Operators that onnxruntime has no CPU kernel for, with the shapes that they make: their rules must cover them.
ELSEWHERE = [
    (Call("MultiHeadAttention", {"num_heads": 2}, [(2, 3, 2, 3, 4)], [(0, 2), (0, 4)]), [(2, 3, 8)]),
    (Call("Attention", {"num_heads": 2, "do_rotary": 1}, [(2, 3, 6), (6, 48), (48,)], [(1, 0), (1, 1)]), [(2, 3, 16)]),
    (Call("GroupQueryAttention", GROUPED, [*QKV, None, None, *LENGTHS, *[None] * 7, (8,), (8,)], [(0, 2), (14, 0)], 3), [(2, 3, 32), (2, 2, 3, 8), (2, 2, 3, 8)]),
    (Call("MoE", {"k": 2, "activation_type": "silu"}, [(5, 4), (5, 3), (3, 6, 4), None, (3, 4, 6), None, (3, 6, 4)], [(1, 1), (2, 1)]), [(5, 4)]),
    (Call("SparseAttention", {**GROUPED, "sparse_block_size": 16}, [*QKV, (2, 2, 32, 8), (2, 2, 32, 8), np.zeros((1, 3), INT), np.zeros((1, 4), INT), np.array(3, INT), whole(3, 3)], [(0, 2), (1, 2), (2, 2)], 3), [(2, 3, 32), (2, 2, 32, 8), (2, 2, 32, 8)]),
    (Call("PackedAttention", {"num_heads": 2}, [(5, 6), (6, 24), (24,), np.zeros((2, 3), INT), whole(0, 2, 5)], [(1, 0), (1, 1)]), [(5, 8)]),
    (Call("PackedMultiHeadAttention", {"num_heads": 2}, [(5, 8), (5, 8), (5, 12), (28,), np.zeros((2, 3), INT), whole(0, 2, 5), (1, 2, 3, 3)], [(0, 1), (2, 1), (6, 1)]), [(5, 12)]),
    (Call("PackedMultiHeadAttention", {"num_heads": 2}, [(5, 2, 3, 4), None, None, None, np.zeros((2, 3), INT), whole(0, 2, 5)], [(0, 1), (0, 3)]), [(5, 8)]),
    (Call("LongformerAttention", {"num_heads": 2, "window": 2}, [(2, 4, 6), (6, 18), (18,), (2, 4), (6, 18), (18,), np.zeros((2, 4), INT)], [(0, 2), (1, 1), (4, 1)]), [(2, 4, 6)]),
    (Call("RelativePositionBias", {"max_distance": 8}, [(8, 2), np.array(3), np.array(3)], [(0, 0)]), [(1, 2, 3, 3)]),
    (Call("GatedRelativePositionBias", {"num_heads": 2}, [(2, 3, 8), (8,), (1, 2, 3, 3), (4, 8), (8,), (1, 2, 1, 1)], [(0, 1), (0, 2), (3, 0), (2, 1)]), [(2, 2, 3, 3)]),
    (Call("GroupNorm", {"groups": 2}, [(2, 3, 3, 6), (6,), (6,)], [(0, 0), (0, 3), (1, 0)]), [(2, 3, 3, 6)]),
    (Call("GroupNorm", {"groups": 2, "channels_last": 0, "activation": 1}, [(2, 6, 3, 3), (6,), (6,)], [(0, 1), (1, 0)]), [(2, 6, 3, 3)]),
    (Call("SkipGroupNorm", {"groups": 2}, [(2, 3, 3, 6), (6,), (6,), (2, 6), (6,)], [(0, 0), (0, 3), (4, 0)], 2), [(2, 3, 3, 6)] * 2),
    (Call("NhwcConv", {"kernel_shape": [3, 3]}, [(2, 5, 5, 3), (4, 3, 3, 3), (4,)], [(0, 3), (1, 0)]), [(2, 3, 3, 4)]),
    (Call("NhwcFusedConv", {"kernel_shape": [3, 3], "activation": "Relu"}, [(2, 5, 5, 3), (4, 3, 3, 3), (4,), (2, 3, 3, 4)], [(0, 3), (1, 0), (3, 3)]), [(2, 3, 3, 4)]),
    (Call("NhwcMaxPool", {"kernel_shape": [2, 2]}, [(2, 4, 4, 3)], [(0, 0), (0, 3)]), [(2, 3, 3, 3)]),
    (Call("GemmFastGelu", {}, [(2, 3, 4), (4, 5), (5,)], [(0, 0), (0, 2), (1, 1)]), [(2, 3, 5)]),
    (Call("TorchEmbedding", {}, [(5, 4), np.array([1, 0])], [(0, 1)]), [(2, 4)]),
    (Call("GemmaRotaryEmbedding", {}, [(2, 3, 4)] + [(2, 5, 3, 4)] * 4, [(1, 0), (1, 1), (1, 3)], 2), [(2, 5, 3, 4)] * 2),
    (Call("Rfft", {}, [(2, 3, 8)], [(0, 0), (0, 1)]), [(2, 3, 5, 2)]),
    (Call("Irfft", {}, [(2, 3, 5, 2)], [(0, 0), (0, 1)]), [(2, 3, 8)]),
    (Call("ComplexMul", {}, [(3, 4, 2), (3, 4, 2)], [(0, 0), (0, 1)]), [(3, 4, 2)]),
    (Call("ComplexMulConj", {}, [(3, 4, 2), (3, 4, 2)], [(0, 0), (0, 1)]), [(3, 4, 2)]),
    (Call("RemovePadding", {}, [(2, 3, 4), whole(2, 3)], [(0, 2)], 4), [(5, 4), (2, 3), (3,), (1,)]),
    (Call("RestorePadding", {}, [(5, 4), np.zeros((2, 3), INT)], [(0, 1)]), [(2, 3, 4)]),
    (Call("BitmaskDropout", {}, [(2, 3)], [(0, 0), (0, 1)]), [(2, 3)]),
    (Call("BitmaskBiasDropout", {}, [(2, 3), (3,), (2, 3)], [(0, 0), (0, 1)]), [(2, 3)]),
    (Call("BiasSplitGelu", {}, [(2, 3, 8), (8,)], [(0, 0), (0, 2), (1, 0)]), [(2, 3, 4)]),
    (Call("BiasAdd", {}, [(2, 3, 4), (4,), (2, 3, 4)], [(0, 0), (0, 2), (1, 0)]), [(2, 3, 4)]),
    (Call("MatMulNBitsMlp", {"K": 32, "N": 6, "bits": 4, "block_size": 16, "activation": "silu"}, [(3, 32), (3, 32), (32,), u8(6, 2, 8), scales(6, 2), (6,), u8(6, 2, 8), scales(6, 2), (6,)], [(0, 0), (3, 0), (6, 0)], 2), [(3, 6), (3, 32)]),
    (Call("MatMulNBitsQkv", {"K": 32, "Nq": 6, "Nkv": 4, "bits": 4, "block_size": 16}, [(3, 32), None, (32,), u8(6, 2, 8), scales(6, 2), None, u8(4, 2, 8), scales(4, 2), None, u8(4, 2, 8), scales(4, 2)], [(0, 0), (3, 0), (6, 0), (9, 0)], 3), [(3, 6), (3, 4), (3, 4)]),
    (Call("MatMulFpQ4", {}, [(3, 32), u8(160), np.array([32, 6])], [(0, 0)]), [(3, 6)]),
    (Call("ReduceSumInteger", {"axes": [1]}, [(2, 3)], [(0, 0), (0, 1)]), [(2, 1)]),
    (Call("MulInteger", {}, [(2, 3), None, (3,)], [(0, 0), (0, 1)]), [(2, 3)]),
    (Call("ReduceSumInteger", {"axes": [-2], "keepdims": 0}, [(2, 3, 4)], [(0, 0), (0, 1)]), [(2, 4)]),
    (Call("QLinearReduceMean", {"axes": [1, -1], "keepdims": 0}, [u8(2, 3, 4, 5), HALF, ZERO, HALF, ZERO], [(0, 0)]), [(2, 4)]),
    (Call("QLinearReduceMean", {"axes": [2, 3]}, [u8(2, 3, 4, 5), HALF, ZERO, HALF, ZERO], [(0, 0)]), [(2, 3, 1, 1)]),
    (Call("QLinearReduceMean", {}, [u8(2, 3), HALF, ZERO, HALF, ZERO], [(0, 0)]), [(1, 1)]),
    (Call("Attention", {"num_heads": 2, "past_present_share_buffer": 1}, [(2, 1, 6), (6, 24), (24,), None, (2, 2, 2, 5, 4), None, whole(2)], [(1, 0), (4, 2)], 2), [(2, 1, 8), (2, 2, 2, 5, 4)]),
    (Call("CausalConvWithState", {"ndim": 2, "dilation": 2}, [(2, 3, 5, 6), (3, 1, 3, 4)], [(0, 1)], 2), [(2, 3, 5, 6), (2, 3, 5, 6)]),
    (Call("BitmaskDropout", {}, [(20, 3)], [(0, 0)], 2), [(20, 3), (2,)]),
    (Call("BiasDropout", {}, [(2, 3), (3,)], [(0, 0)], 2), [(2, 3), (2, 3)]),
    (Call("IsAllFinite", {}, [(2, 3)], []), [()]),
]  # fmt: skip

# Calls that the rules do not follow: their outputs have shapes all the same.
OPAQUE = [
    (Call("MatMulBnb4", {"K": 32, "N": 16, "block_size": 16, "quant_type": 1, "transB": 0}, [(3, 16), u8(256), scales(32)], []), [(3, 32)]),
    (Call("LinearAttention", {"q_num_heads": 2, "kv_num_heads": 4, "update_rule": "linear", "state_window": 2}, [(2, 3, 8), (2, 3, 16), (2, 3, 24)], [], 2), [(2, 3, 24), (2, 2, 4, 4, 6)]),
    (Call("CausalConvWithState", {"state_window": 2}, [(2, 3, 5), (3, 1, 4)], [], 2), [(2, 3, 5), (2, 2, 3, 3)]),
    (Call("LinearAttention", {"q_num_heads": 2, "kv_num_heads": 2, "state_window": 3}, [(2, 3, 8)] * 3 + [(3, 2, 2, 4, 4)], [], 2), [(2, 3, 8), (3, 2, 2, 4, 4)]),
]  # fmt: skip


def title(call: Call) -> str:
    shapes = [x if isinstance(x, tuple) else np.shape(x) for x in call.inputs if x is not None]
    return f"{call.op} {call.attributes} {shapes}"


def case(call: Call, shapes: Sequence[tuple[int, ...]] = ()) -> Case:
    """The call as a network of its own, whose outputs have these shapes, or those that onnxruntime makes."""
    rng = np.random.default_rng(0)
    names = [f"in{i}" if x is not None else "" for i, x in enumerate(call.inputs)]
    values = {
        name: rng.normal(size=x).astype(np.float32) if isinstance(x, tuple) else np.asarray(x)
        for name, x in zip(names, call.inputs, strict=True)
        if x is not None
    }
    made = [np.empty(shape, np.float32) for shape in shapes]
    if not made:
        made = session(network(call, names, values, [None] * call.outputs)).run(None, values)
    return Case(title(call), network(call, names, values, made), values)


def network(call: Call, names: list[str], values: Arrays, results: Sequence[np.ndarray | None]) -> onnx.ModelProto:
    """A graph of one node, whose outputs have the types of `results`."""
    outputs = [f"out{i}" for i in range(call.outputs)]
    node = helper.make_node(call.op, names, outputs, domain="com.microsoft", **call.attributes)
    made = [
        info(n, y) if y is not None else helper.make_value_info(n, onnx.TypeProto())
        for n, y in zip(outputs, results, strict=True)
    ]
    graph = helper.make_graph([node], "contributed", [info(n, v) for n, v in values.items()], made)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    """The type of an array."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """The operator in onnxruntime, one thread and no rewriting."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def moved(made: Case) -> set[tuple[int, int]]:
    """(input, axis) that some permutation moves, every input being stored."""
    seen = examine_open(with_weights(made, list(made.inputs)))
    assert seen is not None
    assert not [step.reason for step in seen.program.steps if isinstance(step, Unknown) and step.opaque]
    leaves = {a.leaf for a in seen.actions if a.kind == "permutation"}
    return {
        (int(stored[2:]), axis)
        for name, stored in seen.program.weights.items()
        for axis, f in enumerate(seen.report.axes.of[name])
        if leaves & set(seen.report.factors.leaves(f))
    }


@pytest.mark.parametrize("index", range(len(CALLS)), ids=lambda k: f"{k} {CALLS[k].op}")
def test_what_is_claimed_commutes_with_the_operator(index):
    """f(g x) = g f(x) in onnxruntime for every claimed generator g."""
    made = case(CALLS[index])
    tried = 0
    for run_time_indices in (False, True):
        if run_time_indices and all(v.dtype.kind == "f" for v in made.inputs.values()):
            continue
        for kind, difference in attempts(made, run_time_indices=run_time_indices, judge=session):
            tried += 1
            assert difference < TOLERANCE, f"{made.name}: {kind} is off by {difference:.1e}"
    assert tried


@pytest.mark.parametrize("index", range(len(CALLS)), ids=lambda k: f"{k} {CALLS[k].op}")
def test_the_permutations_that_an_operator_has_are_found(index):
    """A rule does not pin what onnxruntime lets move."""
    assert not set(CALLS[index].free) - moved(case(CALLS[index]))


@pytest.mark.parametrize("index", range(len(ELSEWHERE)), ids=lambda k: f"{k} {ELSEWHERE[k][0].op}")
def test_the_permutations_of_operators_for_other_processors_are_found(index):
    """A rule covers its operator, makes its shapes and pins none of these axes."""
    call, shapes = ELSEWHERE[index]
    whole_numbers = {k for k, x in enumerate(call.inputs) if isinstance(x, np.ndarray) and x.dtype == np.uint8}
    missing = set(call.free) - moved(case(call, shapes))
    assert not {place for place in missing if place[0] not in whole_numbers}


def inferred(made: Case, folder: Path) -> list[tuple[str | None, tuple[int | None, ...]]]:
    """Element types and shapes that symlint gives the outputs; None for a size that only data tell."""
    model = with_weights(made, [name for name, v in made.inputs.items() if v.dtype.kind != "f"])
    for out in model.graph.output:
        out.ClearField("type")
    onnx.save(model, folder / "case.onnx")
    read = load(folder / "case.onnx")
    return [
        (read.dtypes.get(o), tuple(None if f"{o}[{k}]" in read.symbols else n for k, n in enumerate(read.shapes[o])))
        for o in read.graph.outputs
    ]


def matches(found: tuple[int | None, ...], made: Sequence[int]) -> bool:
    """Whether the sizes that are known are right."""
    return len(found) == len(made) and all(n in (None, m) for n, m in zip(found, made, strict=True))


@pytest.mark.parametrize("call", CALLS + SHAPED, ids=lambda call: call.op)
def test_shapes_are_those_that_onnxruntime_makes(call, tmp_path):
    """Shapes and element types, of which the file says nothing."""
    made = case(call)
    for out, (dtype, shape) in zip(made.model.graph.output, inferred(made, tmp_path), strict=True):
        kind = out.type.tensor_type
        assert matches(shape, [d.dim_value for d in kind.shape.dim])
        assert dtype == helper.tensor_dtype_to_np_dtype(kind.elem_type).name


@pytest.mark.parametrize(("call", "shapes"), ELSEWHERE + OPAQUE, ids=lambda x: getattr(x, "op", ""))
def test_shapes_of_operators_for_other_processors(call, shapes, tmp_path):
    """The shapes of the specification."""
    found = inferred(case(call, shapes), tmp_path)
    assert all(matches(a, b) for (_, a), b in zip(found, shapes, strict=True))


def test_every_operator_with_a_rule_has_a_shape_rule():
    """Behind an operator whose outputs have no shape nothing is understood."""
    assert not [name for name in operators() if name.startswith("com.microsoft.") and known(name).shape is None]


K32 = {"K": 32, "bits": 4, "block_size": 16}
COUNTED = [
    (Call("MatMulNBits", {**K32, "K": 40, "N": 6}, [(3, 40), u8(6, 3, 8), scales(6, 3), scales(6, 3), None, (6,)], []), {0: 120, 1: 240, 5: 6}),
    (Call("MatMulNBitsMlp", {**K32, "N": 6, "activation": "silu"}, [(3, 32), None, (32,), u8(6, 2, 8), scales(6, 2), (6,), u8(6, 2, 8), scales(6, 2), (6,)], []), {0: 96, 2: 32, 3: 192, 5: 6, 6: 192, 8: 6}),
    (Call("MatMulNBitsQkv", {**K32, "Nq": 6, "Nkv": 4}, [(3, 32), None, (32,), u8(6, 2, 8), scales(6, 2), None, u8(4, 2, 8), scales(4, 2), None, u8(4, 2, 8), scales(4, 2)], [], 3), {0: 96, 2: 32, 3: 192, 6: 128, 9: 128}),
    (Call("MatMulBnb4", {"K": 32, "N": 6, "block_size": 16, "quant_type": 1}, [(3, 32), u8(96), scales(12)], []), {0: 96, 1: 192}),
    (Call("MatMulFpQ4", {}, [(3, 32), u8(160), np.array([32, 6])], []), {0: 96, 1: 192}),
    (Call("GatherBlockQuantized", {"block_size": 16}, [u8(6, 16), np.array([1, 0]), scales(6, 2), u8(6, 1)], []), {0: 192}),
    (Call("GatherBlockQuantized", {"block_size": 16, "bits": 8}, [u8(6, 32), np.array([1, 0]), scales(6, 2)], []), {0: 192}),
    (Call("QMoE", {"k": 2}, [(5, 32), (5, 3), u8(3, 16, 16), scales(3, 16), (3, 16), u8(3, 32, 8), scales(3, 32), *[None] * 4, scales(3, 8), scales(3, 16)], []), {0: 160, 1: 15, 2: 1536, 4: 48, 5: 1536}),
    (Call("QMoE", {"k": 2, "expert_weight_bits": 8, "fc2_expert_weight_bits": 4}, [(5, 32), (5, 3), u8(3, 16, 32), scales(3, 16), None, u8(3, 32, 8), scales(3, 32)], []), {0: 160, 1: 15, 2: 1536, 5: 1536}),
    (Call("QEmbedLayerNormalization", {}, [np.array([[1, 2, 0]], INT), np.zeros((1, 3), INT), u8(5, 4), u8(6, 4), u8(2, 4), u8(4), u8(4), None, *[scales(1)] * 5, *[ZERO] * 5], [], 2), {2: 20, 3: 24, 4: 8, 5: 4, 6: 4}),
    (Call("DynamicQuantizeMatMul", {}, [(3, 4), u8(4, 5), scales(5), u8(5)], []), {0: 12, 1: 20}),
    (Call("MatMulIntegerToFloat", {}, [u8(3, 4), u8(4, 5), scales(1), scales(5), None, u8(5), (5,)], []), {1: 20, 6: 5}),
    (Call("QAttention", {"num_heads": 2}, [u8(2, 3, 6), u8(6, 24), (24,), scales(1), scales(24), None, ZERO, u8(24)], []), {1: 144, 2: 24}),
]  # fmt: skip


@pytest.mark.parametrize(("call", "sizes"), COUNTED, ids=lambda x: getattr(x, "op", ""))
def test_weights_are_counted_that_share_a_byte(call, sizes, tmp_path):
    """Weights and not bytes; their scales and zero points are no weights."""
    made = case(call, [(1,)] * call.outputs)
    onnx.save(with_weights(made, list(made.inputs)), tmp_path / "case.onnx")
    found = parameters(translate(load(tmp_path / "case.onnx")))
    assert found == {f"in{k}": n for k, n in sizes.items()}


def test_every_operator_with_a_rule_is_known_to_onnxruntime():
    """The names of the rules are those of onnxruntime's schemas."""
    schemas = {
        s.name for s in ort.capi.onnxruntime_pybind11_state.get_all_operator_schema() if s.domain == "com.microsoft"
    }
    rules = {name.rpartition(".")[2] for name in operators() if name.startswith("com.microsoft.")}
    assert rules - schemas <= set()
