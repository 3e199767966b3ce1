"""Weights are NaN or infinite: what they touch is not a number.

## What it checks

Every stored floating-point tensor for NaN and for infinite values. Infinities are legal where they are no weight but a
bound or a mask: either sign where values are only compared or limited (Clip, Min, Max, TopK, max pooling), and ``-inf``
in a tensor that is added to scores, that is the mask of an attention, or that fills places (Where, Pad, Scatter) which
a softmax, a logarithm of one or an exponential then takes to zero. Scales on the way change nothing.

## Example

```text
error[non-finite-weights] SYM005: 1 NaN and 1 infinite values among the
  weights of w1, w2
  --> w1 (MatMul -> a)
    = tensors: w1, w2
    = evidence: exact
```

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
from collections.abc import Collection, Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule
from symlint.model.graph import Graph, Node
from symlint.model.naming import Names
from symlint.model.records import dataclass

_SHOWN = 3
# Operators that hand values on, so that the next one decides what they are used for.
_CARRIES = {
    *("Cast", "CastLike", "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements"),
    *("GatherND", "Identity", "OneHot", "Pad", "Reshape", "ReverseSequence", "ScatterElements", "ScatterND", "Slice"),
    *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"),
}
# Scales and signs: what is infinite stays so, if nothing that a run makes stands on the other side.
_SCALES = {"Div", "Mul", "Neg"}
# Operators that put places of one tensor into another.
_FILLS = {"Concat", "OneHot", "Pad", "ScatterElements", "ScatterND", "Where"}
# To compare, to choose the largest and to limit: infinity is as good a number as any.
_BOUNDS = {
    *("ArgMax", "ArgMin", "Clip", "Equal", "GlobalMaxPool", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less"),
    *("LessOrEqual", "Max", "MaxPool", "Min", "ReduceMax", "ReduceMin", "Shape", "Sign", "Size", "TopK"),
}
# What takes -inf for nothing: exp(-inf) = 0.
_WEIGHS = {
    *("Exp", "Hardmax", "LogSoftmax", "ReduceLogSumExp", "Sigmoid", "Softmax", "Softplus", "com.microsoft.BiasSoftmax"),
}
_ADDS = {"Add", "Sum"}
# Attention in one node -> the first of its inputs that are masks or are added to the scores.
_MASKED = {
    "Attention": 3,
    "com.microsoft.Attention": 3,
    "com.microsoft.DecoderMaskedMultiHeadAttention": 3,
    "com.microsoft.GroupQueryAttention": 10,
    "com.microsoft.LongformerAttention": 3,
    "com.microsoft.MultiHeadAttention": 4,
    "com.microsoft.PackedAttention": 5,
    "com.microsoft.PackedMultiHeadAttention": 6,
    "com.microsoft.QAttention": 5,
}


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
        name: _Tally(*digest.extremes)
        for name, tensor in model.tensors.items()
        if tensor.floating and not (digest := model.digests.of(tensor)).finite
    }
    if not bad:
        return
    uses = _Uses(model.graph, model.tensors)
    guilty = {name: tally for name, tally in bad.items() if not uses.legal(name, tally)}
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
    message = f"{found} {values} among the weights of {', '.join(map(Names(model).spoken, names[:_SHOWN]))}{more}"
    yield Finding(
        rule=check.code,
        name=check.name,
        level=Level.ERROR,
        evidence=check.evidence,
        message=message,
        tensors=tuple(names),
        facts={**counts, "tensors": len(names)},
    )


class _Uses:
    """What is done with stored values, wherever they are handed on to."""

    def __init__(self, graph: Graph, stored: Collection[str]) -> None:
        self._readers: dict[str, list[tuple[Node, int]]] = defaultdict(list)
        self._moving = set(graph.inputs) - set(stored)
        """What a run makes."""
        graphs = [graph]
        for each in graphs:
            self._moving.update(each.inputs)  # of a body: the state of a loop, an element of a scan
            for node in each.nodes:
                graphs += node.bodies
                if not self._moving.isdisjoint(node.inputs):
                    self._moving.update(node.outputs)
                for k, name in enumerate(node.inputs):
                    self._readers[name].append((node, k))

    def legal(self, name: str, tally: _Tally) -> bool:
        """Whether the infinities of a stored tensor are those of a mask or of a bound wherever it is used."""
        if tally.nan:
            return False
        # A sign counts how often a way has turned it; ``filled`` are places in what a run makes, and no mask any more.
        seen: set[tuple[str, int, bool]] = set()
        waiting = [(name, sign, False) for sign, n in ((1, tally.above), (-1, tally.below)) if n]
        while waiting:
            if (place := waiting.pop()) in seen:
                continue
            seen.add(place)
            value, sign, filled = place
            for node, k in self._readers.get(value, ()):
                if node.op in _BOUNDS or (sign < 0 and _masks(node, k, filled=filled)):
                    continue
                run = any(n in self._moving for j, n in enumerate(node.inputs) if j != k)
                if node.op in _SCALES and (filled or not run) and not (node.op == "Div" and k):
                    waiting += [(out, -sign if node.op == "Neg" else sign, filled) for out in node.outputs]
                elif node.op in _CARRIES:
                    waiting += [(out, sign, filled or (node.op in _FILLS and run)) for out in node.outputs]
                elif node.op in ("Loop", "Scan"):  # what goes in as number k is number k in the body
                    waiting += [(body.inputs[k], sign, True) for body in node.bodies if k < len(body.inputs)]
                else:
                    return False
        return True


def _masks(node: Node, k: int, *, filled: bool) -> bool:
    """Whether -inf is legal as an input of a node: as a mask, or where it is taken for nothing."""
    if node.op == "Sub":
        return filled and not k  # the largest is taken away before the exponential
    return node.op in _ADDS or node.op in _WEIGHS or k >= _MASKED.get(node.op, k + 1)
