"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from fractions import Fraction

import numpy as np

from symlint.model.operators import enter, op
from symlint.model.records import dataclass
from symlint.operators.quantised import lift
from symlint.program.functions import MixKind
from symlint.program.lower import Ref, Tracer
from symlint.program.steps import NONE, Law

# Recurrence, unrolled for two time steps, which is all that a third one can join or limit.
#
# The first step starts from the initial state, the second from what the first made. An absent initial state is zero and
# adds nothing. Directions are cut from the weights' first axis, and gates from their second.

State = Sequence[Ref | None]
Step = Callable[["Cell", Ref, State], tuple[Ref, ...]]
HOMOGENEOUS = ("relu", "leakyrelu")


@dataclass(frozen=True, slots=True)
class Cell:
    """The weights of one direction, gate by gate, and the functions of a step."""

    t: Tracer
    w: list[Ref]
    r: list[Ref]
    w_bias: list[Ref | None]
    r_bias: list[Ref | None]
    peepholes: list[Ref | None]
    functions: Sequence[str]
    clip: float | None
    biases: dict[int, Ref] = field(default_factory=dict)
    """The sums of both biases of a gate, made once for all time steps."""
    inputs: dict[int, Ref] = field(default_factory=dict)
    """What each gate makes of the input, made once as well: time steps have the same."""

    def gate(self, g: int, x: Ref, h: Ref | None, *more: Ref | None) -> Ref:
        """What gate `g` receives."""
        both = [b for b in (self.w_bias[g], self.r_bias[g]) if b is not None]
        if both and g not in self.biases:
            self.biases[g] = self.t.add(*both)
        return self.t.add(self.input(g, x), self.back(g, h), self.biases.get(g), *more)

    def input(self, g: int, x: Ref) -> Ref:
        """What gate `g` receives from the input."""
        if g not in self.inputs:
            self.inputs[g] = self.t.einsum("s b k, n k -> s b n", x, self.w[g])
        return self.inputs[g]

    def back(self, g: int, h: Ref | None) -> Ref | None:
        """What gate `g` receives from the state."""
        return None if h is None else self.t.einsum("... k, n k -> ... n", h, self.r[g])

    def call(self, k: int, x: Ref) -> Ref:
        """Activation `k` of a step."""
        x = x if self.clip is None else self.t.apply(x, None, "Clipped")
        name = self.functions[k]
        return self.t.apply(x, 1 if name.lower() in HOMOGENEOUS else None, name)

    def look(self, k: int, c: Ref | None) -> Ref | None:
        """What peephole `k` sees of the cell."""
        peephole = self.peepholes[k]
        return None if c is None or peephole is None else self.t.multiply(c, peephole)


def recur(
    t: Tracer,
    x: Ref,
    w: Ref,
    r: Ref,
    b: Ref | None,
    lengths: Ref | None,
    states: Sequence[Ref | None],
    peepholes: Ref | None,
    step: Step,
    functions: Sequence[str],
    activations: Sequence[str],
    clip: float | None,
    layout: int,
) -> tuple[Ref, ...]:
    """The whole sequence and the last states of a layer whose cell does `step`."""
    if layout:
        x, states = t.transpose(x, (1, 0, 2)), [s and t.transpose(s, (1, 0, 2)) for s in states]
    if lengths is not None and lengths.value is None:
        t.unknown([lengths], [], "it is a length", opaque=False)
    # Lengths tell the examples of a batch apart.
    x = t.mix(x, [None, 1 if lengths is None else None, 2], MixKind.RECURRENCE, shape=x.shape, steady=True)
    count = len(functions)
    names = list(activations) or list(functions) * w.shape[0]
    later = t.constant((np.arange(x.shape[0]) > 0).reshape(-1, 1, 1))
    found: list[tuple[Ref, ...]] = []
    for d in range(w.shape[0]):
        cell = _cell(t, d, (w, r, b, peepholes), names[d * count : (d + 1) * count], clip)
        first = step(cell, x, tuple(_gates(t, s, d, s.shape[1])[0] if s and not _zero(s) else None for s in states))
        second = step(cell, x, first)
        law = Law("sum", (None, Fraction(1), Fraction(1)))
        pairs = zip(first, second, strict=True)
        found.append(tuple(t.pointwise(law, later, q, p, function="Where") for p, q in pairs))
    whole, last = _joined(t, found, len(states))
    if layout:
        whole, last = t.transpose(whole, (2, 0, 1, 3)), [t.transpose(s, (1, 0, 2)) for s in last]
    return (whole, *last)


def _cell(
    t: Tracer, d: int, weights: tuple[Ref, Ref, Ref | None, Ref | None], names: Sequence[str], clip: float | None
) -> Cell:
    """The cell of direction `d`; the weights are those of the input, the state, the biases and the peepholes."""
    w, r, b, peepholes = weights
    hidden = r.shape[2]
    bias, gates = _gates(t, b, d, hidden), _gates(t, w, d, hidden)
    half = len(gates)
    return Cell(
        t,
        [g for g in gates if g],
        [g for g in _gates(t, r, d, hidden) if g],
        bias[:half] or [None] * half,
        bias[half:] or [None] * half,
        _gates(t, peepholes, d, hidden) or [None] * 3,
        names,
        clip,
    )


def _joined(t: Tracer, found: Sequence[tuple[Ref, ...]], states: int) -> tuple[Ref, list[Ref]]:
    """The whole sequence and the last states of all directions."""
    shape = found[0][0].shape
    whole = t.concat([t.reshape(s[0], (shape[0], 1, *shape[1:])) for s in found], 1)
    last = [
        t.concat([t.mix(s[k], [None, 1, 2], MixKind.LAST_STATE, shape=(1, *shape[1:])) for s in found], 0)
        for k in range(states)
    ]
    return whole, last


