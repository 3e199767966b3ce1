"""Small networks as exporters write them, each with one or two mechanisms of continuous symmetry.

The number at the end of each counts the directions in which its parameters can move without a change of its function:
parameters less the rank of the Jacobian.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_graph

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


@dataclass
class Net:
    """A small network with the output y."""

    text: str
    """Nodes in ONNX's own notation."""
    weights: Shapes
    """All parameters, drawn at random."""
    inputs: Shapes
    """Floating inputs, without the batch."""
    rank: int
    """Number of axes of the output."""
    dimension: int
    """How many directions of continuous symmetry there are."""
    constants: dict[str, object] = field(default_factory=dict)
    """What an exporter stores besides: shapes, indices, masks, numbers."""
    indices: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Integer inputs, without the batch; the first number is the length of the table that they look up."""
    fixed: Arrays = field(default_factory=dict)
    """Parameters that keep the values with which an exporter writes them."""

    @property
    def nodes(self) -> Iterable[onnx.NodeProto]:
        return parse_graph(f"small () => () {{ {self.text} }}").node

    @property
    def statistics(self) -> set[str]:
        """Running means and variances, which are no parameters."""
        return {name for n in self.nodes if n.op_type == "BatchNormalization" for name in n.input[3:5]}

    def values(self, seed: int = 11) -> Arrays:
        """Random weights; a variance is positive."""
        rng = np.random.default_rng(seed)
        positive = {n.input[4] for n in self.nodes if n.op_type == "BatchNormalization"}
        drawn = {n: 0.3 + rng.normal(size=s) for n, s in self.weights.items()}
        drawn = {n: np.exp(v) if n in positive else v for n, v in drawn.items()}
        return {**drawn, **{n: np.array(v, np.float64) for n, v in self.fixed.items()}}

    def feeds(self, batch: int) -> Arrays:
        """Random inputs, each example with a scale and an offset of its own."""
        rng = np.random.default_rng(5)
        made: Arrays = {n: rng.integers(0, s[0], (batch, *s[1:])) for n, s in self.indices.items()}
        for name, shape in self.inputs.items():
            each = (batch, *[1] * len(shape))
            made[name] = rng.normal(size=(batch, *shape)) * np.exp(0.7 * rng.normal(size=each))
            made[name] += 0.7 * rng.normal(size=each)
        return made

    def model(self, dtype: str, stored: Arrays) -> onnx.ModelProto:
        """The network; what is not stored is an input."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        shapes = {**self.weights, **{n: v.shape for n, v in self.fixed.items()}}
        infos = [helper.make_tensor_value_info(n, kind, ["batch", *s]) for n, s in self.inputs.items()]
        infos += [
            helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", *s[1:]]) for n, s in self.indices.items()
        ]
        infos += [helper.make_tensor_value_info(n, kind, s) for n, s in shapes.items() if n not in stored]
        kept = {**{n: np.asarray(v) for n, v in self.constants.items()}, **stored}
        tensors = [numpy_helper.from_array(v.astype(dtype) if v.dtype.kind == "f" else v, n) for n, v in kept.items()]
        y = helper.make_tensor_value_info("y", kind, [None] * self.rank)
        nodes = list(self.nodes)
        for attribute in (a for n in nodes if n.op_type == "Cast" for a in n.attribute):
            attribute.i = kind
        graph = helper.make_graph(nodes, "small", infos, [y], tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def two(op: str, dimension: int = 0) -> Net:
    """A perceptron."""
    return Net(
        f"u = Gemm(x, a, p) v = {op}(u) y = Gemm(v, b, q)",
        {"a": (3, 5), "p": (5,), "b": (5, 2), "q": (2,)},
        {"x": (3,)},
        2,
        dimension,
    )


def heads(*names: str) -> str:
    """Heads of their own for what projections made, as batch, head, token, dimension."""
    return " ".join(f"{n}_4 = Reshape({n}, split) {n}_h = Transpose<perm = [0, 2, 1, 3]>({n}_4)" for n in names)


def attend(before: str = "", scores: str = "s", keys: str = "k_h", values: str = "v_h") -> str:
    """Attention over heads; nodes that come before the softmax make of the raw scores s what it reads."""
    return f"""
        t = Transpose<perm = [0, 1, 3, 2]>({keys}) raw = MatMul(q_h, t) s = Div(raw, root) {before}
        p = Softmax<axis = -1>({scores}) c = MatMul(p, {values})
        m = Transpose<perm = [0, 2, 1, 3]>(c) f = Reshape(m, flat)
    """


def norm(x: str, y: str, gain: str = "g", shift: str = "h") -> str:
    """Layer normalisation, with an epsilon that matters."""
    return f"{y} = LayerNormalization<axis = -1, epsilon = 0.1>({x}, {gain}, {shift})"


def rms(x: str, y: str, gain: str = "g") -> str:
    """Root-mean-square normalisation as exporters write it out."""
    return f"""
        {y}_2 = Pow({x}, two) {y}_m = ReduceMean<axes = [-1], keepdims = 1>({y}_2) {y}_e = Add({y}_m, epsilon)
        {y}_s = Sqrt({y}_e) {y}_r = Reciprocal({y}_s) {y}_n = Mul({x}, {y}_r) {y} = Mul({gain}, {y}_n)
    """


def halves(x: str) -> str:
    """Rotary embedding of two halves, with the cosines co and the sines si."""
    return f"""
        {x}_1, {x}_2 = Split<axis = -1>({x}, half) {x}_3 = Neg({x}_2) {x}_4 = Concat<axis = -1>({x}_3, {x}_1)
        {x}_5 = Mul({x}, co) {x}_6 = Mul({x}_4, si) {x}_y = Add({x}_5, {x}_6)
    """


def interleaved(x: str) -> str:
    """Rotary embedding of neighbours, with the cosines co and the sines si."""
    return f"""
        {x}_e = Slice({x}, even, end, last, two) {x}_o = Slice({x}, odd, end, last, two)
        {x}_1 = Mul({x}_e, co) {x}_2 = Mul({x}_o, si) {x}_3 = Sub({x}_1, {x}_2)
        {x}_4 = Mul({x}_o, co) {x}_5 = Mul({x}_e, si) {x}_6 = Add({x}_4, {x}_5)
        {x}_7 = Unsqueeze({x}_3, last) {x}_8 = Unsqueeze({x}_6, last) {x}_9 = Concat<axis = -1>({x}_7, {x}_8)
        {x}_y = Reshape({x}_9, flat)
    """


HEADS = {"split": [0, 0, 2, 2], "root": 1.5, "flat": [0, 0, 4]}
"""Two heads of two."""
RMS = {"two": 2.0, "epsilon": 0.1}
CAUSAL = {"mask": np.tril(np.ones((3, 3), bool)), "nought": 0.0, "never": -1e9}

ELEMENTWISE = {
    "relu": two("Relu", 5),
    "leaky_relu": two("LeakyRelu<alpha = 0.3>", 5),
    "tanh": two("Tanh"),
    "gelu_like": two("Softplus"),
    "residual_relu": Net(
        """
        s = MatMul(x, a) t = Relu(s) u = MatMul(t, b) v = Relu(u) w = MatMul(v, c) r = Add(t, w) z = Relu(r)
        y = MatMul(z, d)
        """,
        {"a": (3, 4), "b": (4, 5), "c": (5, 4), "d": (4, 2)},
        {"x": (3,)},
        2,
        9,
    ),
    "gated": Net(
        "u = MatMul(x, a) v = MatMul(x, b) g = Sigmoid(u) m = Mul(g, v) y = MatMul(m, c)",
        {"a": (3, 4), "b": (3, 4), "c": (4, 2)},
        {"x": (3,)},
        2,
        4,
    ),
    "prelu": Net(
        "u = MatMul(x, a) v = PRelu(u, s) y = MatMul(v, b)", {"a": (3, 4), "s": (4,), "b": (4, 2)}, {"x": (3,)}, 2, 4
    ),
    "embedding": Net(
        "u = Gather(e, x) v = Relu(u) y = MatMul(v, b)",
        {"e": (6, 3), "b": (3, 4)},
        {},
        3,
        3,
        indices={"x": (6, 2)},
    ),
    "split_gate": Net(
        "u = MatMul(x, a) l, r = Split<axis = 1>(u, sizes) g = Relu(l) m = Mul(g, r) y = MatMul(m, c)",
        {"a": (3, 8), "c": (4, 2)},
        {"x": (3,)},
        2,
        8,
        {"sizes": [4, 4]},
    ),
    "concat": Net(
        "u = MatMul(x, a) v = MatMul(x, b) w = Concat<axis = 1>(u, v) z = Relu(w) y = MatMul(z, c)",
        {"a": (3, 4), "b": (3, 2), "c": (6, 2)},
        {"x": (3,)},
        2,
        6,
    ),
    "glu": Net(  # what passes the gate against the reader
        """
        u = Gemm<transB = 1>(x, a, p) l, r = Split<axis = -1>(u, sizes) g = Sigmoid(r) m = Mul(l, g) y = Gemm(m, c, q)
        """,
        {"a": (8, 3), "p": (8,), "c": (4, 2), "q": (2,)},
        {"x": (3,)},
        2,
        4,
        {"sizes": [4, 4]},
    ),
    "swiglu": Net(  # up against down
        "u = MatMul(x, a) s = Sigmoid(u) g = Mul(u, s) v = MatMul(x, b) m = Mul(g, v) y = MatMul(m, c)",
        {"a": (3, 4), "b": (3, 4), "c": (4, 2)},
        {"x": (2, 3)},
        3,
        4,
    ),
    "prelu_conv": Net(  # a slope per channel lets a channel's scale through
        "u = Conv(x, a, p) v = PRelu(u, s) y = Conv(v, b, q)",
        {"a": (3, 2, 2), "p": (3,), "s": (3, 1), "b": (2, 3, 1), "q": (2,)},
        {"x": (2, 4)},
        3,
        3,
    ),
    "squeeze_excite": Net(  # a channel's scale: out of the squeeze and out of the reader
        """
        u = Conv(x, a, p) g = GlobalAveragePool(u) w = Conv(g, b, q) t = Tanh(w) v = Conv(t, c, r) s = Sigmoid(v)
        m = Mul(u, s) y = Conv(m, d)
        """,
        {"a": (3, 2, 2), "p": (3,), "b": (2, 3, 1), "q": (2,), "c": (3, 2, 1), "r": (3,), "d": (2, 3, 1)},
        {"x": (2, 4)},
        3,
        3,
    ),
    "router": Net(  # the shift of the logits, 4; up against down in every expert, 6
        """
        l = Gemm(x, r, rb) w = Softmax<axis = -1>(l) z = Unsqueeze(x, front) u = MatMul(z, a) t = Tanh(u)
        v = MatMul(z, b) m = Mul(t, v) e = MatMul(m, c) k = Transpose<perm = [1, 0]>(w) s = Unsqueeze(k, last)
        n = Mul(e, s) y = ReduceSum<keepdims = 0>(n, front)
        """,
        {"r": (3, 3), "rb": (3,), "a": (3, 3, 2), "b": (3, 3, 2), "c": (3, 2, 2)},
        {"x": (3,)},
        2,
        10,
        {"front": [0], "last": [-1]},
    ),
    "square": Net(  # a unit's scale, squared
        "u = Gemm(x, a, p) m = Mul(u, u) y = Gemm(m, b, q)",
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,)},
        {"x": (3,)},
        2,
        4,
    ),
    "exponential": Net(  # a unit's bias is a factor, which the reader takes
        "t = Tanh(x) u = Gemm(t, a, p) m = Exp(u) y = Gemm(m, b, q)",
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,)},
        {"x": (3,)},
        2,
        4,
    ),
    "hadamard": Net(  # both sides of a product against the reader
        "u = MatMul(x, a) v = MatMul(z, b) m = Mul(u, v) y = MatMul(m, c)",
        {"a": (4, 3), "b": (3, 3), "c": (3, 4)},
        {"x": (4,), "z": (3,)},
        2,
        6,
    ),
    "film": Net(  # the scale and shift that a second input gives, against the reader, 4; the shift's bias, 4
        """
        u = Gemm(x, a, p) t = Tanh(u) k = Gemm(z, b, q) l = Gemm(z, c, r) m = Mul(t, k) n = Add(m, l) y = Gemm(n, d, s)
        """,
        {
            "a": (3, 4),
            "p": (4,),
            "b": (2, 4),
            "q": (4,),
            "c": (2, 4),
            "r": (4,),
            "d": (4, 5),
            "s": (5,),
        },
        {"x": (3,), "z": (2,)},
        2,
        8,
    ),
    "temperature": Net(  # the temperature against the head, 1; the shift of the logits, 5
        "u = Gemm(x, a, p) t = Tanh(u) l = Gemm(t, b, q) m = Div(l, s) y = Softmax<axis = -1>(m)",
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,), "s": (1,)},
        {"x": (3,)},
        2,
        6,
    ),
    "layer_scale": Net(  # the scale of a branch against its last weights and bias
        "u = Gemm(x, a, p) t = Tanh(u) v = Gemm(t, b, q) w = Mul(g, v) r = Add(x, w) z = Tanh(r) y = Gemm(z, c, s)",
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,), "g": (3,), "c": (3, 2), "s": (2,)},
        {"x": (3,)},
        2,
        3,
    ),
}

