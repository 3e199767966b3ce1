"""What a network's function says of directions in its weights, measured in float64 in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from symlint.symmetry.dimension import _generic, tangents
from symlint.symmetry.structure import Structure

Arrays = dict[str, np.ndarray]
STEP = 1e-5
COARSE = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
MOST = 200
"""Directions that are tried."""
TOLERANCE = 1e-5
"""How much less a symmetry may change outputs than a random direction of the same length does."""


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A network that onnxruntime runs as it stands, with one thread."""
    return opened(model.SerializeToString())


def opened(model: str | bytes, *, exact: bool = False) -> ort.InferenceSession:
    """The same of a file or its bytes, or one that sums bytes without saturating."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if exact:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Unmeasured(Exception):
    """A network that is not all in double precision, with the reason."""


class Function:
    """The outputs of a network as a function of its weights."""

    def __init__(self, model: onnx.ModelProto, feeds: Arrays) -> None:
        opened = onnx.ModelProto()
        opened.CopyFrom(model)
        free = [t for t in opened.graph.initializer if t.data_type == TensorProto.DOUBLE]
        opened.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in free)
        self.names = {t.name for t in free}
        self.session, self.feeds = session(opened), feeds

    def __call__(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        made = self.session.run(None, {**self.feeds, **{n: w for n, w in weights.items() if n in self.names}})
        return np.concatenate([np.ravel(y) for y in made])


def changing(structure: Structure, model: onnx.ModelProto, feeds: Arrays) -> tuple[int, float]:
    """How many directions are claimed, and how much the worst changes the outputs beside what a random one does.

    Outputs whose step crosses a kink are left out.
    """
    weights = _generic(structure, 0, positive=False)
    function = Function(model, feeds)
    names = sorted(weights)
    if not set(names) <= function.names:
        raise Unmeasured("weights in single precision")
    if any(a.name == "to" and a.i in COARSE for node in model.graph.node for a in node.attribute):
        raise Unmeasured("values in single precision")
    here, rng = function(weights), np.random.default_rng(0)

    def change(direction: np.ndarray) -> float:
        parts = np.split(direction / np.linalg.norm(direction), np.cumsum([weights[n].size for n in names])[:-1])
        step = {n: STEP * p.reshape(weights[n].shape) for n, p in zip(names, parts, strict=True)}
        ahead = function({n: weights[n] + step[n] for n in names})
        behind = function({n: weights[n] - step[n] for n in names})
        smooth = np.abs(ahead + behind - 2 * here) <= 1e-7 * STEP / 1e-5 * (1 + np.abs(here))
        slope = np.abs(ahead - behind)[smooth] / (2 * STEP) / (1 + np.abs(here[smooth]))
        return float(slope.max(initial=0))

    size = sum(w.size for w in weights.values())
    usual = np.median([change(rng.normal(size=size)) for _ in range(5)])
    rows = list(islice(tangents(structure), MOST))
    return len(rows), max((change(row) / max(usual, 1e-12) for row in rows), default=0.0)
