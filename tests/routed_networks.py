"""Small networks that send each token to some of their experts, in the ways in which exporters write that."""

from __future__ import annotations

from networks import Net, Shapes, each

ROUTER = """
    h = MatMul(x, w_in) l = Gemm(h, g, gb) z = Softmax<axis = -1>(l) w, i = TopK<axis = -1>(z, two)
    n = Shape(h) zeros = ConstantOfShape(n) none = Cast<to = 1>(zeros)
"""
END = "y = MatMul(r, w_out)"
WEIGHTS: Shapes = {"w_in": (3, 3), "g": (3, 3), "gb": (3,), "w_out": (3, 3)}
APART: Shapes = {**WEIGHTS, **each(3, a=(3, 2), b=(2, 3))}
TOGETHER: Shapes = {**WEIGHTS, "a": (3, 3, 2), "b": (3, 2, 3)}
NUMBERS: dict[str, object] = {
    "two": [2],
    "first": [0],
    "second": [1],
    "last": [-1],
    "on": [0, 1],
    "three": 3,
    "halves": [1, 1],
    "wide": [1, 3],
    "every": -1,
    "ones": [1, 1, 1],
    "over": [1, 2],
    "both": [0, 1],
    **{f"e{k}": k for k in range(3)},
    **{f"f{k}": [k] for k in range(3)},
}
INPUT: Shapes = {"x": (3,)}


def expert(k: int, tokens: str, a: str = "", b: str = "") -> str:
    """What expert k makes, as o, of some tokens."""
    return f"u{k} = MatMul({tokens}, {a or f'a{k}'}) v{k} = Relu(u{k}) o{k} = MatMul(v{k}, {b or f'b{k}'})"


def sent(k: int, rows: str, add: str) -> str:
    """The tokens in rows of a mask of places and tokens through expert k, and back."""
    return f"""
        nz{k} = NonZero({rows}) p{k}, t{k} = Split<axis = 0>(nz{k}, halves) place{k} = Squeeze(p{k}, first)
        token{k} = Squeeze(t{k}, first) c{k} = Gather<axis = 0>(h, token{k}) {add}
        at{k} = Concat<axis = 0>(t{k}, p{k}) both{k} = Transpose<perm = [1, 0]>(at{k}) s{k} = GatherND(w, both{k})
        col{k} = Unsqueeze(s{k}, second) m{k} = Mul(o{k}, col{k}) long{k} = Unsqueeze(token{k}, second)
        size{k} = Shape(m{k}) index{k} = Expand(long{k}, size{k})
    """


def added(k: int) -> str:
    """What is sent back, onto what the experts before have made, in a scatter that adds."""
    return f'r{k + 1} = ScatterElements<axis = 0, reduction = "add">(r{k}, index{k}, m{k})'


def beside(k: int) -> str:
    """The same by a scatter into zeros, and a sum."""
    return f"part{k} = ScatterElements<axis = 0>(none, index{k}, m{k}) r{k + 1} = Add(r{k}, part{k})"


MASKS = "hot = OneHot<axis = -1>(i, three, on) masks = Transpose<perm = [2, 1, 0]>(hot) r0 = Identity(none)"
HIT = """
    counts = ReduceSum<keepdims = 0>(masks, over) met = Greater(counts, every) hits = NonZero(met)
    column = Transpose<perm = [1, 0]>(hits) k0, k1, k2 = Split<axis = 0>(column, ones)
"""


def by_index(back: str = "added") -> str:
    """Experts of their own behind NonZero of a one-hot mask."""
    write = {"added": added, "beside": beside}[back]
    parts = [
        f"row{k} = Gather<axis = 0>(masks, e{k}) {sent(k, f'row{k}', expert(k, f'c{k}'))} {write(k)}" for k in range(3)
    ]
    return f"{ROUTER} {MASKS} {' '.join(parts)} r = Add(h, r3) {END}"


