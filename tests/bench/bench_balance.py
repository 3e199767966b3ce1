"""Measures what `balanced` gains for int8 per tensor: the error of quantised networks before and after.

    python tests/bench/bench_balance.py [MODELS] [--aim rounding|norm] [--seeds N] [--scatter S] [--torchvision]

Each network is folded by onnxruntime, quantised as it is and balanced (static, QDQ, per tensor, activations calibrated
for each file apart), and compared with the float network on other inputs: white and smooth noise. Rounding is a matter
of luck in small networks, so each seed draws its own calibration inputs and moves every scale at random by 2%, before
and after alike. The signal-to-noise ratio is the mean over outputs, in decibels, with the standard error over seeds;
6 dB are one bit. `weights` rounds weights only. `--scatter` first draws all scales log-uniformly within exp(+-S), the
uneven gauge in which training without normalisation may end; such rows are no measurement of a network as published.
`--torchvision` adds MobileNetV2 with ReLU for ReLU6, random weights and random statistics, folded and scattered.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from symlint.model.graph import Array, Model
from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.gauge.scales import Scales, balanced
from symlint.symmetry.inference import examine
from symlint.symmetry.structure import Structure

SHARED = Path(os.environ.get("SYMLINT_SHARED", Path(__file__).parents[3] / "shared"))
NAMES = (
    *("acasxu-6x50-matlab", "fsanet-headpose-var", "license-plate-rec", "marabou-cifar-base-kw", "mtcnn-onet"),
    *("mtcnn-rnet", "ppocr-cls-paddle", "selfie-segmentation", "superres-subpixel-cnn", "tinyhack-pizza-type-fp32"),
    *("ultraface-rfb-320", "ultraface-slim-320", "wml-cifar-classifier", "yunet-n-640", "yunet-s-320"),
)
LUCK = 0.02
Feed = dict[str, Array]


@dataclass(frozen=True)
class Score:
    """Signal-to-noise ratios in decibels, one per seed."""

    whole: list[float]
    weights: list[float]


class Bench:
    """One network in a folder of its own; onnxruntime runs here, in the child process of the script."""

    def __init__(self, path: Path, folder: Path, scatter: float) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(4)
        self.ort, self.folder, self.file = ort, folder, folder / "folded.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(self.file)
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if scatter:
            structure = examine(load(self.file))[1]
            scales = Scales(structure, rescalings(structure))
            logs = np.random.default_rng(5).uniform(-scatter, scatter, scales.count)
            scattered = folder / "scattered.onnx"
            write(self.file, stored(structure, scales.apply(logs)), scattered)
            self.file = scattered
        self.test = list(inputs(load(self.file), 10_000))
        self.expected = self.outputs(self.file, self.test)

    def outputs(self, path: Path, feeds: Sequence[Feed]) -> list[Array]:
        session = self.ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = [session.run(None, feed) for feed in feeds]
        dense = [k for k, y in enumerate(found[0]) if isinstance(y, np.ndarray) and y.dtype.kind == "f" and y.size]
        return [np.concatenate([row[k].ravel() for row in found]).astype(np.float64) for k in dense]

    def ratio(self, path: Path) -> float:
        """The mean signal-to-noise ratio of the outputs of another file, in decibels."""
        pairs = zip(self.expected, self.outputs(path, self.test), strict=True)
        parts = [((a - b) ** 2).sum() / (a**2).sum() for a, b in pairs if a.any()]
        return float(-10 * np.log10(np.maximum(parts, 1e-16)).mean())

    def score(self, path: Path, seeds: int) -> Score:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self, feeds: Iterator[Feed]) -> None:
                self.feeds = feeds

            def get_next(self) -> Feed | None:  # type: ignore[override]
                return next(self.feeds, None)

        model = load(path)
        structure = examine(model)[1]
        scales = Scales(structure, rescalings(structure))
        made = Score([], [])
        moved, whole, rounded = (self.folder / f"{n}.onnx" for n in ("moved", "whole", "rounded"))
        for seed in range(seeds):
            luck = np.random.default_rng(seed).normal(0, LUCK, scales.count)
            write(path, stored(structure, scales.apply(luck)), moved)
            quantize_static(
                *(str(moved), str(whole), Reader(inputs(model, 200 * seed))),
                quant_format=QuantFormat.QDQ,
                per_channel=False,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            made.whole.append(self.ratio(whole))
            round_weights(moved, rounded)
            made.weights.append(self.ratio(rounded))
        return made


def rescalings(structure: Structure) -> list[Any]:
    return [a for a in structure.actions.values() if a.kind == "rescaling"]


def stored(structure: Structure, values: dict[str, Array]) -> dict[str, Array]:
    tensors = structure.program.model.tensors
    return {n: np.broadcast_to(v, tensors[n].shape).astype(tensors[n].read().dtype) for n, v in values.items()}


def inputs(model: Model, seed: int) -> Iterator[Feed]:
    """Batches of white noise and, in turn, of images whose spectrum falls with the frequency; more of small ones."""
    largest = max(int(np.prod(model.shapes.get(name, ()))) for name in model.graph.inputs)
    for number in range(int(np.clip(200_000 // largest, 4, 96))):
        rng = np.random.default_rng(seed + number)
        feed: Feed = {}
        for name in model.graph.inputs:
            form, dtype = model.shapes.get(name, ()), model.dtypes.get(name, "float32")
            values = rng.standard_normal(form)
            if number % 2 and len(form) == 4:
                values = smooth(values, (2, 3) if form[1] <= form[3] else (1, 2))
            feed[name] = (rng.integers(0, 5, form) if "float" not in dtype else values).astype(dtype)
        yield feed


def smooth(values: Array, axes: tuple[int, int]) -> Array:
    lines = [np.fft.fftfreq(values.shape[axes[0]])[:, None], np.fft.rfftfreq(values.shape[axes[1]])[None, :]]
    length = np.hypot(*lines) + 1 / max(values.shape[k] for k in axes)
    form = [1] * 4
    form[axes[0]], form[axes[1]] = length.shape
    made = np.fft.irfftn(np.fft.rfftn(values, axes=axes) / length.reshape(form), [values.shape[k] for k in axes], axes)
    return np.asarray(made / made.std())


def round_weights(path: Path, out: Path) -> None:
    model = onnx.load(path)
    linear = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    names = {name for node in model.graph.node if node.op_type in linear for name in node.input[:2]}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            values = numpy_helper.to_array(tensor)
            step = np.abs(values).max() / 127 or 1
            tensor.CopyFrom(numpy_helper.from_array((np.round(values / step) * step).astype(values.dtype), tensor.name))
    onnx.save(model, out)


def mobilenet(path: Path) -> Path:
    """MobileNetV2 at 96 pixels with ReLU, so that all its channels may be scaled."""
    import torch
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    net = mobilenet_v2(num_classes=100).eval()
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU6):
                setattr(module, name, torch.nn.ReLU())
            if isinstance(child, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(child.weight, 0.5, 1.5)
                torch.nn.init.normal_(child.bias, 0, 0.2)
                child.running_var.copy_(torch.exp(0.5 * torch.randn_like(child.running_var)) * 0.05)
    torch.onnx.export(net, (torch.randn(1, 3, 96, 96),), path, dynamo=False)
    return path


def one(path: Path, aim: Any, seeds: int, scatter: float) -> dict[str, list[float]]:
    """The scores of one network, before and after."""
    with TemporaryDirectory() as folder:
        bench = Bench(path, Path(folder), scatter)
        after = Path(folder) / "balanced.onnx"
        write(bench.file, balanced(examine(load(bench.file))[1], aim), after)
        found = {"before": bench.score(bench.file, seeds), "after": bench.score(after, seeds)}
    return {f"{k} {part}": getattr(v, part) for k, v in found.items() for part in ("whole", "weights")}


def main() -> None:
    """Print a line per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, default=[SHARED / "models" / f"{n}.onnx" for n in NAMES])
    parser.add_argument("--aim", choices=["rounding", "norm"], default="rounding")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--scatter", type=float, default=0.0)
    parser.add_argument("--torchvision", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        print(json.dumps(one(args.models[0], args.aim, args.seeds, args.scatter)))
        return
    print(f"{'network':26} {'error %':>17} {'SQNR dB':>14} {'gain':>12} {'weights dB':>14} {'gain':>5}")
    with TemporaryDirectory() as folder:
        for path in [mobilenet(Path(folder) / "mobilenet_v2_relu.onnx")] if args.torchvision else args.models:
            options = ["--aim", args.aim, "--seeds", str(args.seeds), "--scatter", str(args.scatter)]
            command = [sys.executable, __file__, "--one", *options, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{path.stem[:26]:26} {(done.stderr.strip().splitlines() or ['died'])[-1][:90]}", flush=True)
                continue
            found = {k: np.array(v) for k, v in json.loads(done.stdout.splitlines()[-1]).items()}
            print(line(path.stem, found), flush=True)


def line(name: str, found: dict[str, Array]) -> str:
    before, after, first, then = (found[f"{k} {p}"] for p in ("whole", "weights") for k in ("before", "after"))
    errors = [100 * 10 ** (-x.mean() / 20) for x in (before, after)]
    gain, lighter = after - before, then.mean() - first.mean()
    spread = gain.std() / np.sqrt(len(gain))
    return (
        f"{name[:26]:26} {errors[0]:7.2f} > {errors[1]:7.2f} {before.mean():5.1f} > {after.mean():5.1f}"
        f" {gain.mean():+5.1f} ± {spread:3.1f} {first.mean():6.1f} > {then.mean():5.1f} {lighter:+5.1f}"
    )


if __name__ == "__main__":
    main()
