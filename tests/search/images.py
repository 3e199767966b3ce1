"""Blocks over images and signals: convolutions of all kinds, pooling, and what changes the number of places."""

from __future__ import annotations

import numpy as np
from builder import BATCH, Builder, Unfit, Value
from grammar import Inside, activate, batch_norm, block, width


def places(x: Value) -> list[int]:
    """The sizes beside batch and channels."""
    return [int(d) for d in x.shape[2:]]


def _of(x: Value, name: str, channels: int, sizes: list[int]) -> Value:
    if min(sizes) < 1:
        raise Unfit
    return Value(name, x.layout, (BATCH, channels, *sizes))


@block("image", "signal")
def convolution(b: Builder, x: Value, inside: Inside) -> Value:
    """Padded or not, with strides, dilations or groups."""
    n, sizes = width(b), places(x)
    kernel = int(b.pick(1, 2, 3))
    groups = int(b.pick(1, 1, 2, x.width))
    if x.width % groups:
        groups = 1
    n = -(-n // groups) * groups if groups < x.width else x.width * int(b.pick(1, 2))
    stride, dilation = int(b.pick(1, 1, 2)), int(b.pick(1, 1, 2))
    pad = int(b.pick(0, 1))
    sizes = [(d + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for d in sizes]
    if min(sizes) < 1:
        raise Unfit
    fan = x.width // groups * kernel ** len(sizes)
    weight = b.weight(n, x.width // groups, *[kernel] * len(sizes), fan=fan)
    bias = [b.bias(n)] if b.chance(0.6) else []
    more = {"group": groups, "strides": [stride] * len(sizes), "dilations": [dilation] * len(sizes)}
    made = _of(x, b.node("Conv", x.name, weight, *bias, pads=[pad] * 2 * len(sizes), **more), n, sizes)
    if b.chance(0.5):
        made = batch_norm(b, made, inside)
    return activate(b, made) if b.chance(0.8) else made


@block("image", "signal")
def same_convolution(b: Builder, x: Value, inside: Inside) -> Value:
    n, rank = width(b), len(x.shape) - 2
    weight = b.weight(n, x.width, *[3] * rank, fan=x.width * 3**rank)
    way = str(b.pick("SAME_UPPER", "SAME_LOWER"))
    return activate(b, x.of(b.node("Conv", x.name, weight, b.bias(n), auto_pad=way, kernel_shape=[3] * rank), n))


@block("image", "signal")
def beside(b: Builder, x: Value, inside: Inside) -> Value:
    """A wide convolution, and a narrow one beside it that its middle can take."""
    n, rank, apart = width(b), len(x.shape) - 2, int(b.pick(1, 2))
    weight = b.weight(n, x.width, *[3] * rank, fan=x.width * 3**rank)
    pads, dilations = [apart] * 2 * rank, [apart] * rank
    wide = b.node("Conv", x.name, weight, b.bias(n), pads=pads, dilations=dilations)
    return activate(b, x.of(b.add(wide, b.linear(x, n).name), n))


@block("image", "signal")
def separable(b: Builder, x: Value, inside: Inside) -> Value:
    """Depthwise, then pointwise."""
    rank = len(x.shape) - 2
    weight = b.weight(x.width, 1, *[3] * rank, fan=3**rank)
    more = [b.bias(x.width)] if b.chance(0.5) else []
    deep = x.of(b.node("Conv", x.name, weight, *more, group=x.width, pads=[1] * 2 * rank))
    deep = activate(b, batch_norm(b, deep, inside)) if b.chance(0.5) else deep
    return activate(b, b.linear(deep, width(b)))


@block("image", "signal")
def shuffled(b: Builder, x: Value, inside: Inside) -> Value:
    """Channels of two groups take turns, under grouped convolutions."""
    n, rank = 8, len(x.shape) - 2
    first = activate(b, b.linear(x, n))
    sizes = places(x)
    apart = b.reshape(first.name, (BATCH, 2, n // 2, *sizes), source=first.shape)
    order = b.transpose(apart, 0, 2, 1, *range(3, 3 + rank))
    back = b.reshape(order, (BATCH, n, *sizes), source=(BATCH, n // 2, 2, *sizes))
    weight = b.weight(n, n // 2, *[1] * rank, fan=n // 2)
    return activate(b, x.of(b.node("Conv", back, weight, b.bias(n), group=2), n))


@block("image", "signal")
def regrouped(b: Builder, x: Value, inside: Inside) -> Value:
    """Two groups of channels, and behind them three of the same, perhaps shuffled, back into a stream."""
    n, sizes = 6, places(x)
    rank = len(sizes)

    def grouped(x: Value, groups: int) -> Value:
        weight = b.weight(n, n // groups, *[1] * rank, fan=n // groups)
        return x.of(b.node("Conv", x.name, weight, b.bias(n), group=groups))

    stream = activate(b, b.linear(x, n))
    made = activate(b, grouped(stream, 2))
    if b.chance(0.5):
        made = batch_norm(b, made, inside)
    if b.chance(0.5):
        apart = b.reshape(made.name, (BATCH, 3, 2, *sizes), source=made.shape)
        order = b.transpose(apart, 0, 2, 1, *range(3, 3 + rank))
        made = made.of(b.reshape(order, (BATCH, n, *sizes), source=(BATCH, 2, 3, *sizes)))
    made = grouped(made, 3)
    return stream.of(b.add(stream.name, made.name)) if b.chance(0.5) else activate(b, made)


@block("image", "signal")
def transposed_convolution(b: Builder, x: Value, inside: Inside) -> Value:
    rank, n, groups = len(x.shape) - 2, width(b) // 2 * 2, int(b.pick(1, 1, 2))
    if x.width % groups or max(places(x)) > 6:
        raise Unfit
    stride = int(b.pick(1, 2))
    weight = b.weight(x.width, n // groups, *[2] * rank, fan=x.width // groups)
    made = b.node("ConvTranspose", x.name, weight, b.bias(n), strides=[stride] * rank, group=groups)
    return activate(b, _of(x, made, n, [(d - 1) * stride + 2 for d in places(x)]))


@block("image", "signal")
def pool(b: Builder, x: Value, inside: Inside) -> Value:
    rank = len(x.shape) - 2
    if min(places(x)) < 2:
        raise Unfit
    op, stride = str(b.pick("MaxPool", "AveragePool", "LpPool")), int(b.pick(1, 2))
    more = {"kernel_shape": [2] * rank, "strides": [stride] * rank}
    if op == "AveragePool":
        more["count_include_pad"] = 1
    return _of(x, b.node(op, x.name, **more), x.width, [(d - 2) // stride + 1 for d in places(x)])


@block("image", "signal")
def padded(b: Builder, x: Value, inside: Inside) -> Value:
    rank, mode = len(x.shape) - 2, str(b.pick("constant", "reflect", "edge"))
    if min(places(x)) < 2 or max(places(x)) > 7:
        raise Unfit
    pads = b.whole([0, 0, *[1] * rank, 0, 0, *[1] * rank])
    return _of(x, b.node("Pad", x.name, pads, mode=mode), x.width, [d + 2 for d in places(x)])


@block("image")
def rearranged(b: Builder, x: Value, inside: Inside) -> Value:
    """Places become channels, or channels places."""
    h, w = places(x)
    if b.chance(0.5) and not (h % 2 or w % 2):
        return _of(x, b.node("SpaceToDepth", x.name, blocksize=2), 4 * x.width, [h // 2, w // 2])
    wide = b.linear(x, 4 * 6) if max(h, w) <= 4 else x
    if wide.width % 4 or wide.width < 24:
        raise Unfit
    mode = str(b.pick("DCR", "CRD"))
    return _of(x, b.node("DepthToSpace", wide.name, blocksize=2, mode=mode), wide.width // 4, [2 * h, 2 * w])


@block("image")
def resized(b: Builder, x: Value, inside: Inside) -> Value:
    h, w = places(x)
    if max(h, w) > 4 or b.dtype in ("float64", "bfloat16"):
        raise Unfit
    scales = b.stored(np.array([1, 1, 2, 2], np.float32))
    roi = "" if b.opset >= 13 else b.stored(np.zeros(0, np.float32))
    mode = str(b.pick("nearest", "linear"))
    made = b.node("Resize", x.name, roi, scales, mode=mode, coordinate_transformation_mode="asymmetric")
    return _of(x, made, x.width, [2 * h, 2 * w])


@block("image")
def local_response(b: Builder, x: Value, inside: Inside) -> Value:
    return x.of(b.node("LRN", x.name, size=3))


@block("signal")
def causal(b: Builder, x: Value, inside: Inside) -> Value:
    """Padded on one side, gated as in a WaveNet."""
    n = width(b)
    padded = b.node("Pad", x.name, b.whole([0, 0, 2, 0, 0, 0]))
    left, right = (b.node("Conv", padded, b.weight(n, x.width, 3, fan=3 * x.width), b.bias(n)) for _ in range(2))
    made = x.of(b.node("Mul", b.node("Tanh", left), b.node("Sigmoid", right)), n)
    return b.linear(made, width(b))


@block("image", "signal")
def flat_and_dense(b: Builder, x: Value, inside: Inside) -> Value:
    """A few channels, flattened for a layer."""
    few = activate(b, b.linear(x, 6))
    size = 6 * int(np.prod(places(x)))
    if size > 100:
        raise Unfit
    flat = b.node("Flatten", few.name) if b.chance(0.5) else b.reshape(few.name, (BATCH, size), source=few.shape)
    return activate(b, b.linear(Value(flat, "flat", (BATCH, size)), width(b)))
