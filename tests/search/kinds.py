"""Blocks of which each has a kind of symmetry that few networks have, as one exporter or another would write it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from builder import BATCH, Builder, Unfit, Value
from grammar import LAST, Inside, activate, block, width

# -- planes -----------------------------------------------------------------------------------------------------------


def _angles(b: Builder, long: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of every position and pair."""
    angles = np.arange(1, long + 1)[:, None] * 3.0 ** -np.arange(pairs)
    return np.cos(angles), np.sin(angles)


def _halves(b: Builder, x: str, cos: np.ndarray, sin: np.ndarray) -> str:
    """Pairs as far apart as half of the units, with tables that are joined by the exporter or in the network."""
    pairs = cos.shape[1]
    if b.chance(0.5):
        cosine, sine = (b.numbers(np.concatenate([t, t], axis=1)) for t in (cos, sin))
    else:
        cosine, sine = (b.node("Concat", t, t, axis=-1) for t in map(b.numbers, (cos, sin)))
    if b.chance(0.5):
        left, right = b.split(x, [pairs, pairs], 3)
    else:
        left, right = b.slice(x, 0, pairs, 3), b.slice(x, pairs, 2 * pairs, 3)
    other = b.node("Concat", b.node("Neg", right), left, axis=3)
    return b.add(b.node("Mul", x, cosine), b.node("Mul", other, sine))


def _neighbours(b: Builder, x: str, cos: np.ndarray, sin: np.ndarray, shape: tuple[int | str, ...]) -> str:
    """Pairs of units beside each other."""
    pairs = cos.shape[1]
    if b.chance(0.5):
        apart = b.reshape(x, (*shape[:3], pairs, 2), source=shape)
        even, odd = (b.node("Gather", apart, b.whole(k), axis=4) for k in range(2))
    else:
        even, odd = (b.slice(x, k, 2 * pairs, 3, 2) for k in range(2))
    if b.chance(0.5):
        cosine, sine = (b.numbers(np.repeat(t, 2, axis=1)) for t in (cos, sin))
        parts = [b.unsqueeze(t, [4]) for t in (b.node("Neg", odd), even)]
        other = b.reshape(b.node("Concat", *parts, axis=4), shape, source=shape)
        return b.add(b.node("Mul", x, cosine), b.node("Mul", other, sine))
    cosine, sine = b.numbers(cos), b.numbers(sin)
    first = b.node("Sub", b.node("Mul", even, cosine), b.node("Mul", odd, sine))
    second = b.add(b.node("Mul", odd, cosine), b.node("Mul", even, sine))
    joined = b.node("Concat", *(b.unsqueeze(t, [4]) for t in (first, second)), axis=4)
    return b.reshape(joined, shape, source=shape)


