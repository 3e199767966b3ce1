"""Small networks whose units are turned or shifted together.

They meet themselves or each other in lengths and sums of products, pass through maxima, or are shifted by what readers
without a bias take back.
"""

from __future__ import annotations

import numpy as np
from networks import HEADS, RMS, Net, attend, halves, heads, norm, rms

FEATURES = "u = Gemm(x, a, p) t = Tanh(u) f = Gemm(t, b, q)"
SIZES = {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,)}

LENGTHS = {
    "angles": Net(  # lengths of the classes, 4, and of the features, 1; O(3), 3
        f"""
        {FEATURES} n = ReduceL2<axes = [1]>(f) e = Div(f, n) l = ReduceL2<axes = [0]>(w) c = Div(w, l)
        y = MatMul(e, c)
        """,
        {**SIZES, "w": (3, 4)},
        {"x": (3,)},
        2,
        8,
    ),
    "angles_written": Net(  # the same as square, sum and root
        f"""
        {FEATURES} s = Mul(f, f) m = ReduceSum<keepdims = 1>(s, last) n = Sqrt(m) e = Div(f, n) ws = Pow(w, two)
        wm = ReduceSum<keepdims = 1>(ws, last) l = Sqrt(wm) wd = Div(w, l) c = Transpose<perm = [1, 0]>(wd)
        y = MatMul(e, c)
        """,
        {**SIZES, "w": (4, 3)},
        {"x": (3,)},
        2,
        8,
        {"last": [1], "two": 2.0},
    ),
    "angles_above_nothing": Net(  # the same where lengths are held above almost nothing, and spread as the features are
        f"""
        {FEATURES} l = ReduceL2<axes = [1]>(f) m = Clip(l, tiny) k = Shape(f) o = Expand(m, k) e = Div(f, o)
        w2 = Mul(w, w) ws = ReduceSum<keepdims = 1>(w2, last) wl = Sqrt(ws) wm = Max(wl, tiny) wd = Div(w, wm)
        c = Transpose<perm = [1, 0]>(wd) y = MatMul(e, c)
        """,
        {**SIZES, "w": (4, 3)},
        {"x": (3,)},
        2,
        8,
        {"last": [1], "tiny": 1e-12},
    ),
    "angles_shifted": Net(  # O(3) where nothing but a length and a scalar product is read
        f"{FEATURES} n = ReduceSumSquare<axes = [1]>(f) e = Add(n, one) c = MatMul(f, w) y = Div(c, e)",
        {**SIZES, "w": (3, 4)},
        {"x": (3,)},
        2,
        3,
        {"one": 1.0},
    ),
    "distances": Net(  # squared distances by Pow and a mean: O(3), 3; a shift of features and prototypes, 3
        f"""
        {FEATURES} g = Unsqueeze(f, one) d = Sub(g, c) m = Pow(d, two) s = ReduceMean<axes = [-1], keepdims = 0>(m)
        y = Neg(s)
        """,
        {**SIZES, "c": (5, 3)},
        {"x": (3,)},
        2,
        6,
        {"one": [1], "two": 2.0},
    ),
    "pairs_of_fields": Net(  # O(2) of the factors of a factorisation machine
        """
        z = Unsqueeze(x, last) v = Mul(z, e) s = ReduceSum<keepdims = 0>(v, one) s2 = Mul(s, s) v2 = Pow(v, two)
        d = ReduceSum<keepdims = 0>(v2, one) i = Sub(s2, d) o = ReduceSum<keepdims = 1>(i, one) h = Mul(o, half)
        l = MatMul(x, w) r = Add(l, h) y = Add(r, q)
        """,
        {"e": (5, 2), "w": (5, 1), "q": (1,)},
        {"x": (5,)},
        2,
        1,
        {"last": [-1], "one": [1], "two": 2.0, "half": 0.5},
    ),
    "capsules": Net(  # O(2) of each of three capsules, whose elements only its squashing and its reader see
        """
        u = Gemm(x, a, p) c = Reshape(u, apart) m = Mul(c, c) n = ReduceSum<keepdims = 1>(m, last) k = Add(n, one)
        r = Sqrt(k) d = Mul(c, n) s = Div(d, r) f = Reshape(s, flat) y = Gemm(f, b, q)
        """,
        {"a": (4, 6), "p": (6,), "b": (6, 7), "q": (7,)},
        {"x": (4,)},
        2,
        3,
        {"apart": [-1, 3, 2], "last": [-1], "one": 1.0, "flat": [-1, 6]},
    ),
}

