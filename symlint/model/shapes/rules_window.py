"""Shapes of onnxruntime's own convolutions and poolings, whose channels may come last, and of what cuts pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from symlint.model.graph import Shape
from symlint.model.shapes.call import Call, Found, Refused
from symlint.model.shapes.parts import Rule, dtype, known, like


def _slid(call: Call, size: int, axis: int, kernel: int) -> int:
    """How many windows fit along a spatial axis."""
    stride, dilation = (_of(call, name, axis, 1) for name in ("strides", "dilations"))
    auto = call.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return -(-size // stride)
    pads = call.attribute("pads") or ()
    padded = size + (pads[axis] + pads[axis + len(pads) // 2] if pads and auto == "NOTSET" else 0)
    room = padded - dilation * (kernel - 1) - 1
    if room < 0:
        raise Refused("a window does not fit its input")
    if not call.attribute("ceil_mode", 0):
        return room // stride + 1
    count = -(-room // stride) + 1
    begin = pads[axis] if pads and auto == "NOTSET" else 0
    # The last window starts in the picture or in the padding before it.
    return count - ((count - 1) * stride >= size + begin)


def _of(call: Call, name: str, axis: int, default: int) -> int:
    values: Any = call.attribute(name)
    return int(values[axis]) if values else default


def _slides(call: Call, sizes: Iterable[int], kernel: Iterable[int]) -> Shape:
    return tuple(_slid(call, n, axis, k) for axis, (n, k) in enumerate(zip(sizes, kernel, strict=True)))


def _conv_last(call: Call, weight: int) -> list[Found]:
    x, w = call.shape(0), call.shape(weight)
    if len(x) != len(w) or x[-1] != w[1] * call.attribute("group", 1):
        raise Refused("channels differ")
    return [(dtype(call, 0), (x[0], *_slides(call, x[1:-1], w[2:]), w[0]))]


def _pool_last(call: Call) -> list[Found]:
    (batch, *sizes, channels), kernel = call.shape(0), call.attribute("kernel_shape")
    return [(dtype(call, 0), (batch, *_slides(call, sizes, kernel), channels))]


def _global_last(call: Call) -> list[Found]:
    (batch, *sizes, channels) = call.shape(0)
    return [(dtype(call, 0), (batch, *[1] * len(sizes), channels))]


def _either(last: Rule, first: Rule) -> Rule:
    """By where the channels come."""
    return lambda call: (last if call.attribute("channels_last", 0) else first)(call)


def _transposed(call: Call) -> Call:
    return call.like("ConvTranspose", (0, 1), pads=tuple(int(n) for n in known(call, 2)))


def _resized(call: Call) -> list[Found]:
    sizes = [int(n) for n in known(call, 3)]
    return [(dtype(call, 0), (call.shape(1)[0], call.shape(0)[1], *sizes))]


def _crop(call: Call) -> list[Found]:
    *outer, height, width = call.shape(0)
    left, top, right, bottom = call.attribute("border")
    scale = call.attribute("scale") or (height - top - bottom, width - left - right)
    return [(dtype(call, 0), (*outer, *scale))]


def _unfolded(call: Call) -> list[Found]:
    x, size = call.shape(0), call.attribute("size")
    at = call.attribute("dim", -1) % len(x)
    count = (x[at] - size) // call.attribute("step", 1) + 1
    if count < 1:
        raise Refused("a window does not fit its input")
    return [(dtype(call, 0), (*x[:at], count, *x[at + 1 :], size))]


WINDOWS: dict[str, Rule] = {
    "Crop": _crop,
    "com.microsoft.FusedConv": like("Conv", 0, 1, 2),
    "com.microsoft.QLinearConv": _either(lambda call: _conv_last(call, 3), like("Conv", 0, 3)),
    "com.microsoft.NhwcConv": lambda call: _conv_last(call, 1),
    "com.microsoft.NhwcFusedConv": lambda call: _conv_last(call, 1),
    "com.microsoft.NhwcMaxPool": _pool_last,
    "com.microsoft.MaxpoolWithMask": like("MaxPool", 0),
    "com.microsoft.QLinearAveragePool": _either(_pool_last, like("AveragePool", 0)),
    "com.microsoft.QLinearGlobalAveragePool": _either(_global_last, like("GlobalAveragePool", 0)),
    "com.microsoft.ConvTransposeWithDynamicPads": _transposed,
    "com.microsoft.CropAndResize": _resized,
    "com.microsoft.GridSample": like("GridSample", 0, 1),
    "com.microsoft.UnfoldTensor": _unfolded,
}
"""Operators without a schema of ONNX's own: the kinds of their outputs, or the standard call they equal."""