@block("tokens")
def rotary(b: Builder, x: Value, inside: Inside) -> Value:
    """Attention whose queries and keys are turned by stored angles, perhaps in a part of their units."""
    heads, size = int(b.pick(1, 2)), int(b.pick(2, 4, 6))
    long, biased = int(x.shape[1]), b.chance(0.5)
    near, past = b.chance(0.5), int(b.pick(0, 0, 2))
    cos, sin = _angles(b, long, size // 2)
    shape = (BATCH, heads, long, size)
    draws = int(b.rng.integers(1 << 16))
    read = []
    for _ in range(2):
        b.rng = np.random.default_rng(draws)  # queries and keys alike
        wide = b.linear(x, heads * (size + past), bias=biased)
        apart = b.reshape(wide.name, (BATCH, long, heads, size + past), source=wide.shape)
        turned = rest = b.transpose(apart, 0, 2, 1, 3)
        if past:
            turned, rest = b.split(rest, [size, past], 3)
        turned = _neighbours(b, turned, cos, sin, shape) if near else _halves(b, turned, cos, sin)
        read.append(b.node("Concat", turned, rest, axis=3) if past else turned)
    scores = b.softmax(b.node("MatMul", read[0], b.transpose(read[1], 0, 1, 3, 2)), 4)
    values = b.linear(x, heads * 3, bias=False)
    apart = b.transpose(b.reshape(values.name, (BATCH, long, heads, 3), source=values.shape), 0, 2, 1, 3)
    back = b.transpose(b.node("MatMul", scores, apart), 0, 2, 1, 3)
    made = b.reshape(back, (BATCH, long, heads * 3), source=(BATCH, long, heads, 3))
    return b.linear(x.of(made, heads * 3), x.width)


@block("tokens")
def doubled_angles(b: Builder, x: Value, inside: Inside) -> Value:
    """Queries alone are turned, by angles that are those of keys as well; one product of two halves."""
    long, pairs = int(x.shape[1]), 2
    cos, sin = (b.numbers(t) for t in _angles(b, long, pairs))
    read = []
    for _ in range(2):
        left, right = b.split(b.linear(x, 2 * pairs, bias=b.chance(0.5)).name, [pairs, pairs], 2)
        first = b.node("Sub", b.node("Mul", left, cos), b.node("Mul", right, sin))
        second = b.add(b.node("Mul", left, sin), b.node("Mul", right, cos))
        read.append(b.node("Concat", first, second, axis=2))
    scores = b.softmax(b.node("MatMul", read[0], b.transpose(read[1], 0, 2, 1)), 3)
    return x.of(b.node("MatMul", scores, b.linear(x, x.width).name))


# -- norms and what reads them ----------------------------------------------------------------------------------------
def _centred(b: Builder, x: Value, *, shift: bool) -> Value:
    gain = b.gain(x.width)
    more = [b.bias(x.width)] if shift else []
    if b.has("LayerNormalization") and "decomposed" not in b.habits:
        return x.of(b.node("LayerNormalization", x.name, gain, *more, axis=-1))
    middle = b.node("Sub", x.name, b.reduce("ReduceMean", x.name, [-1]))
    square = b.node("Mul", middle, middle)
    deviation = b.node("Sqrt", b.add(b.reduce("ReduceMean", square, [-1]), b.numbers(1e-5)))
    normed = b.node("Mul", b.node("Div", middle, deviation), gain)
    return x.of(b.add(normed, *more) if shift else normed)


@block(*LAST)
def bare_readers(b: Builder, x: Value, inside: Inside) -> Value:
    """A norm between a layer and readers without a bias."""
    normed = _centred(b, b.linear(x, width(b), bias=b.chance(0.5)), shift=b.chance(0.7))
    one = b.linear(normed, width(b), bias=False)
    if b.chance(0.5):
        return one
    other = activate(b, b.linear(normed, one.width, bias=b.chance(0.5)))
    return one.of(b.node("Mul", one.name, other.name))


# -- weights used more than once --------------------------------------------------------------------------------------
@block(*LAST)
def steps(b: Builder, x: Value, inside: Inside) -> Value:
    """The same perceptron again and again beside a stream: an equation in time, or layers that are one."""
    n = 6
    up, down, first, second = b.weight(x.width, n), b.weight(n, x.width), b.bias(n), b.bias(x.width)
    normed, way = b.chance(0.4), str(b.pick("Tanh", "Relu"))
    length = b.numbers(0.5) if b.chance(0.5) else ""
    for _ in range(2):
        read = _centred(b, x, shift=False) if normed else x
        hidden = b.node(way, b.add(b.node("MatMul", read.name, up), first))
        made = b.add(b.node("MatMul", hidden, down), second)
        x = x.of(b.add(x.name, b.node("Mul", made, length) if length else made))
    return x


@block(*LAST)
def chained(b: Builder, x: Value, inside: Inside) -> Value:
    """There and back by the same two matrices, two times."""
    n, wide = width(b), x.width
    up, down = b.weight(wide, n), b.weight(n, wide)
    shift = b.bias(n) if b.chance(0.5) else ""
    for _ in range(2):
        hidden = b.node("MatMul", x.name, up)
        hidden = b.node("Relu", b.add(hidden, shift) if shift else hidden)
        x = x.of(b.node("MatMul", hidden, down))
    return x


# -- products and lengths ---------------------------------------------------------------------------------------------
def _shortened(b: Builder, x: Value) -> str:
    """Divided by its length, in one of its spellings."""
    way = b.pick("ReduceL2", "square", "power", "LpNormalization")
    if way == "LpNormalization":
        return b.node("LpNormalization", x.name, axis=-1, p=2)
    if way == "ReduceL2":
        length = b.node("Clip", b.reduce("ReduceL2", x.name, [-1]), b.numbers(1e-6))
        return b.node("Div", x.name, length)
    square = b.node("Mul", x.name, x.name) if way == "square" else b.node("Pow", x.name, b.numbers(2.0))
    total = b.add(b.reduce("ReduceSum", square, [-1]), b.numbers(1e-6))
    if b.chance(0.5):
        return b.node("Div", x.name, b.node("Sqrt", total))
    return b.node("Mul", x.name, b.node("Reciprocal", b.node("Sqrt", total)))


@block(*LAST)
def towers(b: Builder, x: Value, inside: Inside) -> Value:
    """Two readings of one input that meet in a product, perhaps of unit length."""
    n = 4
    one, other = (b.linear(activate(b, b.linear(x, 5)), n, bias=b.chance(0.5)) for _ in range(2))
    way = b.pick("plain", "both", "one")
    left = _shortened(b, one) if way != "plain" else one.name
    right = _shortened(b, other) if way == "both" else other.name
    met = b.reduce("ReduceSum", b.node("Mul", left, right), [-1])
    return b.linear(x.of(met, 1), width(b))


@block(*LAST)
def prototypes(b: Builder, x: Value, inside: Inside) -> Value:
    """Cosines of an embedding with stored rows."""
    n, classes = 4, width(b)
    rows = b.weight(classes, n, fan=n)
    length = b.node("Sqrt", b.reduce("ReduceSum", b.node("Mul", rows, rows), [1]))
    stored = b.node("Div", rows, length) if b.chance(0.7) else rows
    made = b.node("MatMul", _shortened(b, b.linear(x, n, bias=b.chance(0.5))), b.transpose(stored, 1, 0))
    return x.of(b.node("Mul", made, b.numbers(8.0)), classes)


@block("tokens")
def machine(b: Builder, x: Value, inside: Inside) -> Value:
    """A factorisation machine: the square of the sum of features less the sum of their squares."""
    n = 4
    features = b.node("MatMul", x.name, b.weight(x.width, n))
    total = b.reduce("ReduceSum", features, [1], keep=False)
    squares = b.reduce("ReduceSum", b.node("Mul", features, features), [1], keep=False)
    square = b.node("Pow", total, b.numbers(2.0)) if b.chance(0.5) else b.node("Mul", total, total)
    pairs = b.reduce("ReduceSum", b.node("Sub", square, squares), [-1])
    return b.linear(Value(b.node("Mul", pairs, b.numbers(0.5)), "flat", (BATCH, 1)), width(b))


# -- chosen by an index, and asked by parameters ----------------------------------------------------------------------
@block("flat")
def chosen(b: Builder, x: Value, inside: Inside) -> Value:
    """One of a few experts by the largest score."""
    many, n, wide = 3, 5, x.width
    x = b.linear(x, wide, bias=b.chance(0.7))
    scores = b.softmax(b.linear(x, many).name, 2)
    top, which = b.many("TopK", scores, b.whole([1]), outputs=2, axis=1)
    pick = str(b.pick("Gather", "GatherND"))
    index = which if pick == "GatherND" else b.squeeze(which, [1])

    def take(table: str) -> str:
        return b.node(pick, table, index)

    up, down, first = (b.weight(many, *s, fan=s[0]) for s in ((wide, n), (n, wide), (n,)))
    row = b.node("MatMul", b.unsqueeze(x.name, [1]), take(up))
    hidden = b.node(str(b.pick("Relu", "Tanh")), b.add(b.squeeze(row, [1]), take(first)))
    made = b.squeeze(b.node("MatMul", b.unsqueeze(hidden, [1]), take(down)), [1])
    made = b.node("Mul", made, top) if b.chance(0.7) else made
    return x.of(b.add(x.name, made) if b.chance(0.5) else made)


@block("flat")
def memory(b: Builder, x: Value, inside: Inside) -> Value:
    """A memory with product keys: each half of a query is compared with a table."""
    half, rows, n = 3, 3, 4
    query = b.linear(x, 2 * half, bias=b.chance(0.5))
    best = []
    for part in b.split(query.name, [half, half], 1):
        scores = b.node("MatMul", part, b.transpose(b.weight(rows, half, fan=half), 1, 0))
        best.append(b.many("TopK", scores, b.whole([2]), outputs=2, axis=1))
    pairs = b.add(b.unsqueeze(best[0][0], [2]), b.unsqueeze(best[1][0], [1]))
    places = b.add(b.node("Mul", b.unsqueeze(best[0][1], [2]), b.whole(rows)), b.unsqueeze(best[1][1], [1]))
    share = b.softmax(b.reshape(pairs, (BATCH, 4), source=(BATCH, 2, 2)), 2)
    index = b.reshape(places, (BATCH, 4), source=(BATCH, 2, 2))
    found = b.node("Gather", b.weight(rows * rows, n, fan=n), index)
    made = b.reduce("ReduceSum", b.node("Mul", b.unsqueeze(share, [2]), found), [1], keep=False)
    return b.linear(x.of(made, n), width(b))


@block("tokens")
def asked(b: Builder, x: Value, inside: Inside) -> Value:
    """Queries that are parameters, or made of parameters, read tokens into a few rows."""
    rows, n = int(b.pick(1, 2, 3)), 4
    seeds = b.weight(rows, n, fan=n)
    if b.chance(0.4):
        seeds = b.node("MatMul", seeds, b.weight(n, n))
    keys, values = b.linear(x, n, bias=b.chance(0.5)), b.linear(x, n, bias=b.chance(0.5))
    scores = b.softmax(b.node("MatMul", seeds, b.transpose(keys.name, 0, 2, 1)), 3)
    made = b.node("MatMul", scores, values.name)
    read = b.linear(Value(made, "tokens", (BATCH, rows, n)), width(b))
    return read if b.chance(0.5) else activate(b, read)


@block("tokens")
def registers(b: Builder, x: Value, inside: Inside) -> Value:
    """Learned tokens beside those of the input, which go again behind an attention."""
    more, n, long = 2, 4, int(x.shape[1])
    stored = b.numbers(b.values.normal(size=(1, more, x.width)))
    batch = b.node("Gather", b.node("Shape", x.name), b.whole([0]), axis=0)
    wide = b.node("Expand", stored, b.node("Concat", batch, b.whole([more, x.width]), axis=0))
    both = Value(b.node("Concat", x.name, wide, axis=1), "tokens", (BATCH, long + more, x.width))
    q, k, v = (b.linear(both, n, bias=b.chance(0.5)) for _ in range(3))
    scores = b.softmax(b.node("MatMul", q.name, b.transpose(k.name, 0, 2, 1)), 3)
    made = b.linear(both.of(b.node("MatMul", scores, v.name), n), x.width)
    return x.of(b.slice(b.add(both.name, made.name), 0, long, 1))


# -- readers of few rows ----------------------------------------------------------------------------------------------
@block(*LAST)
def narrow(b: Builder, x: Value, inside: Inside) -> Value:
    """Units of which a branch writes some alone, that are added to others and read by fewer rows than they are."""
    n, way = width(b), str(b.pick("sum", "largest", "modulated"))
    one, other = b.linear(x, n, bias=b.chance(0.5)), activate(b, b.linear(x, n))
    if way == "largest":
        one = b.linear(x, 2 * n, bias=b.chance(0.5))
        wide = b.reshape(one.name, (*x.shape[:-1], 2, n), source=one.shape)
        both = b.reduce("ReduceMax", wide, [len(x.shape) - 1], keep=False)
        return b.linear(x.of(both, n), 3, bias=b.chance(0.5))
    scale = b.linear(x, n).name
    if way == "modulated":
        other = other.of(b.node("Mul", other.name, b.add(scale, b.numbers(1.0))))
    return b.linear(other.of(b.add(other.name, one.name)), 3, bias=b.chance(0.5))


# -- shifts -----------------------------------------------------------------------------------------------------------
@block("tokens", "flat")
def largest(b: Builder, x: Value, inside: Inside) -> Value:
    """The largest of several readings, or of all places."""
    n = width(b)
    if x.layout == "tokens" and b.chance(0.6):
        made = b.reduce("ReduceMax", b.linear(x, n).name, [1], keep=False)
        return b.linear(Value(made, "flat", (BATCH, n)), width(b))
    if b.chance(0.5):
        made = b.node("Max", *(b.linear(x, n).name for _ in range(2)))
        return b.linear(x.of(made, n), width(b))
    wide = b.linear(x, 2 * n)
    shape = (*x.shape[:-1], n, 2)
    made = b.reduce("ReduceMax", b.reshape(wide.name, shape, source=wide.shape), [len(shape) - 1], keep=False)
    return b.linear(x.of(made, n), width(b))


@block("image", "signal")
def largest_of_windows(b: Builder, x: Value, inside: Inside) -> Value:
    """A pool of the largest between convolutions."""
    rank = len(x.shape) - 2
    sizes = [int(d) - 1 for d in x.shape[2:]]
    if min(sizes) < 1:
        raise Unfit
    wide = b.linear(x, 5)
    pooled = b.node("MaxPool", wide.name, kernel_shape=[2] * rank, strides=[1] * rank)
    return b.linear(Value(pooled, x.layout, (BATCH, 5, *sizes)), width(b))


@block("flat", "tokens")
def apart(b: Builder, x: Value, inside: Inside) -> Value:
    """What one branch makes of two readings of the input, subtracted."""
    n, wide = 4, width(b)
    first, again = b.weight(x.width, n), b.weight(n, wide)
    shifts, way = (b.bias(n), b.bias(wide)), str(b.pick("Tanh", "Relu", "Sigmoid"))
    made = []
    for turn in range(2):
        read = x.name if not turn else b.node("Mul", x.name, b.gain(x.width))
        hidden = b.node(way, b.add(b.node("MatMul", read, first), shifts[0]))
        made.append(b.add(b.node("MatMul", hidden, again), shifts[1]))
    less = b.node("Sub", *made)
    return b.linear(x.of(b.node("Abs", less) if b.chance(0.5) else less, wide), width(b))


@block("image", "signal")
def parallel(b: Builder, x: Value, inside: Inside) -> Value:
    """A convolution, another one and the input itself, each normalised by itself, added up; perhaps channel by channel.

    Exporters fold the normalisations behind convolutions, but not that of the input.
    """
    n, rank, folded = x.width, len(x.shape) - 2, b.chance(0.5)
    groups = n if b.chance(0.3) else 1

    def normed(name: str) -> str:
        if folded and name != x.name:
            return name
        values = b.numbers(b.values.uniform(0.5, 2, n))
        return b.node("BatchNormalization", name, b.gain(n), b.bias(n), b.bias(n), values)

    def convolved(size: int) -> str:
        weight = b.weight(n, n // groups, *[size] * rank, fan=n // groups * size**rank)
        return b.node("Conv", x.name, weight, pads=[size // 2] * 2 * rank, group=groups)

    wide = convolved(3)
    narrow = convolved(int(b.pick(1, 3))) if b.chance(0.6) else b.linear(x, n, bias=b.chance(0.3)).name
    made = b.add(normed(wide), normed(narrow))
    return activate(b, x.of(b.add(made, normed(x.name)) if b.chance(0.5) else made))


@block("tokens")
def sliced_heads(b: Builder, x: Value, inside: Inside) -> Value:
    """Heads that are cut out of one reading each, with values that are mixed behind the softmax."""
    size, heads, long = 3, 2, int(x.shape[1])
    q, k = (b.linear(x, heads * size, bias=b.chance(0.6)) for _ in range(2))
    values = b.linear(x, 4, bias=b.chance(0.6))
    read = []
    cut = b.chance(0.5)
    for h in range(heads):
        if cut:
            one, other = (b.slice(t.name, h * size, (h + 1) * size, 2) for t in (q, k))
        else:
            wide = [b.reshape(t.name, (BATCH, long, heads, size), source=t.shape) for t in (q, k)]
            one, other = (b.node("Gather", t, b.whole(h), axis=2) for t in wide)
        scores = b.softmax(b.node("MatMul", one, b.transpose(other, 0, 2, 1)), 3)
        read.append(b.node("MatMul", scores, values.name))
    mixed = b.node("Sub", read[0], b.node("Mul", read[1], b.numbers(0.5)))
    return b.linear(x.of(mixed, 4), x.width, bias=b.chance(0.7))


@block()
def gain_beside(b: Builder, x: Value, inside: Inside) -> Value:
    """A gain for each channel beside a layer from the same channels, as of a skip that is learned."""
    if b.chance(0.5):
        x = activate(b, b.linear(x, width(b)))
    made = b.linear(x, x.width, bias=b.chance(0.5))
    gained = b.node("Mul", *((x.name, b.gain(*b.along(x))) if b.chance(0.5) else (b.gain(*b.along(x)), x.name)))
    if b.chance(0.3):
        gained = b.node("Neg", gained)
    return activate(b, x.of(b.add(made.name, gained) if b.chance(0.5) else b.add(gained, made.name)))


@block("tokens")
def shares(b: Builder, x: Value, inside: Inside) -> Value:
    """A pool over tokens by shares that another layer gives: a product, and a sum behind it."""
    values, long = b.linear(x, 4, bias=b.chance(0.7)), int(x.shape[1])
    score = b.linear(activate(b, b.linear(x, 4)), 1, bias=b.chance(0.5))
    share = b.softmax(b.squeeze(score.name, [2]), 2)
    pair = b.unsqueeze(share, [2]), values.name
    keep = b.chance(0.5)
    made = b.reduce("ReduceSum", b.node("Mul", *(pair if b.chance(0.5) else pair[::-1])), [1], keep=keep)
    if keep and long > 1:
        return b.linear(values.of(b.add(values.name, made), 4), width(b), bias=b.chance(0.7))
    flat = b.squeeze(made, [1]) if keep else made
    return b.linear(Value(flat, "flat", (BATCH, 4)), width(b), bias=b.chance(0.7))


# -- pairs, complex numbers, lengths of groups, and weights that are computed -----------------------------------------
@block()
def signs_apart(b: Builder, x: Value, inside: Inside) -> Value:
    """What is above zero beside what is below."""
    made = b.linear(x, 4, bias=b.chance(0.6))
    parts = [b.node("Relu", made.name), b.node("Relu", b.node("Neg", made.name))]
    return b.linear(x.of(b.node("Concat", *parts, axis=x.axis), 8), width(b))


@block("flat", "tokens")
def complex_layer(b: Builder, x: Value, inside: Inside) -> Value:
    """Real and imaginary parts of a product, behind a gate of their length."""
    n = 3
    real, imaginary = (b.linear(x, n, bias=False).name for _ in range(2))
    length = b.node("Sqrt", b.add(b.add(*(b.node("Mul", t, t) for t in (real, imaginary))), b.numbers(1e-3)))
    gate = b.node("Sigmoid", b.add(length, b.bias(n)))
    real, imaginary = (b.node("Mul", t, gate) for t in (real, imaginary))
    one, other = (b.weight(n, 4) for _ in range(2))
    first = b.node("Sub", b.node("MatMul", real, one), b.node("MatMul", imaginary, other))
    second = b.add(b.node("MatMul", real, other), b.node("MatMul", imaginary, one))
    if b.chance(0.5):
        return b.linear(x.of(b.node("Concat", first, second, axis=x.axis), 8), width(b))
    return b.linear(x.of(b.add(*(b.node("Mul", t, t) for t in (first, second))), 4), width(b))


@block("flat")
def capsules(b: Builder, x: Value, inside: Inside) -> Value:
    """Groups of units that are scaled by their length, read by a matrix each."""
    many, size, n = 3, 2, 3
    made = b.linear(x, many * size, bias=b.chance(0.5))
    apart = b.reshape(made.name, (BATCH, many, size), source=made.shape)
    square = b.reduce("ReduceSum", b.node("Mul", apart, apart), [-1])
    factor = b.node("Div", square, b.add(square, b.numbers(1.0)))
    root = b.node("Sqrt", b.add(square, b.numbers(1e-6)))
    squashed = b.node("Div", b.node("Mul", apart, factor), root)
    votes = b.node("MatMul", b.unsqueeze(squashed, [2]), b.weight(many, size, n, fan=size))
    flat = b.reshape(votes, (BATCH, many * n), source=(BATCH, many, 1, n))
    return b.linear(x.of(flat, many * n), width(b))


@block(*LAST)
def positive(b: Builder, x: Value, inside: Inside) -> Value:
    """Weights that are positive functions of what is stored."""
    n, way = width(b), str(b.pick("Exp", "Softplus", "square", "Abs"))

    def made(weight: str) -> str:
        return b.node("Mul", weight, weight) if way == "square" else b.node(way, weight)

    one = b.add(b.node("MatMul", x.name, b.weight(x.width, n)), b.bias(n))
    hidden = b.node("MatMul", b.node("Relu", one), made(b.weight(n, 5)))
    return activate(b, x.of(b.add(hidden, b.bias(5)), 5))


@block()
def normed_weights(b: Builder, x: Value, inside: Inside) -> Value:
    """Weights that are stored as directions and lengths, between activations that let scales through."""
    n, last = width(b), x.layout in LAST

    def made(fan: int, wide: int) -> str:
        shape = (fan, wide) if last else (wide, fan, *[1] * (len(x.shape) - 2))
        along = [0] if last else list(range(1, len(shape)))
        direction, gain = b.weight(*shape, fan=fan), b.gain(*(1 if k in along else s for k, s in enumerate(shape)))
        if b.chance(0.6):
            length = b.reduce("ReduceL2", direction, along)
        else:
            length = b.node("Sqrt", b.reduce("ReduceSum", b.node("Mul", direction, direction), along))
        if b.chance(0.5):
            return b.node("Mul", direction, b.node("Div", gain, length))
        unit = b.node("Div", direction, length)
        return b.node("Mul", *((unit, gain) if b.chance(0.5) else (gain, unit)))

    def layer(name: str, fan: int, wide: int) -> str:
        read = b.node("MatMul", name, made(fan, wide)) if last else b.node("Conv", name, made(fan, wide))
        return b.add(read, b.bias(wide, *[1] * (0 if last else len(x.shape) - 2)))

    hidden = b.node(str(b.pick("Relu", "LeakyRelu")), layer(x.name, x.width, n))
    wide = width(b)
    return activate(b, x.of(layer(hidden, n, wide), wide))


@block("tokens")
def selective(b: Builder, x: Value, inside: Inside) -> Value:
    """Steps of a selective scan, of which step, input and output are parts of one reading, beside a skip."""
    n, states, rank, long = 3, 2, 2, min(int(x.shape[1]), 3)
    x = activate(b, b.linear(x, n))
    read = b.node("MatMul", x.name, b.weight(n, rank + 2 * states))
    if b.chance(0.5):
        step, write, look = b.split(read, [rank, states, states], 2)
    else:
        ends = np.cumsum([0, rank, states, states]).tolist()
        step, write, look = (b.slice(read, i, j, 2) for i, j in pairwise(ends))
    way = "Softplus" if b.dtype != "float64" else "Sigmoid"
    size = b.node(way, b.add(b.node("MatMul", step, b.weight(rank, n)), b.bias(n)))
    fade = b.node("Neg", b.node("Exp", b.numbers(0.3 * b.values.normal(size=(n, states)))))
    state, rows = "", []
    for t in range(long):
        at = [b.node("Gather", name, b.whole(t), axis=1) for name in (size, write, look, x.name)]
        wide, column = b.unsqueeze(at[0], [2]), b.unsqueeze(b.node("Mul", at[0], at[3]), [2])
        new = b.node("Mul", column, b.unsqueeze(at[1], [1]))
        state = b.add(b.node("Mul", b.node("Exp", b.node("Mul", wide, fade)), state), new) if state else new
        row = b.reduce("ReduceSum", b.node("Mul", state, b.unsqueeze(at[2], [1])), [-1], keep=False)
        rows.append(b.unsqueeze(row, [1]))
    made = b.node("Concat", *rows, axis=1) if len(rows) > 1 else rows[0]
    skip = b.node("Mul", b.slice(x.name, 0, long, 1), b.numbers(b.values.normal(size=n)))
    whole = b.add(made, skip) if b.chance(0.7) else made
    return b.linear(Value(whole, "tokens", (BATCH, long, n)), width(b), bias=b.chance(0.5))


@block("tokens")
def cut_weights(b: Builder, x: Value, inside: Inside) -> Value:
    """One reading of which a part goes on by another layer and two parts meet, as steps and states of a scan do."""
    rank, n = 2, 3
    wide = b.linear(x, 5, bias=False)
    both = b.node("MatMul", wide.name, b.weight(5, rank + 2 * n))
    step, left, right = b.split(both, [rank, n, n], 2)
    gate = b.node("Softplus", b.add(b.node("MatMul", step, b.weight(rank, 5)), b.bias(5)))
    met = b.node("MatMul", left, b.transpose(right, 0, 2, 1))
    return x.of(b.node("MatMul", met, b.node("Mul", wide.name, gate)), 5)
