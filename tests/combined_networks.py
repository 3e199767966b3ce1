"""Small networks in which symmetries meet: changes that pass through one another, heads that are mixed or cut apart."""

from __future__ import annotations

from networks import HEADS, Net, Shapes, attend, heads, recurrent

TOKENS: Shapes = {"x": (3, 4)}
PROJECTED: Shapes = {"wq": (4, 4), "bq": (4,), "wk": (4, 4), "bk": (4,)}
PROJECTIONS = "qm = MatMul(x, wq) q = Add(qm, bq) km = MatMul(x, wk) k = Add(bk, km)"


def after_linear(op: str, gates: int, dimension: int, *, directions: int = 1, **more: str) -> Net:
    """A recurrent layer on what a linear one makes of fewer numbers."""
    net = recurrent(op, gates, dimension, directions=directions, **more)
    return Net(
        f"l = MatMul(x, e) g = Add(z, l) {net.text.replace('(x)', '(g)')}",
        {"e": (2, 3), "z": (3,), **net.weights},
        {"x": (4, 2)},
        3,
        dimension,
        net.constants,
    )


def mixing(mix: str, dimension: int) -> Net:
    """Attention of which the weights of its two heads are mixed after the softmax, into what d is."""
    scores = attend(values="v_h").split("c = ")[0]
    return Net(
        f"""
        {PROJECTIONS} vm = MatMul(x, wv) v = Add(vm, bv) {heads("q", "k", "v")} {scores} {mix}
        c = MatMul(d, v_h) m = Transpose<perm = [0, 2, 1, 3]>(c) f = Reshape(m, flat) o = MatMul(f, wo) y = Add(o, bo)
        """,
        {**PROJECTED, "wv": (4, 4), "bv": (4,), "mix": (2, 2), "wo": (4, 3), "bo": (3,)},
        TOKENS,
        3,
        dimension,
        HEADS,
    )


def subtracted(cut: str, dimension: int) -> Net:
    """The difference of two heads that are cut apart, on values without heads."""
    return Net(
        f"{PROJECTIONS} {heads('q', 'k')} {cut} v = MatMul(x, wv) c = MatMul(d, v) y = MatMul(c, wo)",
        {**PROJECTED, "wv": (4, 3), "wo": (3, 5)},
        TOKENS,
        3,
        dimension,
        {"split": HEADS["split"], "root": 1.5, "zero": 0, "one": 1, "second": [1], "halves": [1, 1], "share": 0.4},
    )


TABLE = """
    t = Gather<axis = 0>(values, found) p = Softmax<axis = -1>(w) r = Unsqueeze(p, second) m = MatMul(r, t)
    y = Squeeze(m, second)
"""
SCORES = attend().split("p = ")[0]

