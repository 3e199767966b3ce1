"""Small networks with states, as exporters of streaming networks and decoders write them.

Each is a step: what leaves it by one output comes back by one input. The dimension counts the directions in which
its parameters can move without a change of any sequence of outputs from a start of zeros, or of nothing where a cache
grows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.parser import parse_graph

Shape = tuple[int | str, ...]
WIDE = 1 << 40


@dataclass
class Stateful:
    """One step of a network from x to y."""

    text: str
    """Nodes in ONNX's own notation."""
    weights: dict[str, tuple[int, ...]]
    """All parameters, drawn at random."""
    x: Shape
    states: dict[str, tuple[str, Shape]]
    """Input of a state -> its output and the input's shape."""
    dimension: int
    constants: dict[str, object] = field(default_factory=dict)
    given: dict[str, Shape] = field(default_factory=dict)
    """What another network supplies, the same at every step; it leaves as it came."""
    opset: int = 17

    def values(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Random weights."""
        rng = np.random.default_rng(seed)
        return {name: rng.normal(size=shape) * 0.7 for name, shape in self.weights.items()}

    def model(self, dtype: str = "float32", values: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
        """The network as a file."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        info = helper.make_tensor_value_info
        inputs = [info("x", kind, self.x), *(info(n, kind, shape) for n, (_, shape) in self.states.items())]
        inputs += [info(n, kind, shape) for n, shape in self.given.items()]
        outputs = [info("y", kind, None), *(info(n, kind, None) for n, _ in self.states.values())]
        outputs += [info(n.replace("past", "present"), kind, None) for n in self.given]
        stored = {n: v.astype(dtype) for n, v in (values or self.values()).items()}
        stored |= {
            n: np.asarray(v, dtype if np.asarray(v).dtype.kind == "f" else None) for n, v in self.constants.items()
        }
        nodes = parse_graph(f"small () => () {{ {self.text} }}").node
        tensors = [numpy_helper.from_array(v, n) for n, v in stored.items()]
        graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def recurrence() -> Stateful:
    """A recurrence that is written out, with a linear state: any invertible matrix acts on it."""
    return Stateful(
        "u = MatMul(x, a) v = MatMul(h_in, r) h_out = Add(u, v) z = MatMul(h_out, c) y = Tanh(z)",
        {"a": (3, 4), "r": (4, 4), "c": (4, 2)},
        ("batch", 3),
        {"h_in": ("h_out", ("batch", 4))},
        16,
    )


def squashed() -> Stateful:
    """The same with a squashing function: signs and permutations only."""
    return Stateful(
        "u = MatMul(x, a) v = MatMul(h_in, r) w = Add(u, v) h_out = Tanh(w) y = MatMul(h_out, c)",
        {"a": (3, 4), "r": (4, 4), "c": (4, 2)},
        ("batch", 3),
        {"h_in": ("h_out", ("batch", 4))},
        0,
    )


def rectified() -> Stateful:
    """The same with a rectifier: a scale for each unit."""
    return Stateful(
        "u = MatMul(x, a) v = MatMul(state, r) w = Add(u, v) stateN = Relu(w) y = MatMul(stateN, c)",
        {"a": (3, 4), "r": (4, 4), "c": (4, 2)},
        ("batch", 3),
        {"state": ("stateN", ("batch", 4))},
        4,
    )


def gru() -> Stateful:
    """GRU between linear maps."""
    return Stateful(
        """p = MatMul(x, a) s, hn = GRU<hidden_size = 3, linear_before_reset = 1>(p, w, r, b, , h0)
        q = Squeeze(s, one) y = MatMul(q, c)""",
        {"a": (2, 4), "w": (1, 9, 4), "r": (1, 9, 3), "b": (1, 18), "c": (3, 2)},
        (1, "batch", 2),
        {"h0": ("hn", (1, "batch", 3))},
        26 + 6,
        {"one": np.array([1])},
    )


def lstm() -> Stateful:
    """LSTM with both states in one tensor."""
    return Stateful(
        """h, c = Split<axis = 0>(state_in) s, hn, cn = LSTM<hidden_size = 3>(x, w, r, b, , h, c)
        state_out = Concat<axis = 0>(hn, cn) q = Squeeze(s, one) y = MatMul(q, o)""",
        {"w": (1, 12, 2), "r": (1, 12, 3), "b": (1, 24), "o": (3, 2)},
        (1, "batch", 2),
        {"state_in": ("state_out", (2, "batch", 3))},
        12,
        {"one": np.array([1])},
    )


def causal() -> Stateful:
    """A causal convolution, frames side by side, with the last ones as its cache, behind a rectifier."""
    return Stateful(
        """s = MatMul(x, a) u = Add(s, p) v = Relu(u) w = Concat<axis = 1>(cache_in, v)
        cache_out = Slice(w, one, end, one) f = Reshape(w, flat) y = Gemm(f, b, q)""",
        {"a": (2, 4), "p": (4,), "b": (12, 2), "q": (2,)},
        ("batch", 1, 2),
        {"cache_in": ("cache_out", ("batch", 2, 4))},
        4,
        {"one": np.array([1]), "end": np.array([WIDE]), "flat": np.array([0, 12])},
    )


def attention(bias: bool = False) -> Stateful:
    """Attention of two heads to all tokens so far."""
    projected = " ".join(
        f"{n}_0 = MatMul(x, w{n}) {n}_1 = {f'Add({n}_0, b{n})' if bias else f'Identity({n}_0)'} "
        f"{n}_2 = Reshape({n}_1, split) {n}_3 = Transpose<perm = [0, 2, 1, 3]>({n}_2)"
        for n in "qkv"
    )
    biases = {f"b{n}": (6,) for n in "qkv"} if bias else {}
    out = {"wo": (6, 4), **({"bo": (4,)} if bias else {})}
    return Stateful(
        f"""{projected} present_0 = Concat<axis = 2>(past_0, k_3) present_1 = Concat<axis = 2>(past_1, v_3)
        t = Transpose<perm = [0, 1, 3, 2]>(present_0) s = MatMul(q_3, t) p = Softmax<axis = -1>(s)
        c = MatMul(p, present_1) m = Transpose<perm = [0, 2, 1, 3]>(c) f = Reshape(m, flat) o = MatMul(f, wo)
        y = {"Add(o, bo)" if bias else "Identity(o)"}""",
        {**{f"w{n}": (4, 6) for n in "qkv"}, **biases, **out},
        ("batch", 1, 4),
        {"past_0": ("present_0", ("batch", 2, "past", 3)), "past_1": ("present_1", ("batch", 2, "past", 3))},
        36 + (12 if bias else 0),
        {"split": np.array([0, 0, 2, 3]), "flat": np.array([0, 0, 6])},
    )


def convolutions() -> Stateful:
    """Two causal convolutions, each with the last frames that it has read as its cache."""
    return Stateful(
        """s = Concat<axis = 2>(cache_in_0, x) cache_out_0 = Slice(s, one, end, two) c = Conv(s, a, p) v = Relu(c)
        w = Concat<axis = 2>(cache_in_1, v) cache_out_1 = Slice(w, one, end, two) d = Conv(w, b, q) u = Relu(d)
        y = Conv(u, o)""",
        {"a": (4, 2, 3), "p": (4,), "b": (3, 4, 3), "q": (3,), "o": (2, 3, 1)},
        ("batch", 2, 1),
        {"cache_in_0": ("cache_out_0", ("batch", 2, 2)), "cache_in_1": ("cache_out_1", ("batch", 4, 2))},
        7,
        {"one": np.array([1]), "two": np.array([2]), "end": np.array([WIDE])},
    )


def llama() -> Stateful:
    """Two heads of queries over one of keys and values, turned by their place in rotary planes, with a cache."""
    turned = " ".join(
        f"{n}_a, {n}_b = Split<axis = -1>({n}_3) {n}_c = Mul({n}_a, c) {n}_d = Mul({n}_b, s) {n}_e = Sub({n}_c, {n}_d) "
        f"{n}_f = Mul({n}_b, c) {n}_g = Mul({n}_a, s) {n}_h = Add({n}_f, {n}_g) {n}_r = Concat<axis = -1>({n}_e, {n}_h)"
        for n in "qk"
    )
    projected = " ".join(
        f"{n}_0 = MatMul(x, w{n}) {n}_2 = Reshape({n}_0, split{n}) {n}_3 = Transpose<perm = [0, 2, 1, 3]>({n}_2)"
        for n in "qkv"
    )
    heads = {f"split{n}": np.array([0, 0, 2 if n == "q" else 1, 4]) for n in "qkv"}
    return Stateful(
        f"""{projected} shape = Shape(past_0) length = Gather(shape, two) place = CastLike(length, x)
        angle = Mul(place, speeds) c = Cos(angle) s = Sin(angle)
        {turned} present_0 = Concat<axis = 2>(past_0, k_r) present_1 = Concat<axis = 2>(past_1, v_3)
        t = Transpose<perm = [0, 1, 3, 2]>(present_0) z = MatMul(q_r, t) p = Softmax<axis = -1>(z)
        m = MatMul(p, present_1) h = Transpose<perm = [0, 2, 1, 3]>(m) f = Reshape(h, flat) y = MatMul(f, wo)""",
        {"wq": (4, 8), "wk": (4, 4), "wv": (4, 4), "wo": (8, 4)},
        ("batch", 1, 4),
        {"past_0": ("present_0", ("batch", 1, "past", 4)), "past_1": ("present_1", ("batch", 1, "past", 4))},
        16 + 4,
        {**heads, "two": np.array(2), "flat": np.array([0, 0, 8]), "speeds": np.array([0.9, 0.3])},
    )


def operator() -> Stateful:
    """The same with ONNX's operator for the turns, whose tables have a row for each sequence."""
    net = llama()
    start, end = net.text.index("shape = Shape"), net.text.index("present_0 = Concat")
    turned = """length = Shape<start = 2, end = 3>(past_0) place = CastLike(length, x) angle = Mul(place, speeds)
    count = Shape<end = 1>(x) rows = Concat<axis = 0>(count, one, planes) angles = Expand(angle, rows)
    c = Cos(angles) s = Sin(angles)
    q_r = RotaryEmbedding(q_3, c, s) k_r = RotaryEmbedding(k_3, c, s)"""
    turned = net.text[:start] + turned + " " + net.text[end:]
    sizes = {"one": np.array([1]), "planes": np.array([2])}
    return replace(net, text=turned, constants={**net.constants, **sizes}, opset=23)


def layers() -> Stateful:
    """Two layers of two heads, turned by angles that both layers read: each head has planes of its own."""

    def turned(n: str) -> str:
        return f"""{n}_a, {n}_b = Split<axis = -1>({n}_3) {n}_c = Mul({n}_a, c) {n}_d = Mul({n}_b, s)
            {n}_e = Sub({n}_c, {n}_d) {n}_f = Mul({n}_b, c) {n}_g = Mul({n}_a, s) {n}_h = Add({n}_f, {n}_g)
            {n}_r = Concat<axis = -1>({n}_e, {n}_h)"""

    def layer(k: int, x: str, y: str) -> str:
        projected = " ".join(
            f"{n}{k}_0 = MatMul({x}, w{n}{k}) {n}{k}_2 = Reshape({n}{k}_0, split{n}) "
            f"{n}{k}_3 = Transpose<perm = [0, 2, 1, 3]>({n}{k}_2)"
            for n in "qkv"
        )
        return f"""{projected} {turned(f"q{k}")} {turned(f"k{k}")}
            present_key_{k} = Concat<axis = 2>(past_key_{k}, k{k}_r)
            present_value_{k} = Concat<axis = 2>(past_value_{k}, v{k}_3)
            t{k} = Transpose<perm = [0, 1, 3, 2]>(present_key_{k}) z{k} = MatMul(q{k}_r, t{k})
            p{k} = Softmax<axis = -1>(z{k}) m{k} = MatMul(p{k}, present_value_{k})
            h{k} = Transpose<perm = [0, 2, 1, 3]>(m{k}) f{k} = Reshape(h{k}, flat) {y} = MatMul(f{k}, wo{k})"""

    return Stateful(
        f"""shape = Shape(past_key_0) length = Gather(shape, two) place = CastLike(length, x)
        angle = Mul(place, speeds) c = Cos(angle) s = Sin(angle)
        {layer(0, "x", "between")} {layer(1, "between", "y")}""",
        {f"w{n}{k}": {"v": (2, 2), "o": (2, 2)}.get(n, (2, 8)) for k in (0, 1) for n in "qkvo"},
        ("batch", 1, 2),
        {
            f"past_{n}_{k}": (f"present_{n}_{k}", ("batch", 2, "past", size))
            for k in (0, 1)
            for n, size in (("key", 4), ("value", 1))
        },
        24,
        {
            **{f"split{n}": np.array([0, 0, 2, 1 if n == "v" else 4]) for n in "qkv"},
            "two": np.array(2),
            "flat": np.array([0, 0, 2]),
            "speeds": np.array([0.9, 0.3]),
        },
    )


def zipformer() -> Stateful:
    """A streaming encoder: attention to the last frames and a convolution over them, in caches of one length."""
    window = " ".join(
        f"{n} = MatMul(x, w{n}) {n}_w = Concat<axis = 1>(cached_{n}, {n}) new_cached_{n} = Slice({n}_w, one, end, one)"
        for n in "kv"
    )
    return Stateful(
        f"""q = MatMul(x, wq) {window} t = Transpose<perm = [0, 2, 1]>(k_w) s = MatMul(q, t) p = Softmax<axis = -1>(s)
        c = MatMul(p, v_w) o = MatMul(c, wo) h = Transpose<perm = [0, 2, 1]>(o)
        d = Concat<axis = 2>(cached_conv, h) new_cached_conv = Slice(d, one, end, two)
        z = Conv<group = 4>(d, g) b = Transpose<perm = [0, 2, 1]>(z) y = MatMul(b, e)""",
        {**{f"w{n}": (4, 3) for n in "qkv"}, "wo": (3, 4), "g": (4, 1, 3), "e": (4, 4)},
        ("batch", 1, 4),
        {
            **{f"cached_{n}": (f"new_cached_{n}", ("batch", 2, 3)) for n in "kv"},
            "cached_conv": ("new_cached_conv", ("batch", 4, 2)),
        },
        9 + 9 + 8,
        {"one": np.array([1]), "two": np.array([2]), "end": np.array([WIDE])},
    )


def whisper() -> Stateful:
    """A decoder with its own cache and with one of an encoder, which is given and stays as it is."""
    return Stateful(
        """q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) present_0 = Concat<axis = 1>(past_0, k)
        present_1 = Concat<axis = 1>(past_1, v) t = Transpose<perm = [0, 2, 1]>(present_0) s = MatMul(q, t)
        p = Softmax<axis = -1>(s) c = MatMul(p, present_1) o = MatMul(c, wo) h = Add(x, o)
        r = MatMul(h, wr) i = Transpose<perm = [0, 2, 1]>(past_key_encoder) j = MatMul(r, i) l = Softmax<axis = -1>(j)
        m = MatMul(l, past_value_encoder) n = MatMul(m, wn) w = Add(h, n) y = MatMul(w, e)
        present_key_encoder = Identity(past_key_encoder) present_value_encoder = Identity(past_value_encoder)""",
        {**{f"w{n}": (4, 3) for n in "qkvr"}, **{f"w{n}": (3, 4) for n in "on"}, "e": (4, 4)},
        ("batch", 1, 4),
        {"past_0": ("present_0", ("batch", "past", 3)), "past_1": ("present_1", ("batch", "past", 3))},
        9 + 9,
        given={"past_key_encoder": ("batch", 5, 3), "past_value_encoder": ("batch", 5, 3)},
    )


STATEFUL = {
    "recurrence": recurrence(),
    "squashed": squashed(),
    "rectified": rectified(),
    "gru": gru(),
    "lstm": lstm(),
    "causal": causal(),
    "attention": attention(),
    "attention with biases": attention(bias=True),
    "convolutions": convolutions(),
    "llama": llama(),
    "operator": operator(),
    "layers": layers(),
    "zipformer": zipformer(),
    "whisper": whisper(),
}


def grouped_queries(size: int = 16) -> onnx.ModelProto:
    """A decoder as onnxruntime-genai has it: grouped queries in one operator, rotated by position, over a cache.

    Four heads of `size` numbers look up the keys and values of two.
    """
    rng, info = np.random.default_rng(0), helper.make_tensor_value_info
    sizes = {"emb": (32, 16), "wq": (16, 4 * size), "wk": (16, 2 * size), "wv": (16, 2 * size), "wo": (4 * size, 16)}
    sizes |= {"head": (16, 32)}
    stored = {name: (0.3 * rng.normal(size=shape)).astype(np.float32) for name, shape in sizes.items()}
    angles = np.outer(np.arange(128), 0.1 ** np.linspace(0, 2, size // 2, endpoint=False))
    stored |= {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}
    stored |= {"one": np.array([1]), "last": np.array(1)}
    text = """x = Gather(emb, input_ids) q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
    s = ReduceSum<keepdims = 0>(attention_mask, one) e = Sub(s, one) ends = Cast<to = 6>(e)
    shape = Shape(attention_mask) n = Gather(shape, last) total = Cast<to = 6>(n)
    a, present_k, present_v = com.microsoft.GroupQueryAttention<num_heads = 4, kv_num_heads = 2, do_rotary = 1>(
        q, k, v, past_k, past_v, ends, total, cos, sin)
    o = MatMul(a, wo) y = Add(o, x) logits = MatMul(y, head)"""
    token, number = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    inputs = [info("input_ids", token, ("batch", "sequence_length"))]
    inputs += [info("attention_mask", token, ("batch", "total_sequence_length"))]
    inputs += [info(f"past_{n}", number, ("batch", 2, "past_sequence_length", size)) for n in "kv"]
    outputs = [info("logits", number, ("batch", "sequence_length", 32))]
    outputs += [info(f"present_{n}", number, ("batch", 2, "total_sequence_length", size)) for n in "kv"]
    nodes = parse_graph(f"small () => () {{ {text} }}").node
    tensors = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