ATTENTION = {
    "attention": Net(  # GL(2) between query and key, and between value and output
        """
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, t)
        p = Softmax<axis = -1>(s) c = MatMul(p, v) y = MatMul(c, wo)
        """,
        {"wq": (4, 2), "wk": (4, 2), "wv": (4, 2), "wo": (2, 4)},
        {"x": (3, 4)},
        3,
        8,
    ),
    "qkv_split": Net(  # GL(2) twice per head, 16; the key bias, 4; the value bias into the output's, 4
        f"""
        w = MatMul(x, wi) u = Add(bi, w) q, k, v = Split<axis = -1>(u, three) {heads("q", "k", "v")} {attend()}
        o = MatMul(f, wo) y = Add(bo, o)
        """,
        {"wi": (4, 12), "bi": (12,), "wo": (4, 4), "bo": (4,)},
        {"x": (3, 4)},
        3,
        24,
        {**HEADS, "three": [4, 4, 4]},
    ),
    "qkv_gather": Net(  # as qkv_split, with a causal mask
        f"""
        w = MatMul(x, wi) u = Add(w, bi) n = Reshape(u, five) e = Transpose<perm = [2, 0, 3, 1, 4]>(n)
        q_h = Gather<axis = 0>(e, zero) k_h = Gather<axis = 0>(e, one) v_h = Gather<axis = 0>(e, two)
        {attend("hide = Where(mask, nought, never) z = Add(s, hide)", "z")} o = MatMul(f, wo) y = Add(o, bo)
        """,
        {"wi": (4, 12), "bi": (12,), "wo": (4, 3), "bo": (3,)},
        {"x": (3, 4)},
        3,
        24,
        {**HEADS, "five": [0, 0, 3, 2, 2], "zero": 0, "one": 1, "two": 2, **CAUSAL},
    ),
    "cross_attention": Net(  # GL(2) twice, 8; the key bias, 2; the value bias into the output's, 2
        """
        qw = MatMul(x, wq) q = Add(qw, bq) kw = MatMul(z, wk) k = Add(kw, bk) vw = MatMul(z, wv) v = Add(vw, bv)
        t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, t) r = Mul(s, root) p = Softmax<axis = -1>(r)
        c = MatMul(p, v) o = MatMul(c, wo) y = Add(o, bo)
        """,
        {"wq": (4, 2), "bq": (2,), "wk": (3, 2), "bk": (2,), "wv": (3, 2), "bv": (2,), "wo": (2, 3), "bo": (3,)},
        {"x": (2, 4), "z": (3, 3)},
        3,
        12,
        {"root": 0.7},
    ),
    "multi_query": Net(  # one GL(2) between all queries and the key, one between the value and all outputs
        f"""
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) {heads("q")} k_h = Unsqueeze(k, one)
        v_h = Unsqueeze(v, one) {attend()} y = MatMul(f, wo)
        """,
        {"wq": (4, 4), "wk": (4, 2), "wv": (4, 2), "wo": (4, 3)},
        {"x": (3, 4)},
        3,
        8,
        {**HEADS, "one": [1]},
    ),
    "grouped_query": Net(  # GL(2) for each of two keys and of two values, 16; the key bias, 4
        f"""
        q = MatMul(x, wq) kw = MatMul(x, wk) k = Add(kw, bk) v = MatMul(x, wv)
        q_4 = Reshape(q, four) q_h = Transpose<perm = [0, 2, 1, 3]>(q_4) {heads("k", "v")}
        k_5 = Unsqueeze(k_h, behind) k_e = Expand(k_5, wide) k_g = Reshape(k_e, merged)
        v_5 = Unsqueeze(v_h, behind) v_e = Expand(v_5, wide) v_g = Reshape(v_e, merged)
        {attend("z = Where(mask, s, never)", "z", keys="k_g", values="v_g")} y = MatMul(f, wo)
        """,
        {"wq": (4, 8), "wk": (4, 4), "bk": (4,), "wv": (4, 4), "wo": (8, 3)},
        {"x": (3, 4)},
        3,
        20,
        {
            "split": [0, 0, 2, 2],
            "four": [0, 0, 4, 2],
            "root": 1.5,
            "flat": [0, 0, 8],
            "behind": [2],
            "wide": [1, 1, 2, 1, 1],
            "merged": [-1, 4, 3, 2],
            **CAUSAL,
        },
    ),
    "alibi": Net(  # GL(2) twice per head; the slopes stay
        f"""
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) {heads("q", "k", "v")}
        far = Cast<to = 1>(distance) table = Mul(slopes, far) {attend("z = Add(s, table)", "z")} y = MatMul(f, wo)
        """,
        {"wq": (3, 4), "wk": (3, 4), "wv": (3, 4), "slopes": (2, 1, 1), "wo": (4, 3)},
        {"x": (4, 3)},
        3,
        16,
        {**HEADS, "distance": -np.abs(np.subtract.outer(np.arange(4), np.arange(4)))},
    ),
    "relative_bias": Net(  # GL(2) twice per head, 16; a shift of each head's table, 2
        f"""
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) {heads("q", "k", "v")}
        rows = Gather<axis = 0>(table, places) seen = Transpose<perm = [2, 0, 1]>(rows) shown = Unsqueeze(seen, first)
        {attend("z = Add(s, shown)", "z")} y = MatMul(f, wo)
        """,
        {"wq": (3, 4), "wk": (3, 4), "wv": (3, 4), "table": (5, 2), "wo": (4, 3)},
        {"x": (3, 3)},
        3,
        18,
        {**HEADS, "places": np.subtract.outer(np.arange(3), np.arange(3)) + 2, "first": [0]},
    ),
    "rotary_half": Net(  # query against key: rotation and scale of each of two planes, 4; value and output: GL(2), 4
        f"""
        n = Cast<to = 1>(places) e = Mul(n, frequencies) ee = Concat<axis = -1>(e, e) co = Cos(ee) si = Sin(ee)
        q = MatMul(x, wq) {halves("q")} k = MatMul(x, wk) {halves("k")} v = MatMul(x, wv)
        t = Transpose<perm = [0, 2, 1]>(k_y) s = MatMul(q_y, t) r = Div(s, root) p = Softmax<axis = -1>(r)
        c = MatMul(p, v) y = MatMul(c, wo)
        """,
        {"wq": (5, 4), "wk": (5, 4), "wv": (5, 2), "frequencies": (2,), "wo": (2, 3)},
        {"x": (3, 5)},
        3,
        8,
        {"places": [[0], [1], [2]], "half": [2, 2], "root": 2.0},
    ),
    "rotary_interleaved": Net(  # as rotary_half; a key bias stays, since every place turns it in a way of its own
        f"""
        n = Cast<to = 1>(places) e = Mul(n, frequencies) co = Cos(e) si = Sin(e)
        qw = MatMul(x, wq) q = Add(qw, bq) {interleaved("q")} kw = MatMul(x, wk) k = Add(kw, bk) {interleaved("k")}
        v = MatMul(x, wv) t = Transpose<perm = [0, 2, 1]>(k_y) s = MatMul(q_y, t) r = Div(s, root)
        p = Softmax<axis = -1>(r) c = MatMul(p, v) y = MatMul(c, wo)
        """,
        {"wq": (4, 4), "bq": (4,), "wk": (4, 4), "bk": (4,), "wv": (4, 2), "frequencies": (2,), "wo": (2, 4)},
        {"x": (3, 4)},
        3,
        8,
        {
            "places": [[0], [1], [2]],
            "even": [0],
            "odd": [1],
            "end": [2**31 - 1],
            "last": [-1],
            "two": [2],
            "flat": [0, 0, 4],
            "root": 2.0,
        },
    ),
    "linear_attention": Net(  # GL(2) twice, 8; the scale of query and key against value and output, 1
        """
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, t)
        r = Div(s, root) c = MatMul(r, v) y = MatMul(c, wo)
        """,
        {"wq": (3, 2), "wk": (3, 2), "wv": (3, 2), "wo": (2, 3)},
        {"x": (3, 3)},
        3,
        9,
        {"root": 1.5},
    ),
    "learned_query": Net(  # all but the 3 numbers of the scores, 5; key bias 2; GL(2) 4; value bias 2
        """
        kw = MatMul(x, wk) k = Add(kw, bk) vw = MatMul(x, wv) v = Add(vw, bv) t = Transpose<perm = [0, 2, 1]>(k)
        s = MatMul(query, t) p = Softmax<axis = -1>(s) c = MatMul(p, v) o = MatMul(c, wo) y = Add(o, bo)
        """,
        {"query": (1, 2), "wk": (3, 2), "bk": (2,), "wv": (3, 2), "bv": (2,), "wo": (2, 3), "bo": (3,)},
        {"x": (4, 3)},
        3,
        13,
    ),
    "tied_query_key": Net(  # O(2) of the queries that are keys too, 1; GL(2) of the values, 4
        """
        q = MatMul(x, wq) v = MatMul(x, wv) t = Transpose<perm = [0, 2, 1]>(q) s = MatMul(q, t)
        p = Softmax<axis = -1>(s) c = MatMul(p, v) y = MatMul(c, wo)
        """,
        {"wq": (3, 2), "wv": (3, 2), "wo": (2, 3)},
        {"x": (4, 3)},
        3,
        5,
    ),
    "query_key_norm": Net(  # the gains of queries and keys against each other, 2; GL(2) of the values, 4
        f"""
        qw = MatMul(x, wq) kw = MatMul(x, wk) v = MatMul(x, wv) {rms("qw", "q", "gq")} {rms("kw", "k", "gk")}
        t = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, t) p = Softmax<axis = -1>(s) c = MatMul(p, v)
        y = MatMul(c, wo)
        """,
        {"wq": (3, 2), "wk": (3, 2), "wv": (3, 2), "gq": (2,), "gk": (2,), "wo": (2, 3)},
        {"x": (4, 3)},
        3,
        6,
        RMS,
    ),
    # Mean direction of what writes, 4 + 1 + 4 + 1, and reads, 12 + 3; gains 8; shifts 8; O(4) 3; GL(2) twice per head
    # 16; key bias 4; value bias 4.
    "pooled_block": Net(
        f"""
        es = MatMul(x, we) e = Add(es, be) {norm("e", "n")} u = MatMul(n, wi) w = Add(u, bi)
        q, k, v = Split<axis = -1>(w, three) {heads("q", "k", "v")} {attend()} o = MatMul(f, wo) l = Add(o, bo)
        z = Add(e, l) {norm("z", "last", "gl", "hl")} mean = ReduceMean<axes = [1], keepdims = 0>(last)
        y = Gemm(mean, wc, bc)
        """,
        {
            "we": (4, 4),
            "be": (4,),
            "g": (4,),
            "h": (4,),
            "wi": (4, 12),
            "bi": (12,),
            "wo": (4, 4),
            "bo": (4,),
            "gl": (4,),
            "hl": (4,),
            "wc": (4, 3),
            "bc": (3,),
        },
        {"x": (3, 4)},
        2,
        68,
        {**HEADS, "three": [4, 4, 4]},
    ),
}

