"""The blocks that random networks are made of, by name. A block takes a value and gives another.

Each draws its sizes from `Builder.rng` and its weights from `Builder.values`; where it cannot stand it raises `Unfit`
and is left out. What it keeps of the layout and the number of channels is for its readers to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from builder import BATCH, TYPES, Builder, Unfit, Value
from recipe import Part, Recipe

Inside = Callable[[Builder, Value, int], Value]
"""What a block calls to put its k-th branch behind a value."""
Block = Callable[[Builder, Value, Inside], Value]
BLOCKS: dict[str, Block] = {}
BRANCHES: dict[str, int] = {}
"""Block -> how many branches it has."""
LAST = ("flat", "tokens", "steps", "nhwc")
"""Layouts with the channels last."""
LAYOUTS = ("flat", "tokens", "steps", "image", "nhwc", "signal")
HABITS = (
    "bias first", "bias to conv", "computed shapes", "constant nodes", "decomposed", "gemm", "noise", "short",
    "symbolic batch", "transposed", "two outputs", "value info",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block can stand."""

    layouts: tuple[str, ...]
    since: int


PLACES: dict[str, Place] = {}


def block(*layouts: str, branches: int = 0, since: int = 11) -> Callable[[Block], Block]:
    """Register a block, by the name of its function, for some layouts."""

    def register(function: Block) -> Block:
        BLOCKS[function.__name__] = function
        BRANCHES[function.__name__] = branches
        PLACES[function.__name__] = Place(layouts or LAYOUTS, since)
        return function

    return register


# -- drawing ----------------------------------------------------------------------------------------------------------
OPSETS = tuple(range(11, 24))


def draw(rng: np.random.Generator, *, longest: int = 5) -> Recipe:
    """A random recipe of so many blocks at most, some of which may not fit where they are put."""
    dtype = str(rng.choice(["float32", "float16", "float64", "bfloat16"], p=[0.7, 0.1, 0.15, 0.05]))
    # onnxruntime has no convolutions in double precision.
    entry = str(rng.choice(LAYOUTS[:3] if dtype == "float64" else LAYOUTS))
    parts = [_part(rng, 2) for _ in range(int(rng.integers(2, longest + 1)))]
    # Most operators take bfloat16 since 22.
    opset = int(rng.choice(OPSETS[-2:] if dtype == "bfloat16" else OPSETS))
    return Recipe(entry, tuple(parts), int(rng.integers(1 << 16)), dtype, opset, _habits(rng))


def with_calls(rng: np.random.Generator, calls: Sequence[str], opset: int) -> Recipe:
    """A short recipe with single calls of operators between its blocks."""
    parts = [Part(name, int(rng.integers(1 << 16))) for name in calls]
    for _ in range(2):
        parts.insert(int(rng.integers(len(parts) + 1)), _part(rng, 1))
    return Recipe(
        str(rng.choice(LAYOUTS[:3])), tuple(parts), int(rng.integers(1 << 16)), "float32", opset, _habits(rng)
    )