def by_hit() -> str:
    """Experts in one tensor, of which NonZero lists those that are met: as many as the file says."""
    parts = [
        f"""
        one{k} = Squeeze(k{k}) row{k} = Gather<axis = 0>(masks, one{k}) up{k} = Gather<axis = 0>(a, one{k})
        down{k} = Gather<axis = 0>(b, one{k})
        {sent(k, f"row{k}", expert(k, f"c{k}", f"up{k}", f"down{k}"))} {added(k)}
        """
        for k in range(3)
    ]
    return f"{ROUTER} {MASKS} {HIT} {' '.join(parts)} r = Add(h, r3) {END}"


def by_mask() -> str:
    """The best expert alone, whose tokens a mask picks and a scatter writes back."""
    parts = [
        f"""
        q{k} = Equal(best, e{k}) nz{k} = NonZero(q{k}) at{k} = Transpose<perm = [1, 0]>(nz{k}) c{k} = GatherND(h, at{k})
        s{k} = GatherND(top, at{k}) {expert(k, f"c{k}")} col{k} = Unsqueeze(s{k}, second) m{k} = Mul(o{k}, col{k})
        r{k + 1} = ScatterND(r{k}, at{k}, m{k})
        """
        for k in range(3)
    ]
    chosen = "best = Gather<axis = 1>(i, e0) top = Gather<axis = 1>(w, e0) r0 = Identity(none)"
    return f"{ROUTER} {chosen} {' '.join(parts)} r = Add(h, r3) {END}"


def by_place(pick: str) -> str:
    """All experts on all tokens, stacked; some of what they make is picked."""
    stacked = " ".join(f"{expert(k, 'h')} d{k} = Unsqueeze(o{k}, second)" for k in range(3))
    return f"""
        {ROUTER} {stacked} all = Concat<axis = 1>(d0, d1, d2) {pick} ws = Unsqueeze(w, last)
        m = Mul(picked, ws) s = ReduceSum<keepdims = 0>(m, second) r = Add(h, s) {END}
    """


def in_loop() -> str:
    """Experts in one tensor, one after another in a loop."""
    row = "row = Gather<axis = 0>(masks, step) up = Gather<axis = 0>(a, step) down = Gather<axis = 0>(b, step)"
    body = f"{row} {sent(0, 'row', expert(0, 'c0', 'up', 'down'))} {added(0)} still = Identity(go)"
    kinds = "(int64 step, bool go, float[n, 3] r0) => (bool still, float[n, 3] r1)"
    masks = MASKS.replace("r0 = Identity(none)", "")
    return f"{ROUTER} {masks} r3 = Loop<body = one {kinds} {{ {body} }}>(three, yes, none) r = Add(h, r3) {END}"


def in_parts(split: str) -> str:
    """Tokens in the order of their experts, cut where one ends."""
    experts = " ".join(expert(k, f"c{k}") for k in range(3))
    return f"""
        {ROUTER} hot = OneHot<axis = -1>(i, three, on) counts = ReduceSum<keepdims = 0>(hot, both)
        flat = Reshape(i, last) back = Neg(flat) length = Shape(flat) sorted, order = TopK<axis = 0>(back, length)
        two0 = Squeeze(two) token = Div(order, two0) c = Gather<axis = 0>(h, token) {split} {experts}
        o = Concat<axis = 0>(o0, o1, o2) weights = Reshape(w, last) s = Gather<axis = 0>(weights, order)
        col = Unsqueeze(s, second) m = Mul(o, col) long = Unsqueeze(token, second) size = Shape(m)
        index = Expand(long, size)
        r1 = ScatterElements<axis = 0, reduction = "add">(none, index, m) r = Add(h, r1) {END}
    """


