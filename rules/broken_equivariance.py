"""Outputs that do not answer to a transformation of an input as you declared.

## What it checks

For every equivariance in the configuration, with ``symlint check --run`` alone: whether the outputs stay, or go along,
when an input is transformed. A declaration is a row of ``symlint equivariance``, as a table:

```toml
[[tool.symlint.equivariances]]   # [[equivariances]] in symlint.toml
name = "flip"                    # flip, turn, shift, permutation or sign
input = "image"
axis = 3                         # from 0; of a turn the first of both; without it, all axes
output = "scores"                # without it, all outputs
action = "invariant"             # or "equivariant"; without it, whichever fits better
tolerance = 0.01                 # the largest error, as a share of the output's largest value; without it, rounding
```

The network runs in onnxruntime, in a process of its own, on inputs that are drawn until the outputs answer to them, and
on the same inputs transformed. An output that differs by more than rounding does, or than the tolerance, is an error;
one that could not be tried, since it does not answer to the input or the model does not run, is a warning. What means
nothing in the model, such as an axis that is not there, is an error, and a model without such an input gets a note.
Without ``--run`` a note says that nothing was tried: networks are only run where you ask for it.

## Example

```text
error[broken-equivariance] SYM802: flip of x[1]: output y is not invariant:
  it is off by 233.5% of its largest value, which rounding does not explain
  --> ReduceSum -> y (ReduceSum)
    = evidence: exact
```

## Why it matters

That a detector sees the same in a mirrored image, or a network of a graph the same whatever its nodes are called, is a
promise that others build upon, and a conversion, a quantisation or a retraining breaks it silently: padding on one
side, a resize that rounds to the left, an axis that was flattened in another order.

## What else can cause it

An equivariance that was learned holds nearly and never exactly: declare a tolerance. Shifts go round in a circle; a
convolution with zeros at its border is not equivariant to them. A network may keep a promise on its own inputs, and
break it on those that are drawn.

## Evidence

exact: inputs were found at which the outputs differ by more than ten times what rounding does. That a declaration holds
is no proof: it held on six draws.

## Repair

None of its own. ``symlint symmetrise`` writes the average over a group of transformations, which keeps the promise.

## References

Cohen and Welling, Group Equivariant Convolutional Networks (ICML 2016); Zaheer et al., Deep Sets (NeurIPS 2017);
Bronstein et al., Geometric Deep Learning (2021).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.options import Equivariance, Tried
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule
from symlint.model.errors import UsageProblem


@rule("SYM802", "broken-equivariance", Level.ERROR, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One finding per declaration that is not known to hold, and output."""
    for declared in context.asked.equivariances:
        if declared.input not in context.symmetry.model.graph.inputs:
            yield _said(declared, Level.NOTE, "this model has no such input", {"absent": True})
        elif context.trial is None:
            yield _said(declared, Level.NOTE, "it was not tried: symlint check --run does")
        else:
            try:
                found = context.trial(declared)
            except UsageProblem as problem:
                yield _said(declared, Level.ERROR, str(problem))
            else:
                yield from _judged(declared, found)


def _judged(declared: Equivariance, found: tuple[Tried, ...]) -> Iterator[Finding]:
    if not found:
        yield _said(declared, Level.WARNING, "it could not be tried: no axis of this input has several places to move")
    for tried in (each for each in found if each.outcome != "held"):
        where = f"output {tried.output}" if tried.output else "it"
        axis = f", axis {tried.axis}" if tried.axis is not None and declared.axis is None else ""
        facts: dict[str, object] = {
            "output": tried.output,
            "axis": tried.axis,
            "error": tried.error,
            "noise": _short(tried.noise),
        }
        if tried.outcome == "not tried":
            yield _said(declared, Level.WARNING, f"{where} could not be tried{axis}: {tried.reason}", facts)
            continue
        action = declared.action or "invariant or equivariant"
        size = "has another shape" if tried.error is None else f"is off by {_part(tried.error)} of its largest value"
        message = f"{where} is not {action}{axis}: it {size}, which rounding does not explain"
        yield _said(declared, Level.ERROR, message, {**facts, "error": _short(tried.error)})


def _said(declared: Equivariance, level: Level, message: str, facts: dict[str, object] | None = None) -> Finding:
    text = f"{declared}: {message}"
    named = {"equivariance": str(declared), **(facts or {})}
    return Finding(check.code, check.name, level, check.evidence, text, facts=named)


def _part(error: float) -> str:
    return f"{error:.1%}" if error >= 0.001 else f"{error:.1e}"


def _short(value: float | None) -> float | None:
    """Two digits: the rest is noise."""
    return None if value is None else float(f"{value:.1e}")