def _gates(t: Tracer, w: Ref | None, d: int, rows: int) -> list[Ref | None]:
    """Direction `d` of a tensor, cut into gates of `rows` rows."""
    if w is None:
        return []
    mine = t.reshape(t.slice(w, 0, d, d + 1), (w.shape[1] // rows, rows, *w.shape[2:]))
    return [t.reshape(t.slice(mine, 0, g, g + 1), mine.shape[1:]) for g in range(mine.shape[0])]


def _zero(x: Ref) -> bool:
    return x.value is not None and not np.any(x.value)


def _product(t: Tracer, a: Ref, b: Ref | None) -> Ref | None:
    return None if b is None else t.multiply(a, b)


def _rnn(cell: Cell, x: Ref, state: State) -> tuple[Ref, ...]:
    return (cell.call(0, cell.gate(0, x, state[0])),)


def _gru(cell: Cell, x: Ref, state: State, *, early: bool) -> tuple[Ref, ...]:
    t, h = cell.t, state[0]
    z, r = (cell.call(0, cell.gate(g, x, h)) for g in (0, 1))
    if early:
        back = cell.back(2, h)
        inner = None if back is None and cell.r_bias[2] is None else t.multiply(r, t.add(back, cell.r_bias[2]))
        new = cell.call(1, t.add(cell.input(2, x), cell.w_bias[2], inner))
    else:
        new = cell.call(1, cell.gate(2, x, _product(t, r, h)))
    return (t.add(t.multiply(t.apply(z, None, "Complement"), new), _product(t, z, h)),)


def _lstm(cell: Cell, x: Ref, state: State, *, coupled: bool) -> tuple[Ref, ...]:
    t, (h, c) = cell.t, state
    i = cell.call(0, cell.gate(0, x, h, cell.look(0, c)))
    f = t.apply(i, None, "Complement") if coupled else cell.call(0, cell.gate(2, x, h, cell.look(2, c)))
    new = t.add(t.multiply(i, cell.call(1, cell.gate(3, x, h))), _product(t, f, c))
    o = cell.call(0, cell.gate(1, x, h, cell.look(1, new)))
    return t.multiply(o, t.apply(new, 1 if cell.functions[2].lower() in HOMOGENEOUS else None, cell.functions[2])), new


enter(("RNN", "GRU", "LSTM", "com.microsoft.DynamicQuantizeLSTM"), recurrent=True)


@op("RNN", exact=True)
def rnn(
    t: Tracer,
    x: Ref,
    w: Ref,
    r: Ref,
    b: Ref | None,
    lengths: Ref | None,
    h: Ref | None,
    *,
    activations: Sequence[str] = (),
    clip: float | None = None,
    layout: int = 0,
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__RNN.html"""
    return recur(t, x, w, r, b, lengths, [h], None, _rnn, ["Tanh"], activations, clip, layout)


@op("GRU", exact=True)
def gru(
    t: Tracer,
    x: Ref,
    w: Ref,
    r: Ref,
    b: Ref | None,
    lengths: Ref | None,
    h: Ref | None,
    *,
    activations: Sequence[str] = (),
    clip: float | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__GRU.html"""

    def step(cell: Cell, x: Ref, state: State) -> tuple[Ref, ...]:
        return _gru(cell, x, state, early=bool(linear_before_reset))

    return recur(t, x, w, r, b, lengths, [h], None, step, ["Sigmoid", "Tanh"], activations, clip, layout)


@op("LSTM", exact=True)
def lstm(
    t: Tracer,
    x: Ref,
    w: Ref,
    r: Ref,
    b: Ref | None,
    lengths: Ref | None,
    h: Ref | None,
    c: Ref | None,
    p: Ref | None,
    *,
    activations: Sequence[str] = (),
    clip: float | None = None,
    layout: int = 0,
    input_forget: int = 0,
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__LSTM.html"""

    def step(cell: Cell, x: Ref, state: State) -> tuple[Ref, ...]:
        return _lstm(cell, x, state, coupled=bool(input_forget))

    return recur(t, x, w, r, b, lengths, [h, c], p, step, ["Sigmoid", "Tanh", "Tanh"], activations, clip, layout)


@op("com.microsoft.DynamicQuantizeLSTM")
def dynamic_quantize_lstm(
    t: Tracer,
    x: Ref,
    w: Ref,
    r: Ref,
    b: Ref | None,
    lengths: Ref | None,
    h: Ref | None,
    c: Ref | None,
    p: Ref | None,
    w_scale: Ref,
    w_zero: Ref | None,
    r_scale: Ref,
    r_zero: Ref | None,
    *,
    activations: Sequence[str] = (),
    clip: float | None = None,
    input_forget: int = 0,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.DynamicQuantizeLSTM"""
    w, r = (_levels(t, *parts) for parts in ((w, w_scale, w_zero), (r, r_scale, r_zero)))
    x = t.pointwise(NONE, x)
    return lstm(t, x, w, r, b, lengths, h, c, p, activations=activations, clip=clip, input_forget=input_forget)


def _levels(t: Tracer, w: Ref, scale: Ref, zero: Ref | None) -> Ref:
    """Dequantised weights ``d n k`` from ``d k n``, with levels per direction or per direction and row."""
    wide = [None if v is None else t.reshape(v, (*v.shape, *(1,) * (3 - v.rank))) for v in (scale, zero)]
    return lift(t, t.transpose(w, (0, 2, 1)), wide[0], wide[1], 0)
