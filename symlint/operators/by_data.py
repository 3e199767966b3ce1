"""Operators whose results only data or chance tell, and those that depend on no value at all."""

from __future__ import annotations

from symlint.model.operators import enter, op
from symlint.program.lower import Ref, Tracer, Unsupported


@op(
    *("NonZero", "Unique", "NonMaxSuppression", "MaxUnpool", "Range", "TfIdfVectorizer", "com.microsoft.Unique"),
    *("com.microsoft.Range", "com.microsoft.NGramRepeatBlock", "com.microsoft.DynamicTimeWarping"),
    *("com.microsoft.BifurcationDetector", "com.microsoft.IsAllFinite"),
)
def by_data(t: Tracer, *inputs: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__NonZero.html"""
    raise Unsupported("positions that only data tell", opaque=False)


@op("com.microsoft.MurmurHash3", "StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "ImageDecoder")
def no_number(t: Tracer, *inputs: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__StringNormalizer.html"""
    raise Unsupported("it reads no numbers", opaque=False)


@op("Multinomial", "Bernoulli")
def random(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Bernoulli.html"""
    raise Unsupported("random numbers", opaque=False)


@op("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(t: Tracer, x: Ref, target: Ref, weights: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html"""
    raise Unsupported("targets given at run time", opaque=False)


enter(("Shape", "Size"), measures=True)


@op("RandomNormalLike", "RandomUniformLike", "EyeLike", "Shape", "Size", "SequenceLength")
def unrelated(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__RandomNormalLike.html"""
    return t.unknown([], [t.result()], "it depends on a shape alone", opaque=False)[0]


@op("RandomNormal", "RandomUniform")
def drawn(t: Tracer) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__RandomNormal.html"""
    return t.unknown([], [t.result()], "random numbers", opaque=False)[0]


@op("ConstantOfShape", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix")
def made(t: Tracer, *sizes: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html"""
    return t.unknown(sizes, [t.result()], "its length is known at run time", opaque=False)[0]
