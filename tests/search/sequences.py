"""Blocks over tokens: attention of several forms, recurrences, and bodies that are run in rounds."""

from __future__ import annotations

import numpy as np
import onnx
from builder import BATCH, SIZE, TYPES, Builder, Unfit, Value
from grammar import Inside, activate, block
from onnx import helper


def _heads(b: Builder, x: Value, heads: int) -> str:
    """batch, head, token, dimension."""
    _, long, n = x.shape
    apart = b.reshape(x.name, (BATCH, long, heads, int(n) // heads), source=x.shape)
    return b.transpose(apart, 0, 2, 1, 3)


def _merged(b: Builder, name: str, x: Value, heads: int, size: int) -> Value:
    long = int(x.shape[1])
    order = b.transpose(name, 0, 2, 1, 3)
    return x.of(b.reshape(order, (BATCH, long, heads * size), source=(BATCH, long, heads, size)), heads * size)


def _turned(b: Builder, name: str, long: int, size: int) -> str:
    """Rotary embedding of two halves."""
    angles = np.arange(long)[:, None] * 10.0 ** -np.arange(size // 2)
    cos, sin = (b.numbers(np.concatenate([f(angles)] * 2, axis=1)) for f in (np.cos, np.sin))
    left, right = b.split(name, [size // 2] * 2, 3)
    other = b.node("Concat", b.node("Neg", right), left, axis=-1)
    return b.add(b.node("Mul", name, cos), b.node("Mul", other, sin))


def _scores(b: Builder, q: str, k: str, long: int, size: int) -> str:
    raw = b.node("MatMul", q, b.transpose(k, 0, 1, 3, 2))
    root = np.sqrt(size)
    scores = b.node("Div", raw, b.numbers(root)) if b.chance(0.5) else b.node("Mul", raw, b.numbers(1 / root))
    if b.chance(0.4):
        mask = np.tril(np.ones((long, long), bool))
        if b.chance(0.5):
            scores = b.node("Where", b.stored(mask), scores, b.numbers(-1e4))
        else:
            scores = b.add(scores, b.numbers(np.where(mask, 0, -1e4)))
    return b.softmax(scores, 4)


@block("tokens")
def attention(b: Builder, x: Value, inside: Inside) -> Value:
    """Queries, keys and values of their own, or in one; perhaps fewer keys than queries, perhaps rotary."""
    heads, size = int(b.pick(1, 2, 3)), int(b.pick(4, 6))
    long, n, biased = int(x.shape[1]), heads * size, b.chance(0.7)
    way = b.pick("apart", "split", "gather", "grouped")
    if way == "grouped" and heads == 2:
        q = _heads(b, b.linear(x, n, bias=biased), heads)
        k, v = (_heads(b, b.linear(x, size, bias=biased), 1) for _ in range(2))
    elif way == "split":
        parts = b.split(b.linear(x, 3 * n, bias=biased).name, [n] * 3, 2)
        q, k, v = (_heads(b, x.of(p, n), heads) for p in parts)
    elif way == "gather":
        both = b.linear(x, 3 * n, bias=biased)
        five = b.reshape(both.name, (BATCH, long, 3, heads, size), source=both.shape)
        order = b.transpose(five, 2, 0, 3, 1, 4)
        q, k, v = (b.node("Gather", order, b.whole(j), axis=0) for j in range(3))
    else:
        q, k, v = (_heads(b, b.linear(x, n, bias=biased), heads) for _ in range(3))
    if b.chance(0.3):
        q, k = (_turned(b, t, long, size) for t in (q, k))
    made = b.node("MatMul", _scores(b, q, k, long, size), v)
    return b.linear(_merged(b, made, x, heads, size), x.width, bias=b.chance(0.7))


@block("tokens")
def fused_attention(b: Builder, x: Value, inside: Inside) -> Value:
    """The operators of onnx and of onnxruntime."""
    heads, size = 2, 4
    n = heads * size
    q, k, v = (b.linear(x, n, bias=b.chance(0.5)) for _ in range(3))
    way = b.pick("Attention", "MultiHeadAttention")
    if way == "Attention" and b.opset >= 23:
        made = b.node("Attention", q.name, k.name, v.name, q_num_heads=heads, kv_num_heads=heads)
    else:
        if b.dtype != "float32":
            raise Unfit
        made = b.node("com.microsoft.MultiHeadAttention", q.name, k.name, v.name, num_heads=heads)
    return b.linear(x.of(made, n), x.width)


@block("tokens")
def talking(b: Builder, x: Value, inside: Inside) -> Value:
    """Attention whose heads are mixed before and after the softmax."""
    heads, size = 2, 4
    q, k, v = (_heads(b, b.linear(x, heads * size), heads) for _ in range(3))
    raw = b.node("MatMul", q, b.transpose(k, 0, 1, 3, 2))
    for step in range(2):
        last = b.transpose(raw, 0, 2, 3, 1)
        raw = b.transpose(b.node("MatMul", last, b.weight(heads, heads)), 0, 3, 1, 2)
        raw = raw if step else b.softmax(raw, 4)
    return b.linear(_merged(b, b.node("MatMul", raw, v), x, heads, size), x.width)


@block("tokens")
def differential(b: Builder, x: Value, inside: Inside) -> Value:
    """The difference of two heads that are cut apart before or after the softmax, on values without heads."""
    size = 4
    q, k = (_heads(b, b.linear(x, 2 * size), 2) for _ in range(2))
    raw = b.node("MatMul", q, b.transpose(k, 0, 1, 3, 2))
    late = b.chance(0.5)
    parts = [b.node("Gather", b.softmax(raw, 4) if late else raw, b.whole(h), axis=1) for h in range(2)]
    first, second = parts if late else [b.softmax(part, 3) for part in parts]
    apart = b.node("Sub", first, b.node("Mul", second, b.numbers(0.4)))
    v = b.linear(x, int(b.pick(3, 5)))
    return b.linear(x.of(b.node("MatMul", apart, v.name), v.width), x.width)


@block("tokens")
def linear_attention(b: Builder, x: Value, inside: Inside) -> Value:
    """Keys meet values before they meet queries."""
    n = 6
    q, k, v = (b.linear(x, n, bias=b.chance(0.5)) for _ in range(3))
    way = str(b.pick("Relu", "Elu", "Softplus"))
    left, right = (b.node(way, t.name) for t in (q, k))
    met = b.node("MatMul", b.transpose(right, 0, 2, 1), v.name)
    return b.linear(x.of(b.node("MatMul", left, met), n), x.width)


@block("tokens", "signal")
def token_mixing(b: Builder, x: Value, inside: Inside) -> Value:
    """A layer over the places."""
    axis = 1 if x.layout == "tokens" else 2
    long = int(x.shape[axis])
    turned = b.transpose(x.name, 0, 2, 1) if x.layout == "tokens" else x.name
    hidden = b.add(b.node("MatMul", turned, b.weight(long, 6)), b.bias(6))
    made = b.node("MatMul", activate(b, Value(hidden, "tokens", (BATCH, x.width, 6))).name, b.weight(6, long))
    return x.of(b.transpose(made, 0, 2, 1) if x.layout == "tokens" else made)


@block("tokens", "steps")
def positions(b: Builder, x: Value, inside: Inside) -> Value:
    """A learned table is added."""
    long = int(x.shape[1 if x.layout == "tokens" else 0])
    shape = (1, long, x.width) if x.layout == "tokens" else (long, 1, x.width)
    return x.of(b.add(x.name, b.numbers(0.5 * b.values.normal(size=shape))))


@block("tokens")
def class_token(b: Builder, x: Value, inside: Inside) -> Value:
    """A learned token before the others, and afterwards perhaps it alone."""
    if "symbolic batch" in b.habits:
        raise Unfit
    token = b.numbers(b.values.normal(size=(1, 1, x.width)))
    wide = b.node("Expand", token, b.whole([SIZE, 1, x.width]))
    long = int(x.shape[1]) + 1
    return Value(b.node("Concat", wide, x.name, axis=1), "tokens", (BATCH, long, x.width))


@block("tokens")
def first_token(b: Builder, x: Value, inside: Inside) -> Value:
    """One token of all."""
    if b.chance(0.5):
        return Value(b.node("Gather", x.name, b.whole(0), axis=1), "flat", (BATCH, x.width))
    return Value(b.squeeze(b.slice(x.name, 0, 1, 1), [1]), "flat", (BATCH, x.width))


@block("steps")
def recurrence(b: Builder, x: Value, inside: Inside) -> Value:
    """A cell in one direction, in the other, or in both."""
    if b.dtype in ("float16", "bfloat16"):
        raise Unfit
    op = str(b.pick("LSTM", "GRU", "RNN"))
    way = str(b.pick("forward", "reverse", "bidirectional"))
    gates, both, n = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if way == "bidirectional" else 1, 6
    weights = [b.weight(both, gates * n, k, fan=k) for k in (x.width, n)]
    bias = [b.bias(both, 2 * gates * n)] if b.chance(0.8) else [""]
    more = {"linear_before_reset": int(b.chance(0.5))} if op == "GRU" else {}
    made = b.node(op, x.name, *weights, *bias, hidden_size=n, direction=way, **more)
    long = int(x.shape[0])
    if both == 1:
        return Value(b.squeeze(made, [1]), "steps", (long, BATCH, n))
    order = b.transpose(made, 0, 2, 1, 3)
    return Value(b.reshape(order, (long, BATCH, 2 * n), source=(long, BATCH, 2, n)), "steps", (long, BATCH, 2 * n))


@block("steps")
def last_state(b: Builder, x: Value, inside: Inside) -> Value:
    """The last state of a cell, as the network's features."""
    if b.dtype in ("float16", "bfloat16"):
        raise Unfit
    n = 6
    weights = [b.weight(1, 3 * n, k, fan=k) for k in (x.width, n)]
    _, state = b.many("GRU", x.name, *weights, b.bias(1, 6 * n), outputs=2, hidden_size=n)
    return Value(b.squeeze(state, [0]), "flat", (BATCH, n))


@block("steps")
def scan(b: Builder, x: Value, inside: Inside) -> Value:
    """A recurrence of one's own."""
    n = 6
    first, again = b.weight(x.width, n), b.weight(n, n)
    start = b.numbers(np.zeros((SIZE, n)))
    if "symbolic batch" in b.habits:
        raise Unfit
    kind = TYPES[b.dtype]
    step, old, new, out = (b.fresh(s) for s in ("step", "old", "new", "out"))
    parts = [b.fresh("body") for _ in range(3)]
    nodes = [
        helper.make_node("MatMul", [step, first], [parts[0]]),
        helper.make_node("MatMul", [old, again], [parts[1]]),
        helper.make_node("Add", parts[:2], [parts[2]]),
        helper.make_node("Tanh", [parts[2]], [new]),
        helper.make_node("Identity", [new], [out]),
    ]
    infos = [(old, n), (step, x.width), (new, n), (out, n)]
    made = [helper.make_tensor_value_info(name, kind, [SIZE, size]) for name, size in infos]
    body = helper.make_graph(nodes, "body", made[:2], made[2:])
    _, ys = b.many("Scan", start, x.name, outputs=2, body=body, num_scan_inputs=1)
    return Value(ys, "steps", (x.shape[0], BATCH, n))


@block("flat", "tokens")
def loop(b: Builder, x: Value, inside: Inside) -> Value:
    """The same layer for so many rounds."""
    weight, bias, kind = b.weight(x.width, x.width), b.bias(x.width), TYPES[b.dtype]
    i, go, old, new, on, part, summed = (b.fresh(s) for s in ("i", "go", "old", "new", "on", "part", "summed"))
    nodes = [
        helper.make_node("Identity", [go], [on]),
        helper.make_node("MatMul", [old, weight], [part]),
        helper.make_node("Add", [part, bias], [summed]),
        helper.make_node(str(b.pick("Relu", "Tanh")), [summed], [new]),
    ]
    shape = [SIZE if d == BATCH else d for d in x.shape] if "symbolic batch" not in b.habits else list(x.shape)
    infos = [
        helper.make_tensor_value_info(i, onnx.TensorProto.INT64, []),
        helper.make_tensor_value_info(go, onnx.TensorProto.BOOL, []),
        *(helper.make_tensor_value_info(name, kind, shape) for name in (old, new)),
        helper.make_tensor_value_info(on, onnx.TensorProto.BOOL, []),
    ]
    body = helper.make_graph(nodes, "body", infos[:3], [infos[4], infos[3]])
    made = b.node("Loop", b.whole(2), b.stored(np.array(True)), x.name, body=body)
    return x.of(made)


@block("flat", "tokens")
def choice(b: Builder, x: Value, inside: Inside) -> Value:
    """One of two layers, as the input says."""
    n, kind = 6, TYPES[b.dtype]
    condition = b.node("Greater", b.reduce("ReduceMean", x.name, list(range(len(x.shape))), keep=False), b.numbers(0.0))
    shape = [SIZE if d == BATCH else d for d in x.shape] if "symbolic batch" not in b.habits else list(x.shape)
    bodies = []
    for _ in range(2):
        weight, bias, part, out = b.weight(x.width, n), b.bias(n), b.fresh("part"), b.fresh("out")
        nodes = [helper.make_node("MatMul", [x.name, weight], [part]), helper.make_node("Add", [part, bias], [out])]
        info = helper.make_tensor_value_info(out, kind, [*shape[:-1], n])
        bodies.append(helper.make_graph(nodes, "branch", [], [info]))
    made = b.node("If", condition, then_branch=bodies[0], else_branch=bodies[1])
    return activate(b, x.of(made, n))


def _listed(b: Builder, x: Value, *, grown: bool = False) -> tuple[Value, str]:
    """A layer, and the two halves of its channels in a sequence of tensors."""
    n = x.width // 2 * 2
    if not n:
        raise Unfit
    wide = b.linear(x, n)
    if not grown and b.chance(0.3):
        return wide, b.node("SplitToSequence", wide.name, b.whole(n // 2), axis=x.axis)
    left, right = b.split(wide.name, [n // 2] * 2, x.axis)
    if not grown:
        return wide, b.node("SequenceConstruct", left, right)
    listed = b.node("SequenceInsert", b.node("SequenceEmpty", dtype=TYPES[b.dtype]), left)
    return wide, b.node("SequenceInsert", listed, right)


@block("tokens", "flat", "image")
def one_of_a_list(b: Builder, x: Value, inside: Inside) -> Value:
    wide, listed = _listed(b, x)
    one, other = (b.node("SequenceAt", listed, b.whole(k)) for k in range(2))
    return activate(b, wide.of(b.node("Mul", one, other), wide.width // 2))


@block("tokens", "flat", "image")
def rest_of_a_list(b: Builder, x: Value, inside: Inside) -> Value:
    """What is left of one that grew, beside its first."""
    wide, listed = _listed(b, x, grown=True)
    left = b.node("SequenceAt", b.node("SequenceErase", listed, b.whole(0)), b.whole(0))
    first = b.node("SequenceAt", listed, b.whole(0))
    return activate(b, wide.of(b.add(left, first), wide.width // 2))


@block("tokens", "flat", "image")
def whole_list(b: Builder, x: Value, inside: Inside) -> Value:
    """Joined again, times its length."""
    wide, listed = _listed(b, x)
    whole = b.node("ConcatFromSequence", listed, axis=x.axis)
    many = b.node("Cast", b.node("SequenceLength", listed), to=TYPES[b.dtype])
    return activate(b, wide.of(b.node("Mul", whole, many)))


@block("tokens", "flat", "image", since=17)
def mapped_list(b: Builder, x: Value, inside: Inside) -> Value:
    """Each half through a body."""
    wide, listed = _listed(b, x)
    item, made = b.fresh("item"), b.fresh("mapped")
    infos = [helper.make_tensor_value_info(name, TYPES[b.dtype], None) for name in (item, made)]
    body = helper.make_graph([helper.make_node("Relu", [item], [made])], "body", infos[:1], infos[1:])
    mapped = b.node("SequenceMap", listed, body=body)
    return wide.of(b.node("ConcatFromSequence", mapped, axis=x.axis))


@block("tokens", "flat", since=18)
def perhaps(b: Builder, x: Value, inside: Inside) -> Value:
    """A value that may be absent, and is not."""
    held = b.node("Optional", b.linear(x, 6).name)
    got = x.of(b.node("OptionalGetElement", held), 6)
    there = b.node("Cast", b.node("OptionalHasElement", held), to=TYPES[b.dtype])
    return activate(b, got.of(b.node("Mul", got.name, there)))
