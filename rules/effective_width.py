"""Spaces in which a small part of the units carries nearly everything.

## What it checks

For every space of units that may be permuted: the exponential of the entropy of the units' shares of all paths (see
SYM103). It is the number of equal units that would be spread as evenly, and is reported where it is below the option
``share`` of the width. Spaces of fewer than 16 units are left alone.

## Example

```text
note[effective-width] SYM812: layer w1: 16 units, effective 1.0
  --> w1 (MatMul -> a1)
    = tensors: w1, w2
    = evidence: heuristic; tolerance 0.1
```

## Why it matters

The layer is wider than what it does. Pruning it structurally costs little, and a width that shrinks from checkpoint to
checkpoint is a sign that the network loses plasticity.

## What else can cause it

A few units of large scale on purpose (outlier channels, attention sinks), inputs of very different scale, and pruning.
The finding does not tell these apart.

## Evidence

heuristic: path sums stand for activations on data. The number does not depend on the gauge.

## Repair

None is applied. Compare runs: less weight decay, a smaller learning rate, or a narrower layer; or train with
``symlint.torch.remove_symmetries``. ``symlint.torch.Watch`` records the effective width while a network is trained.

## References

Roy and Vetterli, The Effective Rank (EUSIPCO 2007); Neyshabur, Salakhutdinov and Srebro, Path-SGD (NeurIPS 2015); Sokar
et al., The Dormant Neuron Phenomenon in Deep Reinforcement Learning (ICML 2023).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.estimates import effective_width
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule

FEWEST = 16
"""Units of a space whose width means something."""


@rule("SYM812", "effective-width", Level.NOTE, "heuristic", options={"share": 0.1})
def check(context: Context) -> Iterator[Finding]:
    """One finding per space."""
    limit = context.option(check, "share")
    for space in context.spaces:
        units = space.size * space.copies
        width = effective_width(context, space)
        if units < FEWEST or not width or width >= limit * units:
            continue
        yield Finding(
            check.code,
            check.name,
            check.level,
            check.evidence,
            f"layer {space.name}: {units:,} units, effective {width:.1f}",
            space.id,
            (),
            context.tensors(space),
            {"effective_width": float(f"{width:.2g}"), "units": units, "tolerance": limit},
        )