MAXIMA = {
    "maxout": Net(  # a unit's scale, 3; its shift, 3
        "u = Gemm(x, a, p) g = Reshape(u, pairs) m = ReduceMax<axes = [-1], keepdims = 0>(g) y = Gemm(m, b, q)",
        {"a": (3, 6), "p": (6,), "b": (3, 4), "q": (4,)},
        {"x": (3,)},
        2,
        6,
        {"pairs": [-1, 3, 2]},
    ),
    "maxout_across": Net(  # the same with the places in front, and the least of them
        "u = Gemm(x, a, p) g = Reshape(u, pairs) m = ReduceMin<axes = [1], keepdims = 0>(g) y = Gemm(m, b, q)",
        {"a": (3, 6), "p": (6,), "b": (3, 4), "q": (4,)},
        {"x": (3,)},
        2,
        6,
        {"pairs": [-1, 2, 3]},
    ),
    "pooled_largest": Net(  # a channel's scale, 3, and its bias, 3, through windows that are padded
        "u = Conv(x, a, p) m = MaxPool<kernel_shape = [2], pads = [1, 0], strides = [2]>(u) y = Conv(m, b, q)",
        {"a": (3, 2, 2), "p": (3,), "b": (4, 3, 1), "q": (4,)},
        {"x": (2, 6)},
        3,
        6,
    ),
    "largest_of_all": Net(  # the same over all places, and channels that come last
        """
        t = Transpose<perm = [0, 2, 1]>(x) u = MatMul(t, a) v = Add(u, p) k = Transpose<perm = [0, 2, 1]>(v)
        f = ReduceMax<axes = [2], keepdims = 0>(k) y = Gemm(f, b, q)
        """,
        {"a": (2, 3), "p": (3,), "b": (3, 4), "q": (4,)},
        {"x": (2, 5)},
        2,
        6,
    ),
}

# All have the gain into the readers, 4, and the mean direction of what comes before the norm, 5.
UNBIASED = {
    "unbiased_readers": Net(  # O(4) fixing 1, 3; the shift, which the readers' mean directions take back, 4
        f"""
        e = Gemm(x, w, c) {norm("e", "n")} u = MatMul(n, a) t = Tanh(u) v = MatMul(n, b) k = Sigmoid(v) m = Mul(t, k)
        y = MatMul(m, d)
        """,
        {"w": (4, 4), "c": (4,), "g": (4,), "h": (4,), "a": (4, 3), "b": (4, 3), "d": (3, 2)},
        {"x": (4,)},
        2,
        16,
    ),
    "unbiased_head": Net(  # the same where one reader has a bias, and so a mean direction, 3, and one makes the output
        f"""
        e = Gemm(x, w, c) {norm("e", "n")} u = Gemm<transB = 1>(n, a, p) t = Tanh(u) v = Gemm(t, b, q)
        k = Gemm<transB = 1>(n, d) y = Concat<axis = 1>(v, k)
        """,
        {"w": (4, 4), "c": (4,), "g": (4,), "h": (4,), "a": (3, 4), "p": (3,), "b": (3, 2), "q": (2,), "d": (6, 4)},
        {"x": (4,)},
        2,
        19,
    ),
    "unbiased_after_written_norm": Net(  # the same norm written out, and a reader that is stored transposed
        """
        e = Gemm(x, w, c) mu = ReduceMean<axes = [-1]>(e) z = Sub(e, mu) z2 = Mul(z, z)
        var = ReduceMean<axes = [-1]>(z2) ve = Add(var, epsilon) sd = Sqrt(ve) zn = Div(z, sd) zg = Mul(zn, g)
        n = Add(zg, h) r = Transpose<perm = [1, 0]>(a) y = MatMul(n, r)
        """,
        {"w": (4, 4), "c": (4,), "g": (4,), "h": (4,), "a": (6, 4)},
        {"x": (4,)},
        2,
        16,
        {"epsilon": 0.1},
    ),
}

