"""Weights that float16 cannot hold, although the same network has weights that it can.

## What it checks

Only with ``--target float16``. Numbers beyond 65,504 become infinite, those below 6.1e-5 lose digits, and those below
6e-8 become zero. The rule converts every weight, counts what becomes infinite (biases and running statistics
included), and measures unit by unit how far a row or column of weights is off, relative to its norm: a unit that loses
more than ``relative-error`` is told, with the weights in it that lose as much. A small weight beside large ones of the
same unit, a unit that is negligible beside the others, and a small bias are no finding.

Where units may be rescaled without changing the function, the same is measured in the minimum-norm gauge, in which
what writes a unit is as large as what reads it. What that cures is reported chain by chain of spaces that share
weights, for the space whose scales are the furthest off; what no rescaling cures is one finding without a space.

A finding is an error where some weight becomes infinite. Where only digits are lost, it is a warning if balanced scales
help, else a note.

## Example

```text
error[half-precision-range] SYM702: float16 makes 8 weights infinite and
  takes most digits from 4 weights around w1; balanced scales keep them all
  --> w1 (MatMul -> a)
    = tensors: b1, w1, w2
    = evidence: gauge; tolerance 0.05
    = units: 0, 1, 5
```

## Why it matters

One infinite weight makes infinities or NaN of the outputs, on devices that the developer may not have. Rows that become
zero are silent: the model loses features. Converters that clip such numbers change the function instead.

## What else can cause it

Very uneven learning rates, merged normalisations with tiny variances, units of measurement in the first or last layer,
and layer scales that were initialised at 1e-6. Activations may overflow as well; this rule runs nothing and does
not see them, ``fix`` does.

## Evidence

gauge: says where the weights are on their orbit, which teleporting them changes. The numbers are those of converting
the stored weights.

## Repair

``symlint fix --target float16`` moves the weights of the spaces to the minimum-norm gauge, still in their stored type,
and proves that the outputs stay. Convert afterwards.

It also runs the network, on random inputs and on those that ``--input`` gives. Where a value is beyond 65,504, such as
the square inside a normalisation that is written out, whole tensors go to smaller scales, by powers of two and with the
epsilon of the normalisation, so that float32 computes the same bits. That is kept only if the outputs, with every
result rounded to float16, come nearer to those of float32.

## References

Micikevicius et al., Mixed Precision Training (ICLR 2018), the range of float16; Nagel et al., Data-Free Quantization
Through Weight Equalization and Bias Correction (ICCV 2019), rescaling of units.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from symlint.evidence.context import Context
from symlint.lint.finding import Balance, Finding, Level
from symlint.lint.rule import rule

if TYPE_CHECKING:
    from symlint.symmetry.gauge.rounding import Halved

OPTIONS = {"relative-error": 0.05}


@rule("SYM702", "half-precision-range", Level.WARNING, "gauge", repair="balance", options=OPTIONS, targets=("float16",))
def check(context: Context) -> Iterator[Finding]:
    """One finding per chain of spaces that a balance would help, and one for all that none helps."""
    from symlint.symmetry.gauge.rounding import halved  # balancing is loaded for a target alone

    spaces = {space.id: space for space in context.symmetry.spaces}
    most = context.option(check, "relative-error")
    for one in halved(context.structure, most):
        before, after = one.before, one.after
        small = Level.WARNING if one.space else Level.NOTE
        yield Finding(
            check.code,
            check.name,
            Level.ERROR if before.overflow else small,
            check.evidence,
            _say(one, spaces[one.space].name if one.space else ""),
            one.space or None,
            one.units,
            context.tensors(spaces[one.space]) if one.space else one.tensors,
            {
                "overflow": before.overflow,
                "lost": before.lost,
                "error": float(f"{before.error:.2g}"),
                "after_overflow": after.overflow,
                "after_lost": after.lost,
                "after_error": float(f"{after.error:.2g}"),
                "tolerance": most,
            },
            repair=Balance() if one.space else None,
        )


def _say(one: Halved, name: str) -> str:
    losses = [f"makes {_count(one.before.overflow)} infinite"] if one.before.overflow else []
    losses += [f"takes most digits from {_count(one.before.lost)}"] if one.before.lost else []
    where = f" around {name}" if name else f" in {one.tensors[0]}" if len(one.tensors) == 1 else ""
    if not name:
        end = "no rescaling helps"
    elif not one.after:
        end = "balanced scales keep them all"
    else:
        end = f"balanced scales leave {one.after.overflow + one.after.lost:,} of them"
    return f"float16 {' and '.join(losses)}{where}; {end}"


def _count(number: int) -> str:
    return f"{number:,} weight{'' if number == 1 else 's'}"
