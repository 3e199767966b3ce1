"""Quantised weights: which operators read them, and in what form."""

from __future__ import annotations

from symlint.model.operators import Quantised, enter

_LINEAR = Quantised((3,), (1, 2, 4, 5, 6, 7))
_QUANTISED = {
    "QuantizeLinear": Quantised((), (1, 2)),
    "com.microsoft.QuantizeLinear": Quantised((), (1, 2)),
    "DequantizeLinear": Quantised((0,), (1, 2)),
    "com.microsoft.DequantizeLinear": Quantised((0,), (1, 2)),
    "QLinearConv": _LINEAR,
    "com.microsoft.QLinearConv": _LINEAR,
    "QLinearMatMul": _LINEAR,
    "ConvInteger": Quantised((1,), (2, 3)),
    "MatMulInteger": Quantised((1,), (2, 3)),
    "com.microsoft.MatMulInteger16": Quantised((1,)),
    "com.microsoft.QGemm": Quantised((3,), (1, 2, 4, 5, 7, 8)),
    "com.microsoft.DynamicQuantizeMatMul": Quantised((1,), (2, 3)),
    "com.microsoft.MatMulIntegerToFloat": Quantised((1,), (2, 3, 4, 5)),
    "com.microsoft.DynamicQuantizeLSTM": Quantised((1, 2), (8, 9, 10, 11)),
    "com.microsoft.QAttention": Quantised((1,), (3, 4, 6, 7)),
    "com.microsoft.QEmbedLayerNormalization": Quantised((2, 3, 4, 5, 6), tuple(range(8, 18))),
    "com.microsoft.GatherBlockQuantized": Quantised((0,), (2, 3), bits=("bits",)),
    "com.microsoft.QMoE": Quantised(
        (2, 5, 8), (3, 6, 9, 11, 12, 13, *range(15, 21)), bits=tuple(f"fc{k}_expert_weight_bits" for k in (1, 2, 3))
    ),
    "com.microsoft.MatMulNBits": Quantised((1,), (2, 3), rows=("N",)),
    "com.microsoft.MatMulNBitsMlp": Quantised((3, 6), (4, 7), rows=("N", "N")),
    "com.microsoft.MatMulNBitsQkv": Quantised((3, 6, 9), (4, 7, 10), rows=("Nq", "Nkv", "Nkv")),
    "com.microsoft.MatMulBnb4": Quantised((1,), (2,), rows=("N",)),
    "com.microsoft.MatMulFpQ4": Quantised((1,), shape=2),
}
for _name, _how in _QUANTISED.items():
    enter((_name,), quantised=_how)