# One layer at two places of a stream: O(3) fixing 1, 1; gains 3 + 3 and shifts 3 + 3 into the readers; the mean
# direction of what writes the stream, 4 + 1 and 4 + 1, and of what reads it behind a norm, 4 and 3.
TWICE = {
    "norm_and_layer_twice": Net(
        f"""
        e = Gemm(x, w, c) {norm("e", "n1")} u1 = Gemm(n1, a, p) t1 = Tanh(u1) v1 = Gemm(t1, b, q) r1 = Add(e, v1)
        {norm("r1", "n2")} u2 = Gemm(n2, a, p) t2 = Tanh(u2) v2 = Gemm(t2, b, q) r2 = Add(r1, v2)
        {norm("r2", "n3", "g3", "h3")} y = Gemm(n3, d, s)
        """,
        {
            "w": (4, 3),
            "c": (3,),
            "g": (3,),
            "h": (3,),
            "a": (3, 4),
            "p": (4,),
            "b": (4, 3),
            "q": (3,),
            "g3": (3,),
            "h3": (3,),
            "d": (3, 3),
            "s": (3,),
        },
        {"x": (4,)},
        2,
        30,
    ),
    "norm_and_layer_twice_of_tokens": Net(  # as MatMul and Add
        f"""
        w0 = MatMul(x, w) e = Add(w0, c) {norm("e", "n1")} w1 = MatMul(n1, a) u1 = Add(p, w1) t1 = Tanh(u1)
        k1 = MatMul(t1, b) v1 = Add(q, k1) r1 = Add(e, v1) {norm("r1", "n2")} w2 = MatMul(n2, a) u2 = Add(p, w2)
        t2 = Tanh(u2) k2 = MatMul(t2, b) v2 = Add(q, k2) r2 = Add(r1, v2) {norm("r2", "n3", "g3", "h3")}
        w3 = MatMul(n3, d) y = Add(w3, s)
        """,
        {
            "w": (4, 3),
            "c": (3,),
            "g": (3,),
            "h": (3,),
            "a": (3, 4),
            "p": (4,),
            "b": (4, 3),
            "q": (3,),
            "g3": (3,),
            "h3": (3,),
            "d": (3, 3),
            "s": (3,),
        },
        {"x": (2, 4)},
        3,
        30,
    ),
    "difference": Net(  # a scale per unit, 4, and per feature, 3; the bias of the features, 3
        """
        u = Gemm(x, a, p) t = Relu(u) f = Gemm(t, b, q) v = Gemm(z, a, p) k = Relu(v) h = Gemm(k, b, q) d = Sub(f, h)
        m = Abs(d) y = Gemm(m, c, r)
        """,
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,), "c": (3, 4), "r": (4,)},
        {"x": (3,), "z": (3,)},
        2,
        10,
    ),
    "difference_of_places": Net(  # convolutions, pooled and squared: a scale per feature, 3; their bias, 3
        """
        u = Conv(x, a, p) t = Tanh(u) f = Conv(t, b, q) g = GlobalAveragePool(f) v = Conv(z, a, p) k = Tanh(v)
        h = Conv(k, b, q) j = GlobalAveragePool(h) d = Sub(g, j) e = Flatten(d) m = Mul(e, e) y = Gemm(m, c, r)
        """,
        {"a": (3, 2, 2), "p": (3,), "b": (3, 3, 1), "q": (3,), "c": (3, 4), "r": (4,)},
        {"x": (2, 4), "z": (2, 4)},
        2,
        6,
    ),
    "odd_power": Net(  # a scale per unit
        "u = Gemm(x, a, p) t = Relu(u) r = Pow(t, three) y = Gemm(r, b, q)",
        {"a": (3, 4), "p": (4,), "b": (4, 3), "q": (3,)},
        {"x": (3,)},
        2,
        4,
        {"three": 3.0},
    ),
    "even_power": Net(  # a scale per channel
        "u = Conv(x, a, p) r = Pow(u, four) y = Conv(r, b, q)",
        {"a": (3, 2, 2), "p": (3,), "b": (4, 3, 1), "q": (4,)},
        {"x": (2, 4)},
        3,
        3,
        {"four": 4.0},
    ),
    "larger_half": Net(  # max-feature-map: a channel's scale, 3, and its bias, 3, the same in both halves
        "u = Conv(x, a, p) l, r = Split<axis = 1>(u, halves) m = Max(l, r) y = Conv(m, b, q)",
        {"a": (6, 2, 2), "p": (6,), "b": (4, 3, 1), "q": (4,)},
        {"x": (2, 4)},
        3,
        6,
        {"halves": [3, 3]},
    ),
}