NORMS = {
    "layernorm": Net(  # mean direction before, 3 + 1, and after, 2; gain 4; shift 4; O(4) that fixes it, 3
        f"""
        u = MatMul(x, a) w = Add(u, p) {norm("w", "n")} v = MatMul(n, b) y = Add(v, q)
        """,
        {"a": (3, 4), "p": (4,), "g": (4,), "h": (4,), "b": (4, 2), "q": (2,)},
        {"x": (2, 3)},
        3,
        17,
        {},
    ),
    "layernorm_plain": Net(  # as layernorm: ones and zeros are parameters like any other
        f"""
        u = Gemm(x, a, p) {norm("u", "n", "ones", "zeros")} y = Gemm(n, b, q)
        """,
        {"a": (3, 4), "p": (4,), "b": (4, 2), "q": (2,)},
        {"x": (3,)},
        2,
        17,
        fixed={"ones": np.ones(4), "zeros": np.zeros(4)},
    ),
    "layernorm_without_affine": Net(  # mean direction before, 3 + 1, and after, 2; O(4) that fixes it, 3
        """
        u = Gemm(x, a, p) m = ReduceMean<axes = [-1]>(u) d = Sub(u, m) dd = Mul(d, d) w = ReduceMean<axes = [-1]>(dd)
        we = Add(w, epsilon) s = Sqrt(we) n = Div(d, s) y = Gemm(n, b, q)
        """,
        {"a": (3, 4), "p": (4,), "b": (4, 2), "q": (2,)},
        {"x": (3,)},
        2,
        9,
        {"epsilon": 0.1},
    ),
    "layernorm_decomposed": Net(  # mean direction before, 3 + 1
        """
        u = MatMul(x, a) w = Add(p, u) m = ReduceMean<axes = [-1]>(w) d = Sub(w, m) dd = Pow(d, two)
        v = ReduceMean<axes = [-1]>(dd) ve = Add(v, epsilon) s = Sqrt(ve) n = Div(d, s) ng = Mul(n, g) z = Add(ng, h)
        t = Tanh(z) o = MatMul(t, b) y = Add(q, o)
        """,
        {"a": (3, 4), "p": (4,), "g": (4,), "h": (4,), "b": (4, 2), "q": (2,)},
        {"x": (2, 3)},
        3,
        4,
        {"two": 2.0, "epsilon": 0.1},
    ),
    "pre_norm_block": Net(  # mean direction of what writes, 3 + 1 + 3 + 1, and reads, 3 + 2; gains 8; shifts 8; O(4), 3
        f"""
        em = MatMul(x, e) s = Add(em, eb) {norm("s", "n", "g1", "h1")} u = MatMul(n, a) up = Add(u, p) t = Tanh(up)
        v = MatMul(t, b) vq = Add(v, q) r = Add(s, vq) {norm("r", "z", "g2", "h2")} o = MatMul(z, c) y = Add(o, w)
        """,
        {
            "e": (3, 4),
            "eb": (4,),
            "g1": (4,),
            "h1": (4,),
            "a": (4, 3),
            "p": (3,),
            "b": (3, 4),
            "q": (4,),
            "g2": (4,),
            "h2": (4,),
            "c": (4, 2),
            "w": (2,),
        },
        {"x": (2, 3)},
        3,
        32,
    ),
    # Mean direction of what writes, 3 + 1, and reads, 3; gain 4; shift 4; O(4) 3; first bias 4; shears of the stream
    # along the mean direction, 4.
    "post_norm_block": Net(
        f"""
        s = Gemm(x, e, eb) u = Gemm(s, a, p) t = Tanh(u) v = Gemm(t, b, q) r = Add(v, s) {norm("r", "z")}
        k = Gemm(z, c, w) j = Tanh(k) y = Gemm(j, d, i)
        """,
        {
            "e": (4, 4),
            "eb": (4,),
            "a": (4, 3),
            "p": (3,),
            "b": (3, 4),
            "q": (4,),
            "g": (4,),
            "h": (4,),
            "c": (4, 3),
            "w": (3,),
            "d": (3, 2),
            "i": (2,),
        },
        {"x": (4,)},
        2,
        26,
    ),
    "rms_untied": Net(  # O(4) of the stream, 6; the gains, 4 each
        f"""
        s = MatMul(x, e) {rms("s", "n", "g")} u = MatMul(n, a) t = Tanh(u) v = MatMul(t, b) r = Add(s, v)
        {rms("r", "z", "k")} y = MatMul(z, c)
        """,
        {"e": (5, 4), "g": (4,), "a": (4, 3), "b": (3, 4), "k": (4,), "c": (4, 3)},
        {"x": (2, 5)},
        3,
        14,
        RMS,
    ),
    "rms_tied": Net(  # the gain before the inner layer, 4: the last one meets the table again, which holds the stream
        f"""
        i = Gather(e, x) s = ReduceMean<axes = [1], keepdims = 0>(i) {rms("s", "n", "g")} u = MatMul(n, a)
        t = Tanh(u) v = MatMul(t, b) r = Add(s, v)
        {rms("r", "z", "k")} w = Transpose<perm = [1, 0]>(e) y = MatMul(z, w)
        """,
        {"e": (6, 4), "g": (4,), "a": (4, 3), "b": (3, 4), "k": (4,)},
        {},
        2,
        4,
        RMS,
        {"x": (6, 3)},
    ),
    "rms_tied_plain": Net(  # without a last gain the stream turns, O(4), 6; the gain before the inner layer, 4
        f"""
        i = Gather(e, x) s = ReduceMean<axes = [1], keepdims = 0>(i) {rms("s", "n", "g")} u = MatMul(n, a)
        t = Tanh(u) v = MatMul(t, b) r = Add(s, v)
        r2 = Pow(r, two) m = ReduceMean<axes = [-1]>(r2) me = Add(m, epsilon) q = Sqrt(me) z = Div(r, q)
        w = Transpose<perm = [1, 0]>(e) y = MatMul(z, w)
        """,
        {"e": (6, 4), "g": (4,), "a": (4, 3), "b": (3, 4)},
        {},
        2,
        10,
        RMS,
        {"x": (6, 3)},
    ),
    "norm_then_conv": Net(  # gain 4; shift 4; the mean direction of every window and channel, 9
        f"""
        {norm("x", "n")} c = Transpose<perm = [0, 2, 1]>(n) u = Conv(c, a, p) t = Tanh(u) y = Conv(t, b, q)
        """,
        {"g": (4,), "h": (4,), "a": (3, 4, 3), "p": (3,), "b": (2, 3, 1), "q": (2,)},
        {"x": (5, 4)},
        3,
        17,
    ),
    "norm_then_padded_conv": Net(  # gain 4; shift, which mean directions take back, 4; mean direction of the middle, 3
        f"""
        {norm("x", "n")} c = Transpose<perm = [0, 2, 1]>(n) u = Conv<pads = [1, 1]>(c, a, p) t = Tanh(u)
        y = Conv(t, b, q)
        """,
        {"g": (4,), "h": (4,), "a": (3, 4, 3), "p": (3,), "b": (2, 3, 1), "q": (2,)},
        {"x": (5, 4)},
        3,
        11,
    ),
    "conv_instance_norm": Net(  # the bias before the normalisation, 3
        "u = Conv(x, a, p) n = InstanceNormalization<epsilon = 0.1>(u, g, h) t = Tanh(n) y = Conv(t, b, q)",
        {"a": (3, 2, 2), "p": (3,), "g": (3,), "h": (3,), "b": (2, 3, 1), "q": (2,)},
        {"x": (2, 6)},
        3,
        3,
    ),
    "group_norm": Net(  # the bias's mean in every group, 2; two gains, 2, and two shifts, 2, where one would do
        """
        u = Conv(x, a, p) r = Reshape(u, groups) n = InstanceNormalization<epsilon = 0.1>(r, ones, zeros)
        s = Shape(u) w = Reshape(n, s) k = Mul(w, g) z = Add(k, h) t = Tanh(z) y = Conv(t, b, q)
        """,
        {"a": (4, 2, 1, 2), "p": (4,), "g": (4, 1, 1), "h": (4, 1, 1), "b": (2, 4, 1, 1), "q": (2,)},
        {"x": (2, 2, 4)},
        4,
        6,
        {"groups": [0, 2, -1]},
        fixed={"ones": np.ones(2), "zeros": np.zeros(2)},
    ),
    "weight_norm_behind_relu": Net(  # the length of every row, 3; a scale of every unit, 4
        """
        u = Gemm(x, a, p) t = Relu(u) l = ReduceL2<axes = [1], keepdims = 1>(v) d = Div(v, l) w = Mul(d, g)
        s = Gemm<transB = 1>(t, w, q) z = Tanh(s) y = MatMul(z, b)
        """,
        {"a": (3, 4), "p": (4,), "v": (3, 4), "g": (3, 1), "q": (3,), "b": (3, 2)},
        {"x": (3,)},
        2,
        7,
    ),
    "parts_of_a_reading": Net(  # GL(3) of two parts that meet, 9; what is gated, 4; one of them with the skip, 1
        """
        e = MatMul(x, w) f, h, i = Split<axis = 2>(e, parts) s = Sigmoid(f) j = Transpose<perm = [0, 2, 1]>(i)
        m = MatMul(h, j) r = MatMul(m, x) n = Mul(x, k) o = Add(r, n) c = MatMul(s, v) y0 = Mul(o, c) y = MatMul(y0, q)
        """,
        {"w": (4, 8), "k": (4,), "v": (2, 4), "q": (4, 2)},
        {"x": (5, 4)},
        3,
        14,
        {"parts": [2, 3, 3]},
    ),
    "weight_norm": Net(  # the length of every row, 4
        """
        l = ReduceL2<axes = [1], keepdims = 1>(v) d = Div(v, l) a = Mul(d, g) u = Gemm<transB = 1>(x, a, p) t = Tanh(u)
        y = Gemm(t, b, q)
        """,
        {"v": (4, 3), "g": (4, 1), "p": (4,), "b": (4, 2), "q": (2,)},
        {"x": (3,)},
        2,
        4,
    ),
    "cosine_classifier": Net(  # the lengths of the features' weights and of 5 classes, 6; O(3), 3
        """
        u = Gemm(x, a, p) t = Tanh(u) f = MatMul(t, b) l = ReduceL2<axes = [1], keepdims = 1>(f) m = Clip(l, tiny)
        n = Div(f, m) k = ReduceL2<axes = [1], keepdims = 1>(w) i = Clip(k, tiny) c = Div(w, i)
        z = Transpose<perm = [1, 0]>(c) r = MatMul(n, z) y = Mul(r, s)
        """,
        {"a": (3, 4), "p": (4,), "b": (4, 3), "w": (5, 3), "s": (1,)},
        {"x": (3,)},
        2,
        9,
        {"tiny": 1e-12},
    ),
    "cosine_scores": Net(  # lengths 6; O(3), 3
        """
        u = Gemm(x, a, p) t = Tanh(u) f = Gemm(t, b, q) n = LpNormalization<axis = 1, p = 2>(f)
        c = LpNormalization<axis = 0, p = 2>(w) y = MatMul(n, c)
        """,
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,), "w": (3, 5)},
        {"x": (3,)},
        2,
        9,
    ),
    "log_softmax": Net(  # the shift of the logits
        "u = Gemm(x, a, p) t = Tanh(u) l = Gemm(t, b, q) y = LogSoftmax<axis = 1>(l)",
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,)},
        {"x": (3,)},
        2,
        5,
    ),
    "softmax_channels": Net(  # the shift of the classes, the same at every place: 3 * 2 + 1
        "u = Conv(x, a, p) t = Tanh(u) l = Conv(t, b, q) y = Softmax<axis = 1>(l)",
        {"a": (3, 2, 2), "p": (3,), "b": (4, 3, 2), "q": (4,)},
        {"x": (2, 5)},
        3,
        7,
    ),
    "batchnorm": Net(
        "u = Conv(x, a) v = BatchNormalization(u, g, p, m, s) w = Relu(v) y = Conv(w, b)",
        {"a": (4, 2, 1), "g": (4,), "p": (4,), "m": (4,), "s": (4,), "b": (2, 4, 1)},
        {"x": (2, 3)},
        3,
        8,
    ),
    "batchnorm_bias": Net(  # the convolution's scale against the gain, 4; its bias against the shift, 4
        "u = Conv(x, a, c) v = BatchNormalization(u, g, p, m, s) w = Tanh(v) y = Conv(w, b)",
        {"a": (4, 2, 1), "c": (4,), "g": (4,), "p": (4,), "m": (4,), "s": (4,), "b": (2, 4, 1)},
        {"x": (2, 3)},
        3,
        8,
    ),
    "batchnorm_before_linear": Net(  # gain and shift into the reader
        "u = Gemm(x, a, c) t = Tanh(u) v = BatchNormalization(t, g, p, m, s) y = Gemm(v, b, q)",
        {"a": (3, 4), "c": (4,), "g": (4,), "p": (4,), "m": (4,), "s": (4,), "b": (4, 2), "q": (2,)},
        {"x": (3,)},
        2,
        8,
    ),
}

