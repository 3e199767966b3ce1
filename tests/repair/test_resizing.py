"""Units go wherever an operator says sizes: in an attribute, in a tensor, in a list that is computed, or in none.

Each case is a layer of twelve units of which two are dead, what comes after it, and the layer that reads it. What
comes after may hold the units in several places: all of them are cut. Where that is not possible the reason is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from symlint.lint.rule import rules
from symlint.model.load import load
from symlint.repair.fixing import Wish, fix
from symlint.runtime.verify import same_function

RULES = [r for r in rules() if r.repair == "remove"]
UNITS, DEAD = 12, [3, 7]
Arrays = Mapping[str, object]


pytestmark = pytest.mark.usefixtures("no_clock")


def normal(*shape: int) -> np.ndarray:
    """Random weights, the same for the same shape."""
    return (np.random.default_rng([6, *shape]).normal(size=shape) / 2).astype(np.float32)


FLAT = "g (float[n, 5] x) => (float y) { a = Gemm(x, w, b) h = Relu(a) "
IMAGE = "g (float[n, 5, 6, 6] x) => (float y) { a = Conv(x, w, b) h = Relu(a) "
L = np.asarray

# name -> what follows the layer, other tensors, opset
FLATS: dict[str, tuple[str, Arrays, int]] = {
    "Reshape to one more axis": (
        'r = Reshape(h, s) y = Einsum<equation = "nuo,uk->nk">(r, v)',
        {"s": L([-1, 12, 1])},
        17,
    ),
    "Reshape of all": ("r = Reshape(h, s) y = MatMul(r, v)", {"s": L([-1, 12])}, 17),
    "Reshape that copies": ("r = Reshape(h, s) y = MatMul(r, v)", {"s": L([0, 12])}, 17),
    "Reshape that infers": ("r = Reshape(h, s) y = MatMul(r, v)", {"s": L([0, -1])}, 17),
    "Reshape to a computed list": (
        "f = Shape(h) r0 = Unsqueeze(h, one) r = Reshape(r0, f) y = MatMul(r, v)",
        {"one": L([1])},
        17,
    ),
    "Reshape to the parts of a list": (
        (
            "f = Shape(x) n = Gather(f, zero) m = Unsqueeze(n, zeros) l = Concat<axis = 0>(m, twelve) r = Reshape(h, l)"
            " y = MatMul(r, v)"
        ),
        {"zero": L(0), "zeros": L([0]), "twelve": L([12])},
        17,
    ),
    "Flatten": ("r = Unsqueeze(h, two) f = Flatten(r) y = MatMul(f, v)", {"two": L([2])}, 17),
    "Squeeze": ("r = Unsqueeze(h, one) f = Squeeze(r, one) y = MatMul(f, v)", {"one": L([1])}, 17),
    "Expand": (
        "r = Unsqueeze(h, two) e = Expand(r, s) m = ReduceMax<axes = [2], keepdims = 0>(e) y = MatMul(m, v)",
        {"two": L([2]), "s": L([1, 12, 3])},
        17,
    ),
    "Expand of a weight": ("e = Expand(g0, s) m = Mul(h, e) y = MatMul(m, v)", {"g0": normal(12), "s": L([1, 12])}, 17),
    "Split and Concat": (
        "p, q = Split<axis = 1>(h, s) c = Concat<axis = 1>(q, p) y = MatMul(c, v2)",
        {"s": L([8, 4])},
        17,
    ),
    "Split in halves": ("p, q = Split<axis = 1>(h) c = Concat<axis = 1>(q, p) y = MatMul(c, v3)", {}, 17),
    "Split by number": (
        "p, q = Split<axis = 1, num_outputs = 2>(h) c = Concat<axis = 1>(q, p) y = MatMul(c, v3)",
        {},
        18,
    ),
    "Split by attribute": (
        "p, q = Split<axis = 1, split = [8, 4]>(h) c = Concat<axis = 1>(q, p) y = MatMul(c, v2)",
        {},
        11,
    ),
    "Slice": (
        "p = Slice(h, s0, s8, one) q = Slice(h, s8, s12, one) c = Concat<axis = 1>(q, p) y = MatMul(c, v2)",
        {"s0": L([0]), "s8": L([8]), "s12": L([12]), "one": L([1])},
        17,
    ),
    "Slice by attributes": (
        (
            "p = Slice<axes = [1], starts = [0], ends = [8]>(h) q = Slice<axes = [1], starts = [8], ends = [99]>(h)"
            " c = Concat<axis = 1>(q, p) y = MatMul(c, v2)"
        ),
        {},
        9,
    ),
    "Slice from the end": (
        "p = Slice(h, s0, m4, one) q = Slice(h, m4, s12, one) c = Concat<axis = 1>(q, p) y = MatMul(c, v2)",
        {"s0": L([0]), "m4": L([-4]), "s12": L([1 << 60]), "one": L([1])},
        17,
    ),
    "Pad": ("p = Pad(h, s) y = MatMul(p, v5)", {"s": L([0, 1, 0, 2])}, 17),
    "Pad with axes": ("p = Pad(h, s, , one) y = MatMul(p, v5)", {"s": L([1, 2]), "one": L([1])}, 18),
    "Pad by attribute": ("p = Pad<pads = [0, 1, 0, 2]>(h) y = MatMul(p, v5)", {}, 9),
    "Pad of another axis": (
        "r = Unsqueeze(h, two) p = Pad(r, s) m = ReduceSum<keepdims = 0>(p, two) y = MatMul(m, v)",
        {"two": L([2]), "s": L([0, 0, 1, 0, 0, 1])},
        17,
    ),
    "Tile": ("t = Tile(h, s) y = MatMul(t, v6)", {"s": L([1, 2])}, 17),
    "ConstantOfShape": (
        "z = ConstantOfShape<value = float[1] {0.5}>(s) a2 = Mul(h, z) y = MatMul(a2, v)",
        {"s": L([1, 12])},
        17,
    ),
    "ConstantOfShape of the shape": (
        "s = Shape(h) z = ConstantOfShape<value = float[1] {0.5}>(s) a2 = Mul(h, z) y = MatMul(a2, v)",
        {},
        17,
    ),
    "Clip with a table": ("m = Min(h, z) y = MatMul(m, v)", {"z": np.full((1, 12), 0.7, np.float32)}, 17),
    "Gather": ("m = Gather<axis = 1>(h, i) y = MatMul(m, v4)", {"i": L([4, 2, 0, 1, 5, 3, 11, 10, 9, 8, 7, 6])}, 17),
    "Gather of some": ("m = Gather<axis = 1>(h, i) y = MatMul(m, v7)", {"i": L([0, 1, 2, 4, 5, 6, 8, 9, 10, 11])}, 17),
    "Compress": ("m = Compress<axis = 1>(h, c1) y = MatMul(m, v8)", {"c1": np.arange(12) != 5}, 17),
    "Concat with a table": (
        (
            "f = Shape(x) n = Slice(f, s0, one) l = Concat<axis = 0>(n, three) e = Expand(t0, l)"
            " c = Concat<axis = 1>(h, e)"
            " y = MatMul(c, v5)"
        ),
        {"t0": normal(1, 3), "s0": L([0]), "one": L([1]), "three": L([3])},
        17,
    ),
    "Concat with the input": ("c = Concat<axis = 1>(x, h) y = MatMul(c, v9)", {}, 17),
    "SplitToSequence": (
        (
            "q = SplitToSequence<axis = 1>(h, s) p0 = SequenceAt(q, zero) p1 = SequenceAt(q, uno)"
            " c = Concat<axis = 1>(p1, p0) y = MatMul(c, v2)"
        ),
        {"s": L([8, 4]), "zero": L(0), "uno": L(1)},
        17,
    ),
    "SplitToSequence by one size": (
        "q = SplitToSequence<axis = 1>(h, s) c = ConcatFromSequence<axis = 1>(q) y = MatMul(c, v)",
        {"s": L(6)},
        17,
    ),
    "SequenceConstruct": (
        "q = SequenceConstruct(h, h) c = ConcatFromSequence<axis = 1>(q) y = MatMul(c, v6)",
        {},
        17,
    ),
    "Shape that scales": (
        "s = Shape(h) d = Gather(s, uno) f = Cast<to = 1>(d) r = Sqrt(f) m = Div(h, r) y = MatMul(m, v)",
        {"uno": L(1)},
        17,
    ),
    "Concat with an empty tensor across": (
        (
            "e = Concat<axis = 1>(v, none) d = Concat<axis = 0>(nothing, t0, nothing) f = MatMul(h, e) i = Mul(h, d)"
            " j = MatMul(i, v) y = Add(f, j)"
        ),
        {"none": np.zeros((12, 0), np.float32), "nothing": np.zeros((0, 12), np.float32), "t0": normal(1, 12)},
        17,
    ),
    "Concat with an empty tensor": (
        "e = Concat<axis = 0>(v, none) y = MatMul(h, e)",
        {"none": np.zeros((0, 4), np.float32)},
        17,
    ),
    "Size of the input": (
        "s = Shape(x) f = Cast<to = 1>(s) r = ReduceSum<keepdims = 0>(f) m = Div(h, r) y = MatMul(m, v)",
        {},
        17,
    ),
    "PRelu": ("m = PRelu(h, p0) y = MatMul(m, v)", {"p0": normal(12)}, 17),
    "QuantizeLinear": (
        "q = QuantizeLinear<axis = 1>(h, s, z) m = DequantizeLinear<axis = 1>(q, s, z) y = MatMul(m, v)",
        {"s": np.full(12, 0.05, np.float32), "z": np.zeros(12, np.uint8)},
        17,
    ),
    "Range": (
        "s = Shape(h) d = Gather(s, uno) r = Range(zero, d, uno) m = Gather<axis = 1>(h, r) y = MatMul(m, v)",
        {"zero": L(0), "uno": L(1)},
        17,
    ),
    "ReduceMean": ("m = ReduceMean<axes = [1]>(h) y = Mul(m, one1)", {"one1": np.ones(1, np.float32)}, 17),
    "ReduceSum": ("m = ReduceSum(h, one) y = Mul(m, one1)", {"one": L([1]), "one1": np.ones(1, np.float32)}, 17),
}
IMAGES: dict[str, tuple[str, Arrays, int]] = {
    "Resize by scales": (
        'r = Resize<mode = "nearest">(h, , s) y = Conv(r, k)',
        {"s": np.asarray([1, 1, 2, 2], np.float32)},
        17,
    ),
    "Resize by sizes": ('r = Resize<mode = "nearest">(h, , , s) y = Conv(r, k)', {"s": L([1, 12, 9, 9])}, 17),
    "Resize with empty tensors": (
        'r = Resize<mode = "nearest">(h, e, e2, s) y = Conv(r, k)',
        {"e": np.zeros(0, np.float32), "e2": np.zeros(0, np.float32), "s": L([1, 12, 9, 9])},
        17,
    ),
    "Resize with an empty region": (
        'r = Resize<mode = "nearest">(h, e, s) y = Conv(r, k)',
        {"e": np.zeros(0, np.float32), "s": np.asarray([1, 1, 2, 2], np.float32)},
        17,
    ),
    "Resize by a computed list": (
        (
            "f = Shape(h) l = Slice(f, s0, s2) z = Concat<axis = 0>(l, nine)"
            ' r = Resize<mode = "nearest">(h, , , z) y = Conv(r, k)'
        ),
        {"s0": L([0]), "s2": L([2]), "nine": L([9, 9])},
        17,
    ),
    "Upsample": ('r = Upsample<mode = "nearest">(h, s) y = Conv(r, k)', {"s": np.asarray([1, 1, 2, 2], np.float32)}, 9),
    "depthwise Conv": (
        "r = Conv<group = 12, pads = [1, 1, 1, 1]>(h, d) y = Conv(r, k)",
        {"d": normal(12, 1, 3, 3)},
        17,
    ),
    "depthwise ConvTranspose": ("r = ConvTranspose<group = 12>(h, d) y = Conv(r, k)", {"d": normal(12, 1, 3, 3)}, 17),
    "ConvTranspose of a size": (
        "y = ConvTranspose<output_shape = [13, 13], strides = [2, 2]>(h, t)",
        {"t": normal(12, 4, 3, 3)},
        17,
    ),
    "BatchNormalization": (
        "r = BatchNormalization(h, g1, g2, g3, g4) y = Conv(r, k)",
        {
            "g1": normal(12),
            "g2": np.zeros(12, np.float32),
            "g3": np.zeros(12, np.float32),
            "g4": np.ones(12, np.float32),
        },
        17,
    ),
    "InstanceNormalization": (
        "r = InstanceNormalization(h, g1, g2) y = Conv(r, k)",
        {"g1": normal(12), "g2": np.zeros(12, np.float32)},
        17,
    ),
    "Pad of the image": ("r = Pad(h, s) y = Conv(r, k)", {"s": L([0, 0, 1, 1, 0, 0, 1, 1])}, 17),
    "MaxPool": ("r = MaxPool<kernel_shape = [2, 2]>(h) y = Conv(r, k)", {}, 17),
    "Flatten of an image": ("r = GlobalAveragePool(h) f = Flatten(r) y = MatMul(f, v)", {}, 17),
    "Flatten of places": (
        "r = MaxPool<kernel_shape = [3, 3], strides = [3, 3]>(h) f = Flatten(r) y = MatMul(f, v10)",
        {},
        17,
    ),
    "Reshape of places": ("f = Reshape(h, s) y = MatMul(f, v11)", {"s": L([-1, 432])}, 17),
    "Reshape to rows": (
        "f = Reshape(h, s) t = Transpose<perm = [0, 2, 1]>(f) y = MatMul(t, v)",
        {"s": L([0, 12, 36])},
        17,
    ),
    "SpaceToDepth": ("r = SpaceToDepth<blocksize = 2>(h) y = Conv(r, k48)", {"k48": normal(4, 48, 1, 1)}, 17),
    "shuffle": (
        "r = Reshape(h, s) t = Transpose<perm = [0, 2, 1, 3, 4]>(r) f = Reshape(t, s2) y = Conv(f, k)",
        {"s": L([0, 2, 6, 6, 6]), "s2": L([0, 12, 6, 6])},
        17,
    ),
    "CenterCropPad of all axes": ("r = CenterCropPad(h, s) y = Conv(r, k)", {"s": L([1, 12, 4, 8])}, 18),
    "DeformConv by channel": (
        "o = Conv(x, u) r = DeformConv<group = 12, pads = [1, 1, 1, 1]>(h, d, o) y = Conv(r, k)",
        {"d": normal(12, 1, 3, 3), "u": normal(18, 5, 1, 1)},
        19,
    ),
    "CenterCropPad": ("r = CenterCropPad<axes = [2, 3]>(h, s) y = Conv(r, k)", {"s": L([4, 8])}, 18),
    "ImageScaler": ("r = Add(h, t) y = Conv(r, k)", {"t": np.zeros((1, 12, 1, 1), np.float32)}, 17),
    "RoiAlign": (
        "r = RoiAlign<output_height = 2, output_width = 2>(h, rois, batch) y = Conv(r, k)",
        {"rois": np.asarray([[0, 0, 3, 3]], np.float32), "batch": L([0])},
        16,
    ),
    "GridSample": ("r = GridSample(h, grid) y = Conv(r, k)", {"grid": np.zeros((1, 3, 3, 2), np.float32)}, 16),
}
STAYS: dict[str, str] = {"ReduceMean": "an average or a normalisation counts them"}
"""What cannot be cut, and the reason that is told."""


def written(path: Path, name: str) -> Path:
    """The network of a case."""
    flat = name in FLATS
    text, more, opset = (FLATS if flat else IMAGES)[name]
    rng = {"v": (12, 4), "v2": (12, 4), "v3": (12, 4), "v4": (12, 4), "v5": (15, 4), "v6": (24, 4), "v7": (10, 4)}
    rng |= {"v8": (11, 4), "v9": (17, 4), "v10": (48, 4), "v11": (432, 4), "k": (4, 12, 1, 1)}
    weights = {"w": normal(5, UNITS) if flat else normal(UNITS, 5, 1, 1), "b": normal(UNITS)}
    weights["w"][(slice(None), DEAD) if flat else DEAD] = 0
    weights["b"][DEAD] = 0
    held = {key: normal(*shape) for key, shape in rng.items() if f"{key})" in text or f"({key}," in text}
    tensors = {**weights, **held, **more}
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {FLAT if flat else IMAGE} {text} }}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items())
    model = onnx.shape_inference.infer_shapes(model)
    onnx.save(model, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FLATS, *IMAGES])
def test_units_go_wherever_sizes_are_said(name, tmp_path):
    """Dead units of the layer are cut from every tensor, and the function is the same."""
    path = written(tmp_path / "m.onnx", name)
    fixed = fix(str(path), tmp_path, Wish(RULES))
    left = [one.reason for one in fixed.left]
    after = {t.name: list(t.dims) for t in onnx.load(fixed.path).graph.initializer}
    if name in STAYS:
        assert (left, after["b"]) == ([STAYS[name]], [UNITS])
        return
    assert after["b"] == [UNITS - len(DEAD)], left
    trial = same_function(load(str(path)), load(str(fixed.path)))
    assert trial.outcome == "held", trial
