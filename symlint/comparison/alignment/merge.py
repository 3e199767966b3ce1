"""Merging: averages of networks that were aligned with one of them.

The line between two networks, on data: the loss at points of it, and what batch normalisations see there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from symlint.comparison.alignment.align import Alignment, Line, align, averageable, proven
from symlint.model.errors import UsageProblem
from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.model.saving import write
from symlint.runtime.runner import run
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.motion.teleport import Moved


def merged(
    first: Model,
    others: Sequence[Model],
    share: float | None,
    output: Path,
    renew: Callable[[Weights, str], None] | None = None,
) -> tuple[Alignment, ...]:
    """Align networks with the first, prove each, and save an average in the layout of the second file.

    Args:
        first: stands still.
        others: are moved; several have the same tensors.
        share: of the first in the average of two; None where all count alike.
        output: where the average is saved, once all proofs have held.
        renew: gives the average, in the layout of a file, the statistics of its batch normalisations on data.

    What has no counterpart, and what is not a floating-point number, is that of the second file. Of the average nothing
    is claimed. Raises UsageProblem where several files store other tensors than the second.
    """
    found: list[Alignment] = []
    for other in others:
        one = align(first, other)
        one = one if others[1:] else averageable(one)
        found.append(one if one.unrelated else proven(one, other))
        if found[-1].exit_code:
            return tuple(found)
    part = 1 / (len(others) + 1) if share is None else share
    weights = averaged(found, part)
    if renew is not None:
        renew(weights, others[0].path)
    write(others[0].path, Moved(weights, lifted=False), output)
    return tuple(found)


def averaged(found: Sequence[Alignment], part: float) -> Weights:
    """The weights of an average, of which a part is that of the first network, in the layout of the second file.

    Raises UsageProblem where several files store other tensors than the second.
    """
    base = found[0].pair
    assert base is not None
    sums = {}
    for stored, name in base.uses.items():
        if not base.structure.program.model.tensors[stored].floating:
            continue
        sums[stored] = part * base.target.get(name)
        for one in found:
            pair = one.pair
            assert pair is not None
            use = pair.uses.get(stored)
            if use is None or pair.current.get(use).shape != sums[stored].shape:
                raise UsageProblem(
                    f"{one.second}: stores no {stored!r} as {found[0].second} does; several are merged"
                    " only from files of one exporter"
                )
            sums[stored] = sums[stored] + (1 - part) / len(found) * pair.current.get(use)
    weights = Weights(base.structure, base.current.start)
    weights.now = {**base.current.now, **{name: np.asarray(values) for name, values in sums.items()}}
    return weights


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