COMBINED = {
    "rnn_after_linear": after_linear("RNN", 1, 13),  # GL(3) and 3 shifts, less what both do, 11; two biases, 2
    "gru_after_linear": after_linear(
        "GRU", 3, 19, linear_before_reset="1"
    ),  # GL(3), 9; 3 shifts; unwritten, 3; biases, 4
    "lstm_after_linear": after_linear(  # GL(3), 9; 3 shifts; what 16 gates read and nothing writes, 13; two biases, 16
        "LSTM", 4, 41, directions=2, direction='"bidirectional"'
    ),
    "widened": Net(  # GL(4), 16; 4 shifts; what 7 units read and 2 numbers do not write, 2 (7 - 4)
        "u = Gemm(x, a, p) v = Gemm(u, b, q) t = Tanh(v) y = Gemm(t, c, r)",
        {"a": (2, 4), "p": (4,), "b": (4, 7), "q": (7,), "c": (7, 2), "r": (2,)},
        {"x": (2,)},
        2,
        26,
    ),
    "widened_for_two": Net(  # as widened for 6 units, 24
        """
        m = MatMul(x, a) u = Add(m, p) v = MatMul(u, b) w = Add(q, v) t = Tanh(w) k = MatMul(u, d) l = Add(k, s)
        o = Sigmoid(l) g = Mul(t, o) y = MatMul(g, c)
        """,
        {"a": (2, 4), "p": (4,), "b": (4, 3), "q": (3,), "d": (4, 3), "s": (3,), "c": (3, 2)},
        {"x": (2,)},
        2,
        24,
    ),
    "widened_convs": Net(  # GL(3), 9; 3 shifts; what 5 channels read and 2 numbers do not write, 2
        "u = Conv(x, a, p) v = Conv(u, b, q) t = Tanh(v) y = Conv(t, c)",
        {"a": (3, 1, 2), "p": (3,), "b": (5, 3, 1), "q": (5,), "c": (2, 5, 1)},
        {"x": (1, 6)},
        3,
        14,
    ),
    "heads_mixed": mixing(  # GL(2) twice per head, 16; key bias, 4; value bias into the output's, 4; scales, 2
        """
        turned = Transpose<perm = [0, 2, 3, 1]>(p) mixed = MatMul(turned, mix)
        d = Transpose<perm = [0, 3, 1, 2]>(mixed)
        """,
        26,
    ),
    "heads_mixed_einsum": mixing('d = Einsum<equation = "bhqk,gh->bgqk">(p, mix)', 26),
    "heads_subtracted": subtracted(  # GL(2) of each head, 8; its key bias, 4; GL(3) of the values, 9
        f"""
        {SCORES} p = Softmax<axis = -1>(s) i = Gather<axis = 1>(p, zero) j = Gather<axis = 1>(p, one)
        h = Mul(j, share) d = Sub(i, h)
        """,
        21,
    ),
    "heads_split": subtracted(
        f"""
        {SCORES} i_1, j_1 = Split<axis = 1>(s, halves) i_s = Squeeze(i_1, second) j_s = Squeeze(j_1, second)
        i = Softmax<axis = -1>(i_s) j = Softmax<axis = -1>(j_s) h = Mul(j, share) d = Sub(i, h)
        """,
        21,
    ),
    "best_then_softmax": Net(  # the shift of all logits, 3 + 1
        f"l = Gemm(x, g, b) w, i = TopK<axis = -1>(l, two) found = Identity(i) {TABLE}",
        {"g": (3, 5), "b": (5,), "values": (5, 2)},
        {"x": (3,)},
        2,
        4,
        {"two": [2], "second": [1]},
    ),
    "product_keys": Net(  # GL(2) of each half of the query, 8; the mean of each set of keys, 2 + 2
        f"""
        q = Gemm(x, a, z) q1, q2 = Split<axis = 1>(q, halves) s1 = MatMul(q1, k1) s2 = MatMul(q2, k2)
        w1, i1 = TopK<axis = -1>(s1, two) w2, i2 = TopK<axis = -1>(s2, two) u1 = Unsqueeze(w1, third)
        u2 = Unsqueeze(w2, second) u = Add(u1, u2) v = Reshape(u, flat) w, i = TopK<axis = -1>(v, two)
        j1 = Unsqueeze(i1, third) j2 = Unsqueeze(i2, second) row = Mul(j1, three) j = Add(row, j2)
        places = Reshape(j, flat) found = GatherElements<axis = 1>(places, i) {TABLE}
        """,
        {"a": (3, 4), "z": (4,), "k1": (2, 3), "k2": (2, 3), "values": (9, 2)},
        {"x": (3,)},
        2,
        12,
        {"two": [2], "halves": [2, 2], "second": [1], "third": [2], "flat": [0, 4], "three": 3},
    ),
    "parallel_strided": Net(  # all of the pointwise one goes into the wide one's middle
        """
        u = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, a) v = Conv<strides = [2, 2]>(x, b, q) s = Add(v, u)
        t = Tanh(s) y = Conv(t, c)
        """,
        {"a": (2, 2, 3, 3), "b": (2, 2, 1, 1), "q": (2,), "c": (2, 2, 1, 1)},
        {"x": (2, 4, 4)},
        4,
        4,
    ),
    "parallel_dilated": Net(  # as parallel_strided, 4 + 2; the middle is the second of four
        """
        u = Conv<pads = [2, 4], dilations = [2]>(x, a, p) v = Conv(x, b, q) s = Add(u, v) t = Tanh(s) y = Conv(t, c)
        """,
        {"a": (2, 2, 4), "p": (2,), "b": (2, 2, 1), "q": (2,), "c": (2, 2, 1)},
        {"x": (2, 6)},
        3,
        6,
    ),
    "parallel_matmul": Net(  # all of the product goes into the convolution's middle, 4; and its bias, 2
        """
        u = Conv<pads = [1, 1]>(x, a, p) k = Transpose<perm = [0, 2, 1]>(x) l = MatMul(k, b) m = Add(l, q)
        v = Transpose<perm = [0, 2, 1]>(m) s = Add(u, v) t = Tanh(s) y = Conv(t, c)
        """,
        {"a": (2, 2, 3), "p": (2,), "b": (2, 2), "q": (2,), "c": (2, 2, 1)},
        {"x": (2, 6)},
        3,
        6,
    ),
    "normalised_beside": Net(  # the gain goes into the middle's diagonal, 2; biases, 2; a scale per channel, 2
        """
        u = Conv<pads = [1, 1]>(x, a, p) n = BatchNormalization(x, g, h, mean, var) s = Add(n, u) t = Relu(s)
        y = Conv(t, c)
        """,
        {"a": (2, 2, 3), "p": (2,), "g": (2,), "h": (2,), "mean": (2,), "var": (2,), "c": (3, 2, 1)},
        {"x": (2, 6)},
        3,
        6,
    ),
    "normalised_branches": Net(  # RepVGG: kernel of one, 4, and gain of the input, 2; biases, 4; gains, 2 + 2
        """
        u = Conv<pads = [1, 1]>(x, a) k = BatchNormalization(u, g, h, mean, var) v = Conv(x, b)
        l = BatchNormalization(v, i, j, mean_1, var_1) m = BatchNormalization(x, o, p, mean_2, var_2)
        r = Add(k, l) s = Add(r, m) t = Tanh(s) y = Conv(t, c)
        """,
        {
            "a": (2, 2, 3),
            "b": (2, 2, 1),
            **dict.fromkeys(("g", "h", "mean", "var", "i", "j", "mean_1", "var_1", "o", "p", "mean_2", "var_2"), (2,)),
            "c": (3, 2, 1),
        },
        {"x": (2, 6)},
        3,
        14,
    ),
    "normalised_alike": Net(  # the same kernel twice, 12; biases, 2; gain against kernel of both, 2 + 2
        """
        u = Conv<pads = [1, 1]>(x, a) k = BatchNormalization(u, g, h, mean, var) v = Conv<pads = [1, 1]>(x, b)
        l = BatchNormalization(v, i, j, mean_1, var_1) s = Add(k, l) t = Tanh(s) y = Conv(t, c)
        """,
        {
            "a": (2, 2, 3),
            "b": (2, 2, 3),
            **dict.fromkeys(("g", "h", "mean", "var", "i", "j", "mean_1", "var_1"), (2,)),
            "c": (3, 2, 1),
        },
        {"x": (2, 6)},
        3,
        18,
    ),
    "channels_beside": Net(  # depthwise: a gain, 3, and biases, 3, into the middle of a kernel
        """
        u = Conv<pads = [1, 1], group = 3>(x, a, p) v = Conv<group = 3>(x, b, q) s = Add(u, v) t = Tanh(s)
        y = Conv(t, c)
        """,
        {"a": (3, 1, 3), "p": (3,), "b": (3, 1, 1), "q": (3,), "c": (2, 3, 1)},
        {"x": (3, 6)},
        3,
        6,
    ),
    "gained_branches": Net(  # all of one layer goes into the other, 9, and so do both gains, 3 + 3
        "u = Gemm(x, a, p) k = Mul(u, g) v = MatMul(x, b) l = Mul(h, v) s = Add(k, l) t = Tanh(s) y = MatMul(t, c)",
        {"a": (3, 3), "p": (3,), "g": (3,), "b": (3, 3), "h": (3,), "c": (3, 2)},
        {"x": (3,)},
        2,
        15,
    ),
    "normalised_beside_adapter": Net(  # the same, 3 + 3; all of a and b goes into what is beside them, 12
        """
        v = MatMul(x, a) w = MatMul(v, b) u = Gemm(x, d, p) n = BatchNormalization(x, g, h, mean, var) s = Add(u, n)
        k = Add(s, w) t = Tanh(k) y = MatMul(t, c)
        """,
        {
            "a": (3, 2),
            "b": (2, 3),
            "d": (3, 3),
            "p": (3,),
            "g": (3,),
            "h": (3,),
            "mean": (3,),
            "var": (3,),
            "c": (3, 4),
        },
        {"x": (3,)},
        2,
        18,
    ),
    "scan_of_heads": Net(  # Mamba-2: GL(2) of each head's values, 8, and of states, 4; states, skip and reader, 1
        """
        p = MatMul(x, a) v, w, r, t = Split<axis = -1>(p, cuts) d = Add(t, o) e = Softplus(d) k = Exp(f)
        v4 = Reshape(v, heads) e4 = Unsqueeze(e, last) m = Mul(v4, e4) m_0 = Gather<axis = 1>(m, zero)
        m_1 = Gather<axis = 1>(m, one) w_0 = Gather<axis = 1>(w, zero) w_1 = Gather<axis = 1>(w, one)
        r_1 = Gather<axis = 1>(r, one) e_1 = Gather<axis = 1>(e, one) z = Mul(e_1, k) i = Neg(z) decay = Exp(i)
        m_0u = Unsqueeze(m_0, last) m_1u = Unsqueeze(m_1, last) w_0u = Reshape(w_0, state) w_1u = Reshape(w_1, state)
        r_1u = Reshape(r_1, state) h_0 = Mul(m_0u, w_0u) h_1 = Mul(m_1u, w_1u) g = Unsqueeze(decay, both)
        h_g = Mul(h_0, g) h = Add(h_g, h_1) l = Mul(h, r_1u) s = ReduceSum<keepdims = 0>(l, last)
        v_1 = Gather<axis = 1>(v4, one) q_1 = Unsqueeze(q, second) skip = Mul(v_1, q_1) b = Add(s, skip)
        flat_b = Reshape(b, flat) y = MatMul(flat_b, c)
        """,
        {"a": (3, 10), "o": (2,), "f": (2,), "q": (2,), "c": (4, 4)},
        {"x": (2, 3)},
        2,
        13,
        {
            "cuts": [4, 2, 2, 2],
            "heads": [0, 0, 2, 2],
            "last": [-1],
            "second": [1],
            "zero": 0,
            "one": 1,
            "state": [-1, 1, 1, 2],
            "both": [2, 3],
            "flat": [-1, 4],
        },
    ),
}

