"""Operators of ai.onnx.ml: numbers that are prepared for a network or taken from it by what its attributes store."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from symlint.model.operators import op
from symlint.program.functions import MixKind
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import CONSTANT, NONE


@op("ai.onnx.ml.Scaler")
def scaler(t: Tracer, x: Ref, *, offset: Sequence[float] = (), scale: Sequence[float] = ()) -> Ref:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_Scaler.html"""
    moved = t.add(x, _numbers(t, [-v for v in offset])) if offset else x
    return t.multiply(moved, _numbers(t, scale)) if scale else moved


def _numbers(t: Tracer, values: Sequence[float]) -> Ref:
    """One number for all features or one for each."""
    return t.constant(np.asarray(values, np.float32))


@op("ai.onnx.ml.Normalizer")
def normalizer(t: Tracer, x: Ref, *, norm: str = "MAX") -> Ref:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_Normalizer.html"""
    return t.normalise(x, [-1], law=CONSTANT, function="l2" if norm == "L2" else None)


@op("ai.onnx.ml.Imputer")
def imputer(
    t: Tracer, x: Ref, *, imputed_value_floats: Sequence[float] = (), imputed_value_int64s: Sequence[int] = ()
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_Imputer.html"""
    return t.pointwise(NONE, x, _numbers(t, imputed_value_floats or imputed_value_int64s))


@op("ai.onnx.ml.Binarizer")
def binarizer(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_Binarizer.html"""
    return t.apply(x, None, "Binarizer")


@op("ai.onnx.ml.ArrayFeatureExtractor")
def extractor(t: Tracer, x: Ref, indices: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_ArrayFeatureExtractor.html"""
    if indices.value is None or not indices.fixed:
        t.unknown([indices], [], "it is an index", opaque=False)
        return t.mix(x, [*range(x.rank - 1), None], MixKind.LOOKUP)
    return t.reshape(t.take(x, x.rank - 1, indices.value.reshape(-1)), t.result())


@op("ai.onnx.ml.FeatureVectorizer")
def vectorizer(t: Tracer, *inputs: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_FeatureVectorizer.html"""
    rows = t.result()[0]
    return t.concat([t.reshape(x, (rows, prod(x.shape) // rows)) for x in inputs if x is not None], 1)


@op("ai.onnx.ml.LinearRegressor")
def regressor(
    t: Tracer,
    x: Ref,
    *,
    coefficients: Sequence[float] = (),
    intercepts: Sequence[float] = (),
    targets: int = 1,
    post_transform: str = "NONE",
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_LinearRegressor.html"""
    table = np.reshape(np.asarray(coefficients, np.float32), (targets, -1))
    made = t.einsum("... k, m k -> ... m", x, t.constant(table))
    made = t.add(made, _numbers(t, intercepts)) if intercepts else made
    return made if post_transform == "NONE" else t.normalise(made, [-1])


@op(
    *("ai.onnx.ml.LinearClassifier", "ai.onnx.ml.SVMClassifier", "ai.onnx.ml.SVMRegressor"),
    *("ai.onnx.ml.TreeEnsembleClassifier", "ai.onnx.ml.TreeEnsembleRegressor", "ai.onnx.ml.TreeEnsemble"),
)
def fitted(t: Tracer, x: Ref) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html"""
    shapes = [shape for shape in t.results if shape is not None]
    return tuple(t.mix(x, [0, *[None] * (len(shape) - 1)], MixKind.MODEL, law=NONE, shape=shape) for shape in shapes)


@op(
    *("ai.onnx.ml.LabelEncoder", "ai.onnx.ml.CategoryMapper", "ai.onnx.ml.OneHotEncoder"),
    *("ai.onnx.ml.CastMap", "ai.onnx.ml.DictVectorizer", "ai.onnx.ml.ZipMap"),
)
def labelled(t: Tracer, *inputs: Ref | None) -> Any:
    """https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html"""
    raise Unsupported("labels and maps of them", opaque=False)
