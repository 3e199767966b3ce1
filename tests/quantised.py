"""Small networks in the quantised forms that onnxruntime's own tools write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

Form = Callable[[Path, Path], None]


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """A few random inputs."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(2)
        self.rows: Iterator[Mapping[str, np.ndarray]] = iter(
            [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(4)]
        )

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next input; None behind the last."""
        return next(self.rows, None)


def dynamic(kind: QuantType = QuantType.QInt8, *, per_channel: bool = False) -> Form:
    """Weights as integers, activations on a grid that a run decides."""

    def make(source: Path, target: Path) -> None:
        logging.disable(logging.WARNING)
        quantize_dynamic(source, target, weight_type=kind, per_channel=per_channel)

    return make


def static(layout: QuantFormat, *, per_channel: bool = False, symmetric: bool = True) -> Form:
    """Weights and activations on fixed grids."""

    def make(source: Path, target: Path) -> None:
        logging.disable(logging.WARNING)
        shape = [d.dim_value or 2 for d in onnx.load(source).graph.input[0].type.tensor_type.shape.dim]
        quantize_static(
            source,
            target,
            Calibration(tuple(shape)),
            quant_format=layout,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            extra_options={"WeightSymmetric": symmetric},
        )

    return make


def blocks(bits: int = 4, *, symmetric: bool = True) -> Form:
    """Weights of matrices in blocks of few bits."""

    def make(source: Path, target: Path) -> None:
        logging.disable(logging.WARNING)
        quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16, is_symmetric=symmetric, bits=bits)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))

    return make


MATRIX: dict[str, Form] = {
    "dynamic": dynamic(),
    "dynamic unsigned": dynamic(QuantType.QUInt8),
    "dynamic by channel": dynamic(per_channel=True),
    "pairs": static(QuantFormat.QDQ),
    "pairs by channel": static(QuantFormat.QDQ, per_channel=True),
    "pairs asymmetric": static(QuantFormat.QDQ, symmetric=False),
    "operators": static(QuantFormat.QOperator),
    "operators by channel": static(QuantFormat.QOperator, per_channel=True),
    "blocks": blocks(),
    "blocks asymmetric": blocks(symmetric=False),
    "blocks of 8 bits": blocks(8),
}
KERNELS = {name: form for name, form in MATRIX.items() if "blocks" not in name}