PARTS = "parts = SplitToSequence<axis = 0>(c, counts) " + " ".join(f"c{k} = SequenceAt(parts, e{k})" for k in range(3))
ELEMENTS = "long = Unsqueeze(i, last) size = Concat<axis = 0>(every1, two, wide3) index = Expand(long, size)"
ROUTED = {  # GL(3) of the stream, 9; the units of every expert, 6; what softmax does not see, 4
    "routed_index_add": Net(by_index(), APART, INPUT, 2, 19, NUMBERS),
    "routed_scatter_beside": Net(by_index("beside"), APART, INPUT, 2, 19, NUMBERS),
    "routed_hit_experts": Net(by_hit(), TOGETHER, INPUT, 2, 19, NUMBERS),
    "routed_in_loop": Net(in_loop(), TOGETHER, INPUT, 2, 19, {**NUMBERS, "yes": True}),
    "routed_in_parts": Net(in_parts("c0, c1, c2 = Split<axis = 0>(c, counts)"), APART, INPUT, 2, 19, NUMBERS),
    "routed_in_sequence": Net(in_parts(PARTS), APART, INPUT, 2, 19, NUMBERS),
    "routed_by_mask": Net(by_mask(), APART, INPUT, 2, 19, NUMBERS),
    "routed_gather_elements": Net(
        by_place(f"{ELEMENTS} picked = GatherElements<axis = 1>(all, index)"),
        APART,
        INPUT,
        2,
        19,
        {**NUMBERS, "every1": [1], "wide3": [3]},
    ),
    "routed_gather_nd": Net(
        by_place("long = Unsqueeze(i, last) picked = GatherND<batch_dims = 1>(all, long)"),
        APART,
        INPUT,
        2,
        19,
        NUMBERS,
    ),
}

# What is shifted before experts is taken back by the biases that the same index chooses.
ROUTED |= {
    "chosen_by_input": Net(  # GL(4), 16; the bias before, 4
        """
        e0 = MatMul(x, w) e = Add(e0, c) i = ArgMax<axis = 1, keepdims = 0>(x) a1 = Gather(a, i) b1 = Gather(b, i)
        e3 = Unsqueeze(e, one) u3 = MatMul(e3, a1) u = Squeeze(u3, one) v = Add(b1, u) t = Tanh(v) y = MatMul(t, d)
        """,
        {"w": (5, 4), "c": (4,), "a": (5, 4, 3), "b": (5, 3), "d": (3, 2)},
        {"x": (5,)},
        2,
        20,
        {"one": [1]},
    ),
    "chosen_by_score": Net(  # GL(4), 16; the bias before, 4, which the router's takes back; the shift of scores, 4 + 1
        """
        e0 = MatMul(x, w) e = Add(e0, c) r0 = MatMul(e, r) s = Add(r0, q) l, i = TopK<axis = 1>(s, once)
        h = Softmax<axis = 1>(s) g = ReduceMax<axes = [1]>(h) j = Squeeze(i, one) a1 = Gather(a, j) b1 = Gather(b, j)
        e3 = Unsqueeze(e, one) u3 = MatMul(e3, a1) u = Squeeze(u3, one) v = Add(u, b1) t = Tanh(v) k = MatMul(t, d)
        y = Mul(g, k)
        """,
        {"w": (5, 4), "c": (4,), "r": (4, 3), "q": (3,), "a": (3, 4, 3), "b": (3, 3), "d": (3, 2)},
        {"x": (5,)},
        2,
        25,
        {"one": [1], "once": [1]},
    ),
    "read_before_a_branch": Net(  # GL(4), 16; what a reads across what there is by then, 5; biases c and h, 4 each
        """
        e0 = MatMul(x, w) e = Add(e0, c) u0 = MatMul(e, a) u = Add(u0, b) t = Tanh(u) v0 = MatMul(t, f) v = Add(v0, h)
        s = Add(e, v) z = MatMul(s, d) y = Add(z, o)
        """,
        {"w": (3, 4), "c": (4,), "a": (4, 5), "b": (5,), "f": (5, 4), "h": (4,), "d": (4, 5), "o": (5,)},
        {"x": (3,)},
        2,
        29,
    ),
}