EMBEDDINGS = {
    # What two tables share, 8; mean direction of three tables, 10 less the 2 of that; gain 4; shift 4; mean direction
    # after the norm 3; O(4) 3.
    "embedding_sum": Net(
        f"""
        w = Gather(words, x) t = Gather(types, z) s = Add(w, t) p = Add(s, places) {norm("p", "n")} u = MatMul(n, a)
        v = Add(u, b) k = Tanh(v) y = MatMul(k, c)
        """,
        {
            "words": (5, 4),
            "types": (2, 4),
            "places": (3, 4),
            "g": (4,),
            "h": (4,),
            "a": (4, 3),
            "b": (3,),
            "c": (3, 2),
        },
        {},
        3,
        30,
        indices={"x": (5, 3), "z": (2, 3)},
    ),
    "scaled_embedding": Net(  # GL(3) of the sum and its reader, 9; what words and places share, 3
        """
        w = Gather(words, x) s = Mul(w, root) p = Gather(table, places) r = Add(s, p) u = MatMul(r, a) t = Tanh(u)
        y = MatMul(t, b)
        """,
        {"words": (6, 3), "table": (4, 3), "a": (3, 4), "b": (4, 4)},
        {},
        3,
        12,
        {"root": 3**0.5, "places": [0, 1, 2, 3]},
        {"x": (6, 4)},
    ),
    "tied_embedding": Net(  # GL(3) of a table that the reader and, from the other side, the head undo
        """
        e = Gather(w, x) m = ReduceMean<axes = [1], keepdims = 0>(e) u = Gemm(m, a, p) t = Tanh(u) v = MatMul(t, b)
        k = Transpose<perm = [1, 0]>(w) y = Gemm(v, k, q)
        """,
        {"w": (5, 3), "a": (3, 4), "p": (4,), "b": (4, 3), "q": (5,)},
        {},
        2,
        9,
        indices={"x": (5, 3)},
    ),
    "factored_embedding": Net(  # GL(3) 9; bias 3; mean direction before, 3 + 1, and after, 2; gain 4; shift 4; O(4) 3
        f"""
        e = Gather(w, x) i = ReduceMean<axes = [1], keepdims = 0>(e) u = Gemm(i, a, p) {norm("u", "n")}
        y = Gemm(n, b, q)
        """,
        {"w": (6, 3), "a": (3, 4), "p": (4,), "g": (4,), "h": (4,), "b": (4, 2), "q": (2,)},
        {},
        2,
        29,
        indices={"x": (6, 3)},
    ),
    # Bias and places 4; token and its place 4; mean direction of patches 4, and of places 3; O(4) of the stream 3; gain
    # 4; shift, which mean directions take back, 4; GL(2) twice 8; mean direction of what reads keys and values 4.
    "patch_embedding": Net(
        f"""
        u = Conv<strides = [2]>(x, a, p) t = Transpose<perm = [0, 2, 1]>(u) size = Shape(x) n = Gather(size, zero)
        m = Unsqueeze(n, front) sizes = Concat<axis = 0>(m, rest) c = Expand(token, sizes) z = Concat<axis = 1>(c, t)
        r = Add(z, places) {norm("r", "l")} q = MatMul(l, wq) k = MatMul(l, wk) v = MatMul(l, wv)
        kt = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, kt) w = Softmax<axis = -1>(s) e = MatMul(w, v)
        f = ReduceMean<axes = [1], keepdims = 0>(e) y = Gemm(f, wo, bo)
        """,
        {
            "a": (4, 2, 2),
            "p": (4,),
            "token": (1, 1, 4),
            "places": (1, 3, 4),
            "g": (4,),
            "h": (4,),
            "wq": (4, 2),
            "wk": (4, 2),
            "wv": (4, 2),
            "wo": (2, 3),
            "bo": (3,),
        },
        {"x": (2, 4)},
        2,
        38,
        {"zero": 0, "front": [0], "rest": [1, 4]},
    ),
}

