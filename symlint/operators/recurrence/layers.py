"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

from symlint.model.operators import enter, op
from symlint.operators.quantised.grids import lift
from symlint.operators.recurrence.cell import HOMOGENEOUS, Cell, State, apart, recur
from symlint.program.lower import Ref, Tracer
from symlint.program.steps import NONE


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
        new = cell.call(1, t.add(apart(t, x, cell.w[2]), cell.w_bias[2], inner))
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
