"""Weights are NaN or infinite: what they touch is not a number.

## What it checks

Every stored floating-point tensor for NaN and for infinite values. Infinities are legal where they are no weight but a
bound or a mask: ``-inf`` in a tensor that is added to scores, and either sign in a tensor that is only compared,
selected (Where, Pad) or used as a limit (Clip, Min, Max).

## Why it matters

A single NaN spreads to every output that depends on it, often only for some inputs, and no checker of ONNX models names
it. A comparison with NaN is false, so that a classifier may keep answering, always the same class.

## What else can cause it

A training that diverged; a weight that left the range of float16 when it was converted; a running variance or a scale
that was divided by zero; a damaged file; a batch normalisation that was folded with a zero variance.

## Evidence

exact: every element is looked at; the facts count them by kind.

## Repair

None keeps the function, since there is none to keep. Go back to the last checkpoint that is finite, or convert again in
a wider type.

## References

IEEE 754-2019, 6.1 (infinity arithmetic) and 6.2 (operations with NaN).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from symlint.evidence import Context
from symlint.finding import Finding, Level
from symlint.graph import Array, Graph, Node
from symlint.rule import rule

_CHUNK = 1 << 20  # elements looked at in one go: small enough for the cache of the second level
_SHOWN = 3
# Operators that hand values on, so that the next one decides what they are used for.
_CARRIES = {
    *(
        "Cast",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "Identity",
        "Pad",
        "Reshape",
        "ScatterElements",
    ),
    *("ScatterND", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
}
_BOUNDS = {"Clip", "Equal", "Greater", "GreaterOrEqual", "IsInf", "Less", "LessOrEqual", "Max", "Min"}
_ADDS = {"Add", "Attention", "Sum", "com.microsoft.Attention", "com.microsoft.MultiHeadAttention"}


@dataclass(frozen=True, slots=True)
class _Tally:
    """How many elements of a tensor are no finite numbers."""

    nan: int
    above: int
    below: int


@rule("SYM005", "non-finite-weights", Level.ERROR, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One finding for the model, since one fault seldom hits one tensor only."""
    model = context.symmetry.model
    bad = {
        name: tally for name, tensor in model.tensors.items() if tensor.floating and (tally := _tally(tensor.read()))
    }
    if not bad:
        return
    uses = _Uses(model.graph)
    guilty = {name: tally for name, tally in bad.items() if not _legal(tally, uses.of(name))}
    if not guilty:
        return
    names = sorted(guilty)
    counts = {
        "NaN": sum(tally.nan for tally in guilty.values()),
        "infinite": sum(tally.above + tally.below for tally in guilty.values()),
    }
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    found = " and ".join(f"{number:,} {kind}" for kind, number in counts.items() if number)
    values = "value" if sum(counts.values()) == 1 else "values"
    message = f"{found} {values} among the weights of {', '.join(names[:_SHOWN])}{more}"
    yield Finding(
        rule=check.code,
        name=check.name,
        level=Level.ERROR,
        evidence=check.evidence,
        message=message,
        tensors=tuple(names),
        facts={**counts, "tensors": len(names)},
    )


def _tally(values: Array) -> _Tally | None:
    """The counts, or None for a tensor that is finite throughout."""
    flat = values.reshape(-1)
    nan = above = below = 0
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if np.isfinite(chunk).all():
            continue
        lost = np.isnan(chunk)
        infinite = np.isinf(chunk)
        negative = np.signbit(chunk) & infinite
        nan += int(np.count_nonzero(lost))
        below += int(np.count_nonzero(negative))
        above += int(np.count_nonzero(infinite)) - int(np.count_nonzero(negative))
    return _Tally(nan, above, below) if nan or above or below else None


def _legal(tally: _Tally, uses: Iterable[str]) -> bool:
    """Whether infinities are a mask's or a bound's: -inf is legal in a sum, either sign where values are compared."""
    if tally.nan:
        return False
    allowed = _BOUNDS if tally.above else _BOUNDS | _ADDS
    return all(op in allowed for op in uses)


class _Uses:
    """The operators at which stored values arrive, through those that only hand them on."""

    def __init__(self, graph: Graph) -> None:
        self._readers: dict[str, list[Node]] = defaultdict(list)
        graphs = [graph]
        while graphs:
            for node in graphs.pop().nodes:
                graphs += [value for value in node.attributes.values() if isinstance(value, Graph)]
                for name in node.inputs:
                    self._readers[name].append(node)

    def of(self, name: str) -> set[str]:
        """Names of the operators that use the value."""
        found: set[str] = set()
        seen, waiting = {name}, [name]
        while waiting:
            for node in self._readers.get(waiting.pop(), ()):
                if node.op in _CARRIES:
                    fresh = set(node.outputs) - seen
                    seen |= fresh
                    waiting += fresh
                else:
                    found.add(node.op)
        return found