def _habits(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(h for h in HABITS if rng.random() < 0.4)


def _part(rng: np.random.Generator, depth: int) -> Part:
    names = [n for n in BLOCKS if depth or not BRANCHES[n]]
    name = names[int(rng.integers(len(names)))]
    inside = tuple(tuple(_part(rng, depth - 1) for _ in range(int(rng.integers(1, 3)))) for _ in range(BRANCHES[name]))
    return Part(name, int(rng.integers(1 << 16)), inside)


# -- building ---------------------------------------------------------------------------------------------------------
def build(recipe: Recipe, calls: Callable[[str], Block] | None = None) -> tuple[Builder, list[str]]:
    """The network of a recipe, and the names of the parts that stand in it.

    ``calls`` gives the block of a part whose name is none of the grammar's.
    """
    builder = Builder(recipe.dtype, recipe.opset, recipe.habits, recipe.seed)
    builder.rng = np.random.default_rng(recipe.seed)
    stood: list[str] = []
    x = _several(builder, builder.enter(recipe.entry), recipe.parts, stood, calls)
    if "two outputs" in recipe.habits:
        builder.leave(builder.linear(x, 3))
    head = builder.pooled(x)
    y = builder.linear(head, 4)
    builder.leave(y)
    return builder, stood


def _several(
    b: Builder, x: Value, parts: Sequence[Part], stood: list[str], calls: Callable[[str], Block] | None
) -> Value:
    for part in parts:
        x = _one(b, x, part, stood, calls)
        if "noise" in b.habits:
            x = _noise(b, x)
    return x


def _one(b: Builder, x: Value, part: Part, stood: list[str], calls: Callable[[str], Block] | None) -> Value:
    def inside(b: Builder, x: Value, k: int) -> Value:
        before = b.rng
        made = _several(b, x, part.inside[k], stood, calls) if k < len(part.inside) else x
        b.rng = before
        return made

    function = BLOCKS.get(part.name) or (calls(part.name) if calls else None)
    place = PLACES.get(part.name, Place(LAYOUTS, 0))
    assert function is not None, f"no block is called {part.name}"
    if b.opset < place.since:
        return x
    before, standing = b.mark(), len(stood)
    b.rng = np.random.default_rng(part.seed)
    try:
        made = function(b, _adapted(b, x, place.layouts), inside)
    except Unfit:
        b.back(before)
        del stood[standing:]
        return x
    stood.append(part.name)
    return made


def _adapted(b: Builder, x: Value, layouts: Sequence[str]) -> Value:
    """The value in a layout that a block takes: its axes in another order, or its places in one row."""
    for layout in (x.layout, *layouts):
        if layout in layouts:
            with suppress(Unfit):
                return b.layout(x, layout)
    if x.layout in ("image", "nhwc") and "tokens" in layouts:
        return patches(b, x, lambda b, x, k: x)
    if "flat" in layouts:
        return b.pooled(x)
    if x.layout != "flat":
        raise Unfit
    wide = unfolded(b, x, lambda b, x, k: x)
    return wide if wide.layout in layouts else _adapted(b, wide, layouts)


def _noise(b: Builder, x: Value) -> Value:
    way = int(b.rng.integers(4))
    if way == 0:
        return x.of(b.node("Identity", x.name))
    if way == 1:
        return x.of(b.dropout(x.name))
    if way == 2:
        return x.of(b.node("Cast", x.name, to=TYPES[b.dtype]))
    return x


# -- activations ------------------------------------------------------------------------------------------------------
PLAIN = ("Relu", "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign", "HardSigmoid", "Celu")

DOUBLE = ("Relu", "Tanh", "Sigmoid", "Softplus", "Clip", "square", "silu", "tanh gelu", "PRelu")
"""What onnxruntime has in double precision."""


def activate(b: Builder, x: Value) -> Value:
    """An activation, in one of its spellings."""
    way = str(b.pick(*PLAIN, "gelu", "silu", "mish", "PRelu", "Clip", "erf", "tanh gelu", "square", "HardSwish"))
    if b.dtype == "float64" and way not in DOUBLE:
        way = "Tanh"
    name = x.name
    if way == "gelu":
        made = b.node("Gelu", name) if b.has("Gelu") and "decomposed" not in b.habits else gelu(b, name)
    elif way == "erf":
        made = gelu(b, name)
    elif way == "tanh gelu":
        cube = b.node("Mul", name, b.node("Mul", name, name))
        wave = b.node("Tanh", b.node("Mul", b.add(name, b.node("Mul", cube, b.numbers(0.044715))), b.numbers(0.79788)))
        made = b.node("Mul", b.node("Mul", name, b.numbers(0.5)), b.add(wave, b.numbers(1.0)))
    elif way == "silu":
        made = b.node("Mul", name, b.node("Sigmoid", name))
    elif way == "mish":
        made = b.node("Mul", name, b.node("Tanh", b.node("Softplus", name)))
    elif way == "PRelu":
        made = b.node("PRelu", name, b.numbers(b.values.uniform(0.1, 0.4, b.along(x))))
    elif way == "Clip":
        # Wide enough that what is drawn at random is never sure to lie outside.
        made = b.node("Clip", name, b.numbers(-3.0), b.numbers(3.0))
    elif way == "square":
        made = b.node("Mul", name, name)
    elif way == "HardSwish" and not b.has("HardSwish"):
        made = b.node("Mul", name, b.node("HardSigmoid", name, alpha=1 / 6))
    else:
        made = b.node(way, name)
    return x.of(made)


def gelu(b: Builder, name: str) -> str:
    """The Gaussian error unit, written out."""
    wave = b.add(b.node("Erf", b.node("Div", name, b.numbers(np.sqrt(2)))), b.numbers(1.0))
    return b.node("Mul", b.node("Mul", name, wave), b.numbers(0.5))


# -- layers -----------------------------------------------------------------------------------------------------------
def width(b: Builder) -> int:
    """How many units a layer has."""
    return int(b.rng.integers(6, 11))


@block()
def layer(b: Builder, x: Value, inside: Inside) -> Value:
    return activate(b, b.linear(x, width(b), bias=b.chance(0.8)))


@block()
def perceptron(b: Builder, x: Value, inside: Inside) -> Value:
    return b.linear(activate(b, b.linear(x, width(b), bias=b.chance(0.8))), width(b))


@block()
def linear(b: Builder, x: Value, inside: Inside) -> Value:
    return b.linear(x, width(b), bias=b.chance(0.5))


@block()
def gated(b: Builder, x: Value, inside: Inside) -> Value:
    """Up and gate, apart or in one and split."""
    n = width(b)
    if b.chance(0.5):
        both = b.linear(x, 2 * n, bias=b.chance(0.5))
        left, right = (x.of(name, n) for name in b.split(both.name, [n, n], x.axis))
    else:
        left, right = b.linear(x, n, bias=b.chance(0.5)), b.linear(x, n, bias=b.chance(0.5))
    return b.linear(x.of(b.node("Mul", left.name, activate(b, right).name), n), width(b), bias=b.chance(0.5))


@block()
def scaled(b: Builder, x: Value, inside: Inside) -> Value:
    """A gain and a shift per channel."""
    return x.of(b.add(b.node("Mul", x.name, b.gain(*b.along(x))), b.bias(*b.along(x))))


@block(*LAST)
def tied(b: Builder, x: Value, inside: Inside) -> Value:
    """There and back through one matrix."""
    n = width(b)
    weight = b.weight(x.width, n)
    there = activate(b, x.of(b.node("MatMul", x.name, weight), n))
    return x.of(b.node("MatMul", there.name, b.transpose(weight, 1, 0)))


@block(*LAST)
def twice(b: Builder, x: Value, inside: Inside) -> Value:
    """One layer, two times."""
    weight, bias = b.weight(x.width, x.width), b.bias(x.width)
    for _ in range(2):
        x = activate(b, x.of(b.add(b.node("MatMul", x.name, weight), bias)))
    return x


@block(*LAST)
def adapter(b: Builder, x: Value, inside: Inside) -> Value:
    """A matrix with one of low rank beside it."""
    low = x.of(b.node("MatMul", x.name, b.weight(x.width, 2)), 2)
    plain = b.linear(x, width(b), bias=b.chance(0.5))
    more = b.node("MatMul", low.name, b.weight(2, plain.width))
    return plain.of(b.add(plain.name, b.node("Mul", more, b.numbers(2.0))))


@block(*LAST)
def einsum(b: Builder, x: Value, inside: Inside) -> Value:
    n, letters = width(b), "abc"[: len(x.shape) - 1]
    if b.opset < 12:
        raise Unfit
    return x.of(b.node("Einsum", x.name, b.weight(x.width, n), equation=f"{letters}i,ij->{letters}j"), n)


@block(branches=1)
def residual(b: Builder, x: Value, inside: Inside) -> Value:
    made = inside(b, x, 0)
    if made.layout != x.layout:
        made = b.layout(made, x.layout)
    if made.shape != x.shape:
        made = b.linear(made, x.width)
    if made.shape != x.shape:
        raise Unfit
    return x.of(b.add(x.name, made.name) if b.chance(0.5) else b.add(made.name, x.name))


@block(branches=2)
def beside(b: Builder, x: Value, inside: Inside) -> Value:
    """Two branches, joined by their channels, added or multiplied."""
    one, other = inside(b, x, 0), inside(b, x, 1)
    if one.layout != other.layout or len(one.shape) != len(other.shape):
        raise Unfit
    rest = [(d, e) for k, (d, e) in enumerate(zip(one.shape, other.shape, strict=True)) if k != one.axis]
    if any(d != e for d, e in rest):
        raise Unfit
    way = b.pick("concat", "concat", "Add", "Mul", "Sub", "Max")
    if way == "concat":
        return one.of(b.node("Concat", one.name, other.name, axis=one.axis), one.width + other.width)
    other = b.linear(other, one.width) if other.width != one.width else other
    return one.of(b.node(str(way), one.name, other.name))


@block(branches=1)
def partial(b: Builder, x: Value, inside: Inside) -> Value:
    """Some channels go through a branch, the others past it."""
    left = x.width // 2
    head, tail = b.split(x.name, [left, x.width - left], x.axis)
    made = inside(b, x.of(head, left), 0)
    if made.layout != x.layout or made.of("", 1).shape != x.of("", 1).shape:
        raise Unfit  # the branch would lead nowhere
    return x.of(b.node("Concat", made.name, tail, axis=x.axis), made.width + x.width - left)


@block(branches=1)
def ending(b: Builder, x: Value, inside: Inside) -> Value:
    """An output of its own on the way."""
    b.leave(b.linear(b.pooled(inside(b, x, 0)), 2))
    return x


@block()
def excite(b: Builder, x: Value, inside: Inside) -> Value:
    """Channels weighted by what the mean of all says."""
    rest = [k for k, d in enumerate(x.shape) if d != BATCH and k != x.axis]
    if not rest:
        raise Unfit
    mean = Value(b.mean(x, rest), x.layout, tuple(1 if k in rest else d for k, d in enumerate(x.shape)))
    gate = b.node("Sigmoid", b.linear(activate(b, b.linear(mean, 6)), x.width).name)
    return x.of(b.node("Mul", x.name, gate))


@block()
def modulated(b: Builder, x: Value, inside: Inside) -> Value:
    """Channels scaled by one more than what the mean of all says, and shifted by what it says."""
    rest = [k for k, d in enumerate(x.shape) if d != BATCH and k != x.axis]
    mean = Value(b.mean(x, rest), x.layout, tuple(1 if k in rest else d for k, d in enumerate(x.shape))) if rest else x
    n = x.width
    told = activate(b, b.linear(mean, 6))
    if b.chance(0.5):
        shift, scale = b.split(b.linear(told, 2 * n).name, [n, n], x.axis)
    else:
        shift, scale = b.linear(told, n).name, b.linear(told, n).name
    one = b.numbers(1.0)
    above = b.add(scale, one) if b.chance(0.7) else b.node("Sub", one, scale)
    made = b.node("Mul", activate(b, b.linear(x, n)).name, above)
    return x.of(b.add(made, shift) if b.chance(0.7) else made)


@block()
def some_channels(b: Builder, x: Value, inside: Inside) -> Value:
    """All channels in another order, by a stored index."""
    order = b.rng.permutation(x.width)
    return x.of(b.node("Gather", x.name, b.whole(order), axis=x.axis))


@block(*LAST)
def experts(b: Builder, x: Value, inside: Inside) -> Value:
    """A softmax weighs what each expert makes."""
    many, n = 3, width(b)
    weights = b.softmax(b.linear(x, many).name, len(x.shape))
    made = ""
    for k in range(many):
        share = b.slice(weights, k, k + 1, x.axis)
        one = b.node("Mul", b.linear(activate(b, b.linear(x, n)), x.width).name, share)
        made = b.add(made, one) if made else one
    return x.of(made)


# -- layouts ----------------------------------------------------------------------------------------------------------
@block("tokens", "steps", "signal", "image", "nhwc")
def turned(b: Builder, x: Value, inside: Inside) -> Value:
    """The same in another layout."""
    others = {"tokens": ("steps", "signal"), "steps": ("tokens", "signal"), "signal": ("tokens", "steps")}
    choice = str(b.pick(*others[x.layout])) if x.layout in others else "nhwc" if x.layout == "image" else "image"
    return b.layout(x, choice)


@block("image", "nhwc")
def patches(b: Builder, x: Value, inside: Inside) -> Value:
    """Places of an image as tokens."""
    x = b.layout(x, "image")
    _, c, h, w = x.shape
    long = int(h) * int(w)
    if long > 9:
        raise Unfit
    flat = b.reshape(x.name, (BATCH, c, long), source=x.shape)
    return Value(b.transpose(flat, 0, 2, 1), "tokens", (BATCH, long, c))


@block("tokens", "signal", "steps", "image", "nhwc")
def pooling(b: Builder, x: Value, inside: Inside) -> Value:
    return b.pooled(x)


@block("image", "signal", "tokens")
def flattened(b: Builder, x: Value, inside: Inside) -> Value:
    size = int(np.prod([int(d) for d in x.shape[1:]]))
    if size > 100:
        raise Unfit
    made = b.node("Flatten", x.name) if b.chance(0.5) else b.reshape(x.name, (BATCH, size), source=x.shape)
    return Value(made, "flat", (BATCH, size))


@block("flat")
def unfolded(b: Builder, x: Value, inside: Inside) -> Value:
    """A layer whose units are tokens with channels, or channels of an image."""
    way = b.pick("tokens", "image", "signal")
    shapes = {"tokens": (BATCH, 3, 6), "image": (BATCH, 6, 2, 2), "signal": (BATCH, 6, 4)}
    shape = shapes[str(way)]
    made = b.linear(x, int(np.prod([int(d) for d in shape[1:]])))
    return Value(b.reshape(made.name, shape, source=made.shape), str(way), shape)


# -- normalisations ---------------------------------------------------------------------------------------------------
@block(*LAST)
def layer_norm(b: Builder, x: Value, inside: Inside) -> Value:
    gain, shift = b.gain(x.width), b.bias(x.width)
    if b.has("LayerNormalization") and "decomposed" not in b.habits:
        return x.of(b.node("LayerNormalization", x.name, gain, shift, axis=-1))
    middle = b.node("Sub", x.name, b.reduce("ReduceMean", x.name, [-1]))
    square = b.node("Pow", middle, b.numbers(2.0)) if b.chance(0.5) else b.node("Mul", middle, middle)
    deviation = b.node("Sqrt", b.add(b.reduce("ReduceMean", square, [-1]), b.numbers(1e-5)))
    return x.of(b.add(b.node("Mul", b.node("Div", middle, deviation), gain), shift))


@block(*LAST)
def rms_norm(b: Builder, x: Value, inside: Inside) -> Value:
    gain = b.gain(x.width)
    if b.has("RMSNormalization") and "decomposed" not in b.habits:
        return x.of(b.node("RMSNormalization", x.name, gain, axis=-1))
    if "short" in b.habits and b.dtype == "float32":
        return x.of(b.node("SimplifiedLayerNormalization", x.name, gain, axis=-1)) if b.opset < 0 else _rms(b, x, gain)
    return _rms(b, x, gain)


def _rms(b: Builder, x: Value, gain: str) -> Value:
    square = b.node("Pow", x.name, b.numbers(2.0))
    root = b.node("Sqrt", b.add(b.reduce("ReduceMean", square, [-1]), b.numbers(1e-5)))
    normed = b.node("Mul", x.name, b.node("Reciprocal", root)) if b.chance(0.5) else b.node("Div", x.name, root)
    return x.of(b.node("Mul", gain, normed) if b.chance(0.5) else b.node("Mul", normed, gain))


@block()
def unit_length(b: Builder, x: Value, inside: Inside) -> Value:
    """Divided by its length over the channels."""
    if b.chance(0.5):
        return x.of(b.node("LpNormalization", x.name, axis=x.axis, p=2))
    length = b.reduce("ReduceL2", x.name, [x.axis])
    return x.of(b.node("Div", x.name, b.add(length, b.numbers(1e-3))))


@block("image", "signal", "flat")
def batch_norm(b: Builder, x: Value, inside: Inside) -> Value:
    n = x.width
    variance = b.numbers(b.values.uniform(0.5, 2, n))
    return x.of(b.node("BatchNormalization", x.name, b.gain(n), b.bias(n), b.bias(n), variance))


@block("image", "signal")
def instance_norm(b: Builder, x: Value, inside: Inside) -> Value:
    return x.of(b.node("InstanceNormalization", x.name, b.gain(x.width), b.bias(x.width)))


@block("image", "signal")
def group_norm(b: Builder, x: Value, inside: Inside) -> Value:
    """Two groups, as an operator, or by an instance norm of reshaped channels."""
    n = x.width
    if n % 2:
        raise Unfit
    if b.has("GroupNormalization") and b.opset >= 21 and "decomposed" not in b.habits:
        # Runtimes write it out, and take the means in single precision unless they are told otherwise.
        means = {"stash_type": TYPES[b.dtype]} if b.dtype == "float64" else {}
        return x.of(b.node("GroupNormalization", x.name, b.gain(n), b.bias(n), num_groups=2, **means))
    size = int(np.prod([int(d) for d in x.shape[1:]])) // 2
    flat = b.reshape(x.name, (BATCH, 2, size), source=x.shape)
    normed = b.node("InstanceNormalization", flat, b.numbers(np.ones(2)), b.numbers(np.zeros(2)))
    back = b.reshape(normed, x.shape, source=(BATCH, 2, size))
    return x.of(b.add(b.node("Mul", back, b.gain(*b.along(x))), b.bias(*b.along(x))))
