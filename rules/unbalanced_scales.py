"""Units whose scales are too uneven for int8 with one step size per tensor, although others would do as well.

## What it checks

Only with ``--target int8``. Where units may be rescaled without changing the function (behind ReLU, between linear
maps, between a gain and its reader), many weights make the same network. For every chain of spaces that share weights,
each weight of a convolution, a matrix product or a lookup is rounded to 8 bits in one symmetric step size per tensor,
as it is now and in the balanced gauge that ``symlint fix --target int8`` finds. Batch normalisations are multiplied
into the weights before them, as quantisers do. Errors are seen from the minimum-norm gauge, in which a unit counts by
what it does and not by its present scale; what nothing writes or reads does not count.

The facts give the signal-to-noise ratio of the rounded weights in decibels, before and after, where the relative errors
of all weights of the chain are added up; the weight that loses most; and ``range``, the ratio of the largest to the
smallest scale that balances the units of the space. 6 dB are one bit. Nothing is said below a gain of ``gain-db``, or
where ``enough-db`` are reached as it is; from ``warn-db`` on it is a warning.

## Example

```text
warning[unbalanced-scales] SYM701: rounded to int8, the 2 weights around w1
  keep 1.3 dB of signal to noise; in balanced scales 45.4 dB
  --> w1 (MatMul -> a)
    = tensors: b1, w1, w2
    = evidence: gauge
```

## Why it matters

One unit of large weights sets the step size of its tensor, and small units, which may do as much for the outputs, are
left with few digits or round to zero. Such models lose accuracy in post-training quantisation, for which calibration
data are then blamed. Neither training nor float32 notices: the function is the same on the whole orbit.

## What else can cause it

Units that truly differ are balanced, too, as far as the function allows. What quantisers do for each channel
apart is no concern: per-channel weights need no such balance along the channels that they write. The activations, which
are rounded as well, move against the weights; without data nothing is known of them.

## Evidence

gauge: says where the weights are on their orbit, which teleporting them changes. The numbers are those of rounding
the stored weights.

## Repair

``symlint fix --target int8`` moves the weights to the balanced gauge and proves that the outputs stay, unless
onnxruntime's quantiser rounds the network less as it is; other gauges are tried as well. ``--balance`` balances all
spaces, whatever they gain.

## References

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (ICCV 2019); Meller et al., Same,
Same But Different: Recovering Neural Network Quantization Error Through Weight Factorization (ICML 2019).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from symlint.evidence.context import Context
from symlint.lint.finding import Balance, Finding, Level
from symlint.lint.rule import rule

if TYPE_CHECKING:
    from symlint.symmetry.gauge.rounding import Rounded

OPTIONS = {"gain-db": 3.0, "warn-db": 6.0, "enough-db": 30.0}


@rule("SYM701", "unbalanced-scales", Level.WARNING, "gauge", repair="balance", options=OPTIONS, targets=("int8",))
def check(context: Context) -> Iterator[Finding]:
    """One finding per chain of spaces that a balance would help, for the most uneven of them."""
    from symlint.symmetry.gauge.rounding import rounded  # balancing is loaded for a target alone

    spaces = {space.id: space for space in context.symmetry.spaces}
    for one in rounded(context.structure):
        gain = one.after - one.before
        if gain < context.option(check, "gain-db") or one.before >= context.option(check, "enough-db"):
            continue
        space = spaces[one.space]
        yield Finding(
            check.code,
            check.name,
            Level.WARNING if gain >= context.option(check, "warn-db") else Level.NOTE,
            check.evidence,
            f"rounded to int8, {_those(one)} around {space.name} keep{'s' if one.weights == 1 else ''} "
            f"{one.before:.1f} dB of signal to noise; in balanced scales {one.after:.1f} dB",
            space.id,
            (),
            context.tensors(space),
            {
                "before_db": round(one.before, 2),
                "after_db": round(one.after, 2),
                "range": float(f"{one.spread:.3g}"),
                "weights": one.weights,
                "spaces": one.spaces,
                "worst": one.worst,
            },
            repair=Balance(),
        )


def _those(one: Rounded) -> str:
    return "the weight" if one.weights == 1 else f"the {one.weights} weights"