LINEAR = {
    "bottleneck": Net("u = MatMul(x, a) y = MatMul(u, b)", {"a": (4, 2), "b": (2, 3)}, {"x": (4,)}, 2, 4),
    "two_linear": Net(  # GL(2), 4; the first bias, 2
        "u = Gemm(x, a, p) y = Gemm(u, b, q)",
        {"a": (4, 2), "p": (2,), "b": (2, 3), "q": (3,)},
        {"x": (4,)},
        2,
        6,
    ),
    "two_linear_wide": Net(  # all but the 8 numbers of the affine map
        "u = MatMul(x, a) v = Add(u, p) w = MatMul(v, b) y = Add(w, q)",
        {"a": (3, 5), "p": (5,), "b": (5, 2), "q": (2,)},
        {"x": (3,)},
        2,
        24,
    ),
    "linear_chain": Net(  # all but the 2 (5 + 4 - 2) numbers of a map of rank 2
        "u = MatMul(x, a) v = MatMul(u, b) w = MatMul(v, c) y = MatMul(w, d)",
        {"a": (5, 3), "b": (3, 2), "c": (2, 3), "d": (3, 4)},
        {"x": (5,)},
        2,
        25,
    ),
    "linear_skip": Net(  # all but the 9 + 3 numbers of the affine map
        "w0 = Gemm(x, w, q) u = Gemm(x, a, p) v = Gemm(u, b, r) y = Add(w0, v)",
        {"w": (3, 3), "q": (3,), "a": (3, 2), "p": (2,), "b": (2, 3), "r": (3,)},
        {"x": (3,)},
        2,
        17,
    ),
    "two_heads_added": Net(  # all of one, 8 + 2
        "u = Gemm(x, a, p) t = Tanh(u) v = Gemm(t, b, q) w = Gemm(t, c, r) y = Add(v, w)",
        {"a": (3, 4), "p": (4,), "b": (4, 2), "q": (2,), "c": (4, 2), "r": (2,)},
        {"x": (3,)},
        2,
        10,
    ),
    "narrow_head": Net(  # GL(4) of the stream, 16; what the branch writes and the head does not read, 6; a bias so, 1
        "e = Gemm(x, w, z) u = MatMul(e, a) t = Tanh(u) v = MatMul(t, b) r = Add(e, v) y = Gemm(r, c, q)",
        {"w": (4, 4), "z": (4,), "a": (4, 3), "b": (3, 4), "c": (4, 2), "q": (2,)},
        {"x": (4,)},
        2,
        23,
    ),
    "mean_of_two": Net(  # two networks of which the last biases are one
        """
        u = Gemm(x, a, p) t = Tanh(u) v = Gemm(t, b, q) w = Gemm(x, c, r) z = Tanh(w) k = Gemm(z, d, s) e = Add(v, k)
        y = Mul(e, half)
        """,
        {"a": (3, 3), "p": (3,), "b": (3, 2), "q": (2,), "c": (3, 3), "r": (3,), "d": (3, 2), "s": (2,)},
        {"x": (3,)},
        2,
        2,
        {"half": 0.5},
    ),
    "bilinear": Net(  # GL(3), 9; the bias, 3
        """
        w0 = Einsum<equation = "bi,oij,bj->bo">(x, w, z) u = Add(w0, p) y = Gemm(u, a, q)
        """,
        {"w": (3, 3, 2), "p": (3,), "a": (3, 4), "q": (4,)},
        {"x": (3,), "z": (2,)},
        2,
        12,
    ),
    "factored_bilinear": Net(  # GL(2) between the two sides of a dot product
        "u = MatMul(x, a) v = MatMul(z, b) m = Mul(u, v) s = ReduceSum(m, last) y = Add(s, q)",
        {"a": (4, 2), "b": (3, 2), "q": (1,)},
        {"x": (4,), "z": (3,)},
        2,
        4,
        {"last": [-1]},
    ),
    "siamese": Net(  # O(3) of the features that two branches share
        """
        u = Gemm(x, a, p) t = Tanh(u) f = MatMul(t, b) v = Gemm(z, a, p) k = Tanh(v) h = MatMul(k, b) m = Mul(f, h)
        y = ReduceSum<keepdims = 1>(m, last)
        """,
        {"a": (3, 4), "p": (4,), "b": (4, 3)},
        {"x": (3,), "z": (3,)},
        2,
        3,
        {"last": [-1]},
    ),
    "shared_branches": Net(  # GL(2) between the encoder that two branches share and the head, 4; its bias, 2
        """
        u = Gemm(x, a, p) t = Tanh(u) f = Gemm(t, b, r) v = Gemm(z, a, p) k = Tanh(v) h = Gemm(k, b, r)
        d = Sub(f, h) y = Gemm(d, c, q)
        """,
        {"a": (3, 4), "p": (4,), "b": (4, 2), "r": (2,), "c": (2, 3), "q": (3,)},
        {"x": (3,), "z": (3,)},
        2,
        6,
    ),
    "shared_layers": Net(  # GL(3) of a stream through one layer that is used twice, 9
        """
        e = MatMul(x, w) u = Gemm(e, a, p) t = Tanh(u) v = MatMul(t, b) r = Add(e, v) u2 = Gemm(r, a, p) t2 = Tanh(u2)
        v2 = MatMul(t2, b) r2 = Add(r, v2) y = MatMul(r2, c)
        """,
        {"w": (4, 3), "a": (3, 3), "p": (3,), "b": (3, 3), "c": (3, 4)},
        {"x": (4,)},
        2,
        9,
    ),
    "prototypes": Net(  # squared distances: O(3), 3; a shift of features and prototypes, 3
        """
        u = Gemm(x, a, p) t = Tanh(u) f = Gemm(t, b, q) g = Unsqueeze(f, one) d = Sub(g, c) m = Mul(d, d)
        s = ReduceSum<keepdims = 0>(m, last) y = Neg(s)
        """,
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,), "c": (5, 3)},
        {"x": (3,)},
        2,
        6,
        {"one": [1], "last": [-1]},
    ),
    "tied_linear": Net(  # O(2)
        "w = Transpose<perm = [1, 0]>(a) u = MatMul(x, a) v = MatMul(u, w) y = Add(v, q)",
        {"a": (5, 2), "q": (5,)},
        {"x": (5,)},
        2,
        1,
    ),
    # What the middle layer makes is linear in what is read beside it: any change of it, 8, or of its reader, 6.
    "dense_concat": Net(
        """
        s = Gemm(x, a, p) t = Tanh(s) u = Gemm(t, b, q) c = Concat<axis = 1>(t, u) v = Gemm(c, d, r) k = Tanh(v)
        y = Gemm(k, e, w)
        """,
        {"a": (3, 3), "p": (3,), "b": (3, 2), "q": (2,), "d": (5, 3), "r": (3,), "e": (3, 2), "w": (2,)},
        {"x": (3,)},
        2,
        14,
    ),
    "dropout_between": Net(  # GL(2), 4; the first bias, 2
        "u = Gemm(x, a, p) i = Identity(u) d, mask = Dropout(i, ratio, training) v = Gemm(d, b, q) y = Identity(v)",
        {"a": (4, 2), "p": (2,), "b": (2, 3), "q": (3,)},
        {"x": (4,)},
        2,
        6,
        {"ratio": 0.5, "training": False},
    ),
    "standardised_input": Net(  # the mean and the scale of the inputs go into the first layer
        "u = Sub(x, m) v = Mul(u, s) w = Gemm(v, a, p) t = Tanh(w) y = Gemm(t, b, q)",
        {"m": (3,), "s": (3,), "a": (3, 4), "p": (4,), "b": (4, 2), "q": (2,)},
        {"x": (3,)},
        2,
        6,
    ),
}

