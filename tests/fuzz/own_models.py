"""Small models of our own in which everything that a file can hold occurs, to be damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import networks
import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.parser import parse_model

FIXTURES = Path(__file__).parents[2] / "fixtures"
_HEAD = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1, "own": 1]>'


def _model(text: str, **weights: np.ndarray) -> ModelProto:
    model = parse_model(f"{_HEAD} {text}")
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    return model


def _drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def _eight(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(-127, 128, shape).astype(np.int8)


def perceptron() -> ModelProto:
    text = """own (float[batch, 8] x) => (float[batch, 3] y) {
        h = MatMul (x, w) b = Add (h, p) r = Relu (b) y = Gemm (r, v, q) }"""
    return _model(text, w=_drawn(8, 16), p=_drawn(16), v=_drawn(16, 3), q=_drawn(3))


def typed_fields() -> ModelProto:
    """Numbers in fields of their own types instead of raw bytes."""
    model = perceptron()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.ravel().tolist())
    return model


def branches() -> ModelProto:
    """If and Loop with weights in their bodies."""
    text = """own (float[batch, 8] x, bool c) => (float[batch, 8] y) {
        h = If (c) <
            then_branch = then () => (float[batch, 8] t) { t = MatMul (x, w) },
            else_branch = other () => (float[batch, 8] e) { f = MatMul (x, v) e = Relu (f) }
        >
        n = Constant <value = int64 {3}> ()
        y, z = Loop (n, c, h) <
            body = body (int64 i, bool d, float[batch, 8] a) => (bool k, float[batch, 8] o, float[batch, 8] s) {
                k = Identity (d) m = MatMul (a, u) o = Tanh (m) s = Identity (o) }
        > }"""
    return _model(text, w=_drawn(8, 8), v=_drawn(8, 8), u=_drawn(8, 8))


def functions() -> ModelProto:
    """A function that is called twice."""
    text = """own (float[batch, 8] x) => (float[batch, 4] y) {
        h = own.block (x, w) z = own.block (h, v) y = MatMul (z, u) }
        <domain: "own", opset_import: ["": 21]> block (a, m) => (b) { p = MatMul (a, m) b = Relu (p) }"""
    return _model(text, w=_drawn(8, 16), v=_drawn(16, 8), u=_drawn(8, 4))


def quantised() -> ModelProto:
    """Weights of eight and four bits, and a product of integers."""
    text = """own (float[batch, 8] x) => (float[batch, 4] y) {
        wd = DequantizeLinear <axis = 1> (w, ws, wz) h = MatMul (x, wd) r = Relu (h)
        vd = DequantizeLinear (v, vs) g = MatMul (r, vd) t = Relu (g)
        q, s, z = DynamicQuantizeLinear (t) i = MatMulInteger (q, u, z) f = Cast <to = 1> (i)
        k = Mul (s, us) y = Mul (f, k) }"""
    scales = np.abs(_drawn(16)) / 100
    given = {"ws": scales, "wz": np.zeros(16, np.int8), "vs": np.float32([0.01]), "us": np.float32([0.02])}
    model = _model(text, w=_eight(8, 16), u=_eight(8, 4), **given)
    four = helper.make_tensor("v", TensorProto.INT4, [16, 8], np.random.default_rng(4).integers(-8, 8, 128))
    model.graph.initializer.append(four)
    return model


def recurrent() -> ModelProto:
    """A quantised long short-term memory, and one that is not."""
    text = """own (float[time, 1, 6] x) => (float[time, 3] y) {
        a = com.microsoft.DynamicQuantizeLSTM <hidden_size = 5> (x, w, r, b, , , , , s, z, s, z)
        one = Constant <value = int64[1] {1}> () h = Squeeze (a, one)
        k = Constant <value = int64[1] {1}> () t = Unsqueeze (h, k)
        c, d, e = LSTM <hidden_size = 4> (t, w2, r2, b2) f = Squeeze (c, one) y = MatMul (f, v) }"""
    small = {"s": np.float32([0.01]), "z": np.zeros(1, np.int8), "v": _drawn(4, 3)}
    first = {"w": _eight(1, 6, 20), "r": _eight(1, 5, 20), "b": _drawn(1, 40)}
    return _model(text, w2=_drawn(1, 16, 5), r2=_drawn(1, 16, 4), b2=_drawn(1, 32), **small, **first)


def computed_shapes() -> ModelProto:
    """What exporters leave behind of shapes: constants that a reader folds."""
    text = """own (float[batch, 3, 8, 8] x) => (float[batch, 10] y) {
        c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b) n = BatchNormalization (c, g, h, m, v) r = Relu (n)
        s = Shape (r) zero = Constant <value = int64 {0}> () k = Gather (s, zero)
        ax = Constant <value = int64[1] {0}> ()
        u = Unsqueeze (k, ax) rest = Constant <value = int64[1] {-1}> () to = Concat <axis = 0> (u, rest)
        f = Reshape (r, to) p = MatMul (f, d)
        full = ConstantOfShape <value = float[1] {0.5}> (ten) a = Add (p, full)
        lo = Constant <value = int64 {0}> () hi = Constant <value = int64 {10}> () by = Constant <value = int64 {1}> ()
        index = Range (lo, hi, by) y = Gather <axis = 1> (a, index) }"""
    norms = {name: np.abs(_drawn(4)) + 0.1 for name in ("g", "h", "m", "v")}
    return _model(text, w=_drawn(4, 3, 3, 3), b=_drawn(4), d=_drawn(64, 10), ten=np.int64([10]), **norms)


def half() -> ModelProto:
    """In bfloat16 and float16."""
    text = """own (float16[batch, 8] x) => (bfloat16[batch, 4] y) {
        h = MatMul (x, w) r = Relu (h) c = Cast <to = 16> (r) y = MatMul (c, v) }"""
    model = _model(text, w=_drawn(8, 16).astype(np.float16))
    bits = (_drawn(16, 4).view(np.uint32) >> 16).astype(np.uint16)
    model.graph.initializer.add(name="v", dims=[16, 4], data_type=TensorProto.BFLOAT16, raw_data=bits.tobytes())
    return model


def words() -> ModelProto:
    """Strings and sequences beside what is learned."""
    text = """own (float[batch, 8] x) => (float[batch, 2] y, seq(float[batch, 4]) z) {
        h = MatMul (x, w) a, b = Split <axis = 1, num_outputs = 2> (h) z = SequenceConstruct (a, b)
        c = Relu (a) y = MatMul (c, v) }"""
    model = _model(text, w=_drawn(8, 8), v=_drawn(4, 2))
    model.graph.initializer.append(helper.make_tensor("labels", TensorProto.STRING, [2], [b"yes", b"no"]))
    return model


def large() -> ModelProto:
    """Weights large enough to stay in the file."""
    text = """own (float[batch, 32] x) => (float[batch, 32] y) {
        h = MatMul (x, w) r = Gelu (h) g = MatMul (r, v) y = Add (x, g) }"""
    return _model(text, w=_drawn(32, 200), v=_drawn(200, 32))


OWN: dict[str, Callable[[], ModelProto]] = {
    function.__name__: function
    for function in (
        perceptron, typed_fields, branches, functions, quantised, recurrent, computed_shapes, half, words, large
    )
}  # fmt: skip


def write_all(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """Write all, or those; in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in OWN.items():
        if not only or name in only:
            onnx.save(make(), folder / f"{name}.onnx")
    if not only:
        for name, net in networks.SMALL.items():
            stored = {n: v.astype(np.float32) for n, v in net.values().items()}
            onnx.save(net.model("float32", stored), folder / f"small-{name}.onnx")
        beside = folder / "beside.onnx"
        onnx.save(large(), beside, save_as_external_data=True, location="beside.onnx.data", size_threshold=0)
        for fixture in FIXTURES.glob("*.onnx"):
            (folder / fixture.name).write_bytes(fixture.read_bytes())
    return sorted(folder.glob("*.onnx"))