POSITIVE = {
    "softplus_of_weights": Net(  # monotone layers: a scale per unit, 4 + 3
        """
        u = Gemm(x, a, p) t = Relu(u) z = Softplus(w) zt = Transpose<perm = [1, 0]>(z) v = MatMul(t, zt)
        k = Gemm(x, b, q) s = Add(v, k) r = Relu(s) e = Softplus(o) y = MatMul(r, e)
        """,
        {"a": (3, 4), "p": (4,), "w": (3, 4), "b": (3, 3), "q": (3,), "o": (3, 3)},
        {"x": (3,)},
        2,
        7,
    ),
    "exponential_of_weights": Net(  # a scale per channel
        "u = Conv(x, a, p) t = Relu(u) e = Exp(w) r = Conv(t, e) k = Tanh(r) y = Conv(k, b, q)",
        {"a": (3, 2, 2), "p": (3,), "w": (4, 3, 1), "b": (3, 4, 1), "q": (3,)},
        {"x": (2, 4)},
        3,
        3,
    ),
    "exponential_gain": Net(  # a gain that is stored as its logarithm, against the reader
        "u = Gemm(x, a, p) t = Tanh(u) g = Exp(s) m = Mul(t, g) y = Gemm(m, b, q)",
        {"a": (3, 4), "p": (4,), "s": (4,), "b": (4, 5), "q": (5,)},
        {"x": (3,)},
        2,
        4,
    ),
}

# A query that is made of weights alone: any change of what its last bias takes back, and what keys have across it.
QUERIES = {
    "pooling_by_attention": Net(  # query 4, its weight 16; keys 8 of GL(2) and 2 more; values 8; their biases 4, 4
        f"""
        qw = MatMul(query, wq) q = Add(qw, bq) kw = MatMul(x, wk) k = Add(kw, bk) vw = MatMul(x, wv) v = Add(vw, bv)
        {heads("q", "k", "v")} {attend()} o = MatMul(f, wo) y = Add(o, bo)
        """,
        {
            "query": (1, 1, 4),
            "wq": (4, 4),
            "bq": (4,),
            "wk": (3, 4),
            "bk": (4,),
            "wv": (3, 4),
            "bv": (4,),
            "wo": (4, 3),
            "bo": (3,),
        },
        {"x": (4, 3)},
        3,
        46,
        HEADS,
    ),
    "scores_by_a_made_query": Net(  # query 2, its weight 4; of keys and their bias, 4, and 2 more
        """
        q = Gemm(query, wq, bq) u = Gemm(x, wk, bk) t = Tanh(x) s = Gemm<transB = 1>(u, q) y = Mul(s, t)
        """,
        {"query": (1, 2), "wq": (2, 2), "bq": (2,), "wk": (3, 2), "bk": (2,)},
        {"x": (3,)},
        2,
        12,
    ),
}