CONVOLUTIONS = {
    "conv_relu_conv": Net(  # one rescaling per channel
        "u = Conv(x, a, p) v = Relu(u) y = Conv(v, b)",
        {"a": (4, 2, 2, 2), "p": (4,), "b": (2, 4, 1, 1)},
        {"x": (2, 3, 3)},
        4,
        4,
    ),
    "grouped_conv": Net(
        "u = Conv(x, a) v = Relu(u) w = Conv<group = 2>(v, b) t = Relu(w) y = Conv(t, c)",
        {"a": (4, 2, 1), "b": (6, 2, 2), "c": (2, 6, 1)},
        {"x": (2, 4)},
        3,
        10,
    ),
    "parallel_convs": Net(  # all of the narrow one goes into the wide one's middle, 6; and its bias, 3
        """
        u = Conv<pads = [1, 1, 1, 1]>(x, a, p) v = Conv(x, b, q) s = Add(u, v) t = Tanh(s) y = Conv(t, c)
        """,
        {"a": (3, 2, 3, 3), "p": (3,), "b": (3, 2, 1, 1), "q": (3,), "c": (2, 3, 1, 1)},
        {"x": (2, 3, 3)},
        4,
        9,
    ),
    "two_convs": Net(  # GL(2) between a convolution and a pointwise one, 4; the first bias, 2
        "u = Conv(x, a, p) y = Conv(u, b, q)",
        {"a": (2, 3, 2), "p": (2,), "b": (3, 2, 1), "q": (3,)},
        {"x": (3, 4)},
        3,
        6,
    ),
    "separable": Net(  # a scale per channel between depthwise and pointwise, 3; the first bias, 3
        "u = Conv<group = 3, pads = [1, 1]>(x, a, p) v = Conv(u, b, q) t = Tanh(v) y = Conv(t, c)",
        {"a": (3, 1, 3), "p": (3,), "b": (4, 3, 1), "q": (4,), "c": (2, 4, 1)},
        {"x": (3, 4)},
        3,
        6,
    ),
    "pooled_conv": Net(  # GL(2) through an average, 4; the bias, 2
        "u = Conv(x, a, p) v = AveragePool<kernel_shape = [2]>(u) w = Flatten(v) y = Gemm(w, b, q)",
        {"a": (2, 3, 2), "p": (2,), "b": (4, 5), "q": (5,)},
        {"x": (3, 4)},
        2,
        6,
    ),
    "global_pool": Net(  # GL(2) through an average, 4; the bias, 2
        "u = Conv(x, a, p) t = Tanh(u) v = Conv(t, c, r) g = GlobalAveragePool(v) w = Flatten(g) y = Gemm(w, b, q)",
        {"a": (3, 2, 2), "p": (3,), "c": (2, 3, 1), "r": (2,), "b": (2, 4), "q": (4,)},
        {"x": (2, 4)},
        2,
        6,
    ),
    "pixel_shuffle": Net(  # GL(2), 4; the bias of a channel at all its places, 2
        """
        u = Conv(x, a, p) v = DepthToSpace<blocksize = 2, mode = "CRD">(u) y = Conv(v, b, q)
        """,
        {"a": (8, 2, 1, 1), "p": (8,), "b": (3, 2, 1, 1), "q": (3,)},
        {"x": (2, 2, 2)},
        4,
        6,
    ),
    "channel_shuffle": Net(  # GL(2) for each pair of groups
        """
        u = Conv<group = 2>(x, a) r = Reshape(u, apart) t = Transpose<perm = [0, 2, 1, 3]>(r) s = Reshape(t, merged)
        y = Conv<group = 2>(s, b, q)
        """,
        {"a": (8, 2, 2), "b": (6, 4, 1), "q": (6,)},
        {"x": (4, 4)},
        3,
        16,
        {"apart": [0, 2, 4, 3], "merged": [0, 8, 3]},
    ),
    "transposed_conv": Net(  # GL(2); the first bias makes stripes
        "u = Conv(x, a, p) v = ConvTranspose<strides = [2]>(u, b, q) t = Tanh(v) y = Conv(t, c, r)",
        {"a": (2, 3, 2), "p": (2,), "b": (2, 3, 2), "q": (3,), "c": (2, 3, 1), "r": (2,)},
        {"x": (3, 4)},
        3,
        4,
    ),
}