# Units of which no factor says which group has them: 2 groups of 3 meet 3 groups of 2.
GROUPED = {
    "shuffled_between_groups": Net(  # a scale per unit on both sides of a normalisation, 6 + 6; what the shift adds, 6
        """
        u = Conv<group = 2>(x, a, p) b = BatchNormalization(u, g, h, mean, var) r = Mul(b, b) s = Reshape(r, apart)
        t = Transpose<perm = [0, 2, 1, 3]>(s) m = Reshape(t, whole) y = Conv<group = 2>(m, c, q)
        """,
        {"a": (6, 2, 1), "p": (6,), "g": (6,), "h": (6,), "mean": (6,), "var": (6,), "c": (6, 3, 2), "q": (6,)},
        {"x": (4, 4)},
        3,
        18,
        {"apart": [0, 2, 3, 4], "whole": [0, 6, 4]},
    ),
    "groups_beside_a_stream": Net(  # a scale per channel of the stream, 6, and of the layer between, 6
        """
        u = Conv(x, a, p) r = LeakyRelu<alpha = 0.5>(u) v = Conv<group = 2>(r, b, o) k = LeakyRelu<alpha = 0.5>(v)
        w = Conv<group = 3>(k, c, q) s = Add(r, w) f = LeakyRelu<alpha = 0.5>(s) y = Conv(f, d, e)
        """,
        {
            "a": (6, 4, 1),
            "p": (6,),
            "b": (6, 3, 1),
            "o": (6,),
            "c": (6, 2, 1),
            "q": (6,),
            "d": (7, 6, 1),
            "e": (7,),
        },
        {"x": (4, 4)},
        3,
        12,
    ),
    "grouped_products": Net(  # as products of stacks of matrices, with channels last: a scale per unit, 6
        """
        x4 = Reshape(x, two) u = MatMul(x4, a) f = Reshape(u, whole) v = Add(f, p) r = Mul(v, v) t4 = Reshape(r, three)
        w = MatMul(t4, c) y0 = Reshape(w, flat) y = Add(q, y0)
        """,
        {"a": (2, 2, 3), "p": (6,), "c": (3, 2, 2), "q": (6,)},
        {"x": (4,)},
        2,
        6,
        {"two": [-1, 2, 1, 2], "whole": [-1, 6], "three": [-1, 3, 1, 2], "flat": [-1, 6]},
    ),
}
COMBINED |= GROUPED