# A unit's scale, which is affine on the bias of what is added to one; the bias of what is added behind.
MODULATED = {
    "modulated": Net(  # scale, 4; bias, 4
        """
        u = Gemm(x, a, p) t = Tanh(u) g = Gemm(z, b, q) k = Add(g, one) m = Mul(t, k) h = Gemm(z, c, r) s = Add(m, h)
        y = Gemm(s, d, o)
        """,
        {"a": (3, 4), "p": (4,), "b": (2, 4), "q": (4,), "c": (2, 4), "r": (4,), "d": (4, 5), "o": (5,)},
        {"x": (3,), "z": (2,)},
        2,
        8,
        {"one": 1.0},
    ),
    "modulated_tokens": Net(  # scale and shift from one layer, along tokens: 4, 4
        """
        u0 = MatMul(x, a) u = Add(u0, p) t = Tanh(u) c = Gemm<transB = 1>(z, b, q) h, g = Split<axis = 1>(c, halves)
        k = Add(one, g) k3 = Unsqueeze(k, middle) m = Mul(k3, t) h3 = Unsqueeze(h, middle) s = Add(m, h3)
        v = MatMul(s, d) y = Add(v, o)
        """,
        {"a": (3, 4), "p": (4,), "b": (8, 2), "q": (8,), "d": (4, 5), "o": (5,)},
        {"x": (3, 3), "z": (2,)},
        3,
        8,
        {"one": 1.0, "halves": [4, 4], "middle": [1]},
    ),
    "modulated_channels": Net(  # channels through a rectifier, less what is taken from one: scale, 3
        """
        u = Conv(x, a, p) t = Tanh(u) g = Gemm(z, b, q) g1 = Unsqueeze(g, last) g4 = Resize(g1, , places)
        k = Sub(one, g4) m = Mul(t, k) s = Relu(m) y = Conv(s, d, o)
        """,
        {"a": (3, 2, 1), "p": (3,), "b": (2, 3), "q": (3,), "d": (4, 3, 2), "o": (4,)},
        {"x": (2, 4), "z": (2,)},
        3,
        3,
        {"one": 1.0, "last": [2], "places": [1.0, 1.0, 4.0]},
    ),
    "gain_above_one": Net(  # a gain that is stored as what it has above one, 4; O(4), 6
        f"o = Add(one, g) e = MatMul(x, w) {rms('e', 'n', 'o')} y = MatMul(n, a)",
        {"w": (5, 4), "g": (4,), "a": (4, 6)},
        {"x": (5,)},
        2,
        10,
        {**RMS, "one": 1.0},
    ),
}

ANGLES = np.arange(1, 5)[:, None] * [1.0, 0.3, 1.0, 0.3]
PLANES = {
    "rotary_stored": Net(  # each of two planes: rotation and scale of query against key, 4; GL(2) with both tables, 8
        f"""
        q = MatMul(x, wq) {halves("q")} k = MatMul(x, wk) {halves("k")} v = MatMul(x, wv)
        t = Transpose<perm = [0, 2, 1]>(k_y) s = MatMul(q_y, t) p = Softmax<axis = -1>(s) y = MatMul(p, v)
        """,
        {"wq": (5, 4), "wk": (5, 4), "wv": (5, 2)},
        {"x": (3, 5)},
        3,
        12,
        {"half": [2, 2]},
        fixed={"co": np.cos(ANGLES[:3]), "si": np.sin(ANGLES[:3])},
    ),
    "rotary_looked_up": Net(  # the same with a place more in both tables, which nothing reads, 8
        f"""
        co = Gather(cosines, places) si = Gather(sines, places) q = MatMul(x, wq) {halves("q")} k = MatMul(x, wk)
        {halves("k")} v = MatMul(x, wv) t = Transpose<perm = [0, 2, 1]>(k_y) s = MatMul(q_y, t)
        p = Softmax<axis = -1>(s) y = MatMul(p, v)
        """,
        {"wq": (5, 4), "wk": (5, 4), "wv": (5, 2)},
        {"x": (3, 5)},
        3,
        20,
        {"half": [2, 2], "places": [2, 0, 1]},
        fixed={"cosines": np.cos(ANGLES), "sines": np.sin(ANGLES)},
    ),
}

TURNED = {**PLANES, **POSITIVE, **MODULATED, **QUERIES, **LENGTHS, **MAXIMA, **UNBIASED, **TWICE}