def recurrent(op: str, gates: int, dimension: int, *, directions: int = 1, biases: int = 2, **more: str) -> Net:
    """A recurrent layer over 4 places, and a linear head on its states."""
    given = "".join(f", {k} = {v}" for k, v in more.items())
    h, d = 2, directions
    return Net(
        f"""
        s = Transpose<perm = [1, 0, 2]>(x) o = {op}<hidden_size = {h}{given}>(s, w, r, b)
        t = Transpose<perm = [2, 0, 1, 3]>(o) f = Reshape(t, flat) y = MatMul(f, c)
        """,
        {"w": (d, gates * h, 3), "r": (d, gates * h, h), "b": (d, biases * gates * h), "c": (d * h, 2)},
        {"x": (4, 3)},
        3,
        dimension,
        {"flat": [0, 0, -1]},
    )


RECURRENT = {
    "rnn": recurrent("RNN", 1, 2),
    "gru": recurrent("GRU", 3, 6),
    "gru_linear_before_reset": recurrent("GRU", 3, 4, linear_before_reset="1"),
    "lstm": recurrent("LSTM", 4, 8),
    "lstm_both_ways": recurrent("LSTM", 4, 16, directions=2, direction='"bidirectional"'),
}


def branch(k: int, function: str = "Relu") -> str:
    """A perceptron among its like."""
    return f"u{k} = Gemm(x, a{k}, p{k}) v{k} = {function}(u{k}) o{k} = MatMul(v{k}, b{k})"


