"""The line between two networks, on data: the loss at points of it, and what batch normalisations see there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from symlint.comparison.alignment.align import Alignment, Line
from symlint.comparison.alignment.merge import averaged
from symlint.model.errors import UsageProblem
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.model.saving import write
from symlint.runtime.runner import run
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.motion.teleport import Moved

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the second network along the line."""
WHOLE = 1e-3
"""Outputs that are not negative and whose sum is this near to one are probabilities."""


@dataclass(frozen=True)
class Data:
    """What a network is tried on: its inputs, and what should come out."""

    inputs: Mapping[str, Array]
    labels: Array | None = None

    def renewed(self, weights: Weights, path: str) -> None:
        """Give every batch normalisation the mean and variance of what comes in, those before it first."""
        program = weights.structure.program
        with TemporaryDirectory(prefix="symlint-") as folder:
            for step in program.batch_norms:
                values = self._ran(weights, path, Path(folder), step.node.inputs[0]).astype(np.float64)
                across = tuple(axis for axis in range(values.ndim) if axis != 1)
                weights.put(step.mean, values.mean(axis=across))
                weights.put(step.var, values.var(axis=across))

    def loss(self, weights: Weights, path: str) -> float:
        """Cross-entropy where labels are classes, else the mean square of what is between outputs and labels."""
        assert self.labels is not None
        with TemporaryDirectory(prefix="symlint-") as folder:
            found = self._ran(weights, path, Path(folder)).astype(np.float64)
        return loss(found, self.labels)

    def _ran(self, weights: Weights, path: str, folder: Path, value: str | None = None) -> Array:
        """The first output, or another value."""
        draft = folder / "draft.onnx"
        write(path, Moved(weights, lifted=False), draft)
        if value is not None:
            model = onnx.load(str(draft), load_external_data=False)
            del model.graph.output[:]
            model.graph.output.append(onnx.ValueInfoProto(name=value))
            onnx.save(model, str(draft))
        (found,) = run([draft], self.inputs)
        if found.failure is not None:
            raise UsageProblem(f"{path}: does not run on what --input gives: {found.failure}")
        return found.outputs[0]


def loss(outputs: Array, labels: Array) -> float:
    """The loss of outputs beside labels. Raises UsageProblem where their shapes do not fit."""
    if labels.dtype.kind not in "iu":
        if labels.shape != outputs.shape:
            raise UsageProblem(f"labels have the shape {labels.shape}, and the first output {outputs.shape}")
        return float(np.mean(np.square(outputs - labels)))
    for axis in (-1, 1):
        if outputs.ndim > 1 and np.delete(outputs.shape, axis).tolist() == list(labels.shape):
            scores = np.moveaxis(outputs, axis, -1)
            break
    else:
        raise UsageProblem(f"classes have the shape {labels.shape}, and the first output {outputs.shape}")
    if not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[-1]:
        raise UsageProblem(f"there are classes from 0 to {scores.shape[-1] - 1}, and labels beyond")
    if (scores >= 0).all() and np.abs(scores.sum(axis=-1) - 1).max() < WHOLE:
        scores = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
    scores = scores - scores.max(axis=-1, keepdims=True)
    scores = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return float(-np.take_along_axis(scores, labels[..., None].astype(np.int64), axis=-1).mean())


def measured(found: Alignment, path: str, data: Data) -> Alignment:
    """With the losses along the line from the first network to the second as it was moved."""
    if found.pair is None or found.unrelated or data.labels is None:
        return found
    losses = []
    for point in POINTS:
        weights = averaged([found], 1 - point)
        if 0 < point < 1:
            data.renewed(weights, path)
        losses.append(data.loss(weights, path))
    return replace(found, line=Line(POINTS, tuple(losses)))