def each(count: int, **shapes: tuple[int, ...]) -> Shapes:
    """Weights of every one of some branches."""
    return {f"{name}{k}": shape for k in range(count) for name, shape in shapes.items()}


BRANCHES = {
    "towers": Net(
        f"{branch(0)} {branch(1)} {branch(2)} s = Add(o0, o1) t = Add(s, o2) y = Add(q, t)",
        {**each(3, a=(3, 2), p=(2,), b=(2, 2)), "q": (2,)},
        {"x": (3,)},
        2,
        6,
    ),
    "gated_branches": Net(
        f"""
        {branch(0)} {branch(1)} {branch(2)} l = Gemm(x, g, h) z = Softmax<axis = -1>(l) z0, z1, z2 = Split<axis = -1>(z)
        m0 = Mul(o0, z0) m1 = Mul(z1, o1) m2 = Mul(o2, z2) y = Sum(m0, m1, m2)
        """,
        {**each(3, a=(3, 2), p=(2,), b=(2, 2)), "g": (3, 3), "h": (3,)},
        {"x": (3,)},
        2,
        10,
    ),
    "joined_branches": Net(
        f"""
        {branch(0)} {branch(1, "Tanh")} {branch(2, "Tanh")} c = Concat<axis = -1>(o0, o1, o2) t = Tanh(c)
        y = Gemm(t, d, q)
        """,
        {**each(3, a=(3, 2), p=(2,), b=(2, 2)), "d": (6, 2), "q": (2,)},
        {"x": (3,)},
        2,
        2,
    ),
    "routed_experts": Net(  # units of each expert, 8; the softmax's shift, 4
        """
        l = Gemm(x, g, h) z = Softmax<axis = -1>(l) w, i = TopK<axis = -1>(z, two) ws = Unsqueeze(w, last)
        c = Gather<axis = 0>(a, i) d = Gather<axis = 0>(b, i) xs = Unsqueeze(x, middle)
        u = MatMul(xs, c) v = Relu(u) o = MatMul(v, d) s = Squeeze(o, last) m = Mul(s, ws)
        y = ReduceSum<keepdims = 0>(m, one)
        """,
        {"g": (3, 4), "h": (4,), "a": (4, 3, 2), "b": (4, 2, 2)},
        {"x": (3,)},
        2,
        12,
        {"two": [2], "last": [2], "middle": [1, 2], "one": [1]},
    ),
    "two_biases_twice": Net(  # the units, 2; what one bias gains and the other loses at both places, 2
        """
        u = MatMul(x, a) v = Add(u, p) w = Add(v, q) z = Relu(w) k = MatMul(t, a) l = Add(k, p) m = Add(l, q)
        n = Relu(m) s = Add(z, n) y = MatMul(s, c)
        """,
        {"a": (3, 2), "p": (2,), "q": (2,), "c": (2, 2)},
        {"x": (3,), "t": (3,)},
        2,
        4,
    ),
    "dueling": Net(  # the units, 4; the mean of the advantages, which is taken away
        """
        u = Gemm(x, a, p) v = Relu(u) value = Gemm(v, b, q) z = Gemm(x, c, r) w = Relu(z) advantage = Gemm(w, d, s)
        mean = ReduceMean<axes = [1]>(advantage) sum = Add(value, advantage) y = Sub(sum, mean)
        """,
        {"a": (3, 2), "p": (2,), "b": (2, 1), "q": (1,), "c": (3, 2), "r": (2,), "d": (2, 3), "s": (3,)},
        {"x": (3,)},
        2,
        7,
    ),
    "product_of_layers": Net(
        "u = Gemm(x, a0, p0) v = Gemm(x, a1, p1) w = Mul(u, v) y = Gemm(w, b, q)",
        {**each(2, a=(5, 2), p=(2,)), "b": (2, 3), "q": (3,)},
        {"x": (5,)},
        2,
        4,
    ),
}

SMALL = {**ELEMENTWISE, **ATTENTION, **NORMS, **EMBEDDINGS, **LINEAR, **CONVOLUTIONS, **RECURRENT, **BRANCHES}
