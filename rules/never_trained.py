"""Weights that are still as their initialisation left them: at zero, at one number, or at the identity.

## What it checks

Every stored weight of floating-point numbers, of more than one element, in the place where it is used: biases and
gains that are zero, one or one other number throughout; matrices, kernels and lookup tables that are zero; square
matrices and kernels that are a multiple of the identity. There is one note for each kind of state; the facts name the
tensors, and where an exporter merged equal ones each of them. Masks, tables, initial states, scales of quantisers,
running statistics and the constants that an operator demands where a layer has no weights are left out.

## Example

```text
note[never-trained] SYM014: 2 tensors of biases are zero throughout, as an
  initialisation leaves them: b1, b2
  --> b1 (Add -> c)
    = tensors: b1
    = evidence: exact
```

## Why it matters

A weight that training never moved takes no part in what was learned: a branch that is still switched off (the last gain
of a residual block, a zero convolution, an adapter), a head that was forgotten, layers that were frozen by mistake, or
a checkpoint from before the training. Gains at one and biases at zero do nothing, and can be dropped.

## What else can cause it

Parameters that were frozen on purpose, layers that only carry a bias because the format wants one, weight decay that
took a gate to zero, and a repair that set what is free to zero. Initial states at random numbers cannot be told from
trained ones: the absence of this note proves nothing.

## Evidence

exact: the stored numbers are all equal. It is they that are judged and not the function: moving the weights along a
symmetry hides the state, as a step of training does.

## Repair

None is needed. If the state is not meant, look at which parameters the optimiser was given.

## References

Goyal et al., Accurate, Large Minibatch SGD (2017), zero gains at the end of residual blocks; Touvron et al., Going
deeper with Image Transformers (ICCV 2021), LayerScale; Hu et al., LoRA (ICLR 2022); Peebles and Xie, Scalable Diffusion
Models with Transformers (ICCV 2023), adaLN-zero; Zhang, Rao and Agrawala, Adding Conditional Control to Text-to-Image
Diffusion Models (ICCV 2023), zero convolutions; Bachlechner et al., ReZero is All You Need (UAI 2021).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.initial import Untrained, untrained
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule

KINDS = {
    ("zero", "weight"): ("tensor of weights is zero throughout", "tensors of weights are zero throughout"),
    ("zero", "gain"): ("tensor of gains is zero throughout", "tensors of gains are zero throughout"),
    ("zero", "bias"): ("tensor of biases is zero throughout", "tensors of biases are zero throughout"),
    ("one", "gain"): ("tensor of gains is one throughout", "tensors of gains are one throughout"),
    ("one", "bias"): ("tensor of biases is one number", "tensors of biases are one number each"),
    ("constant", "gain"): ("tensor of gains is one number", "tensors of gains are one number each"),
    ("constant", "bias"): ("tensor of biases is one number", "tensors of biases are one number each"),
    ("identity", "weight"): (
        "tensor of weights is a multiple of the identity",
        "tensors of weights are multiples of the identity",
    ),
}
SHOWN = 3


@rule("SYM014", "never-trained", Level.NOTE, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One note for each kind of state."""
    kinds: dict[tuple[str, str], list[Untrained]] = {}
    for weight in untrained(context.structure):
        kinds.setdefault(KINDS[weight.state, weight.role], []).append(weight)
    for (one, many), weights in kinds.items():
        names = [weight.name for weight in weights]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        what = f"1 {one}" if len(names) == 1 else f"{len(names)} {many}"
        them = "it" if len(names) == 1 else "them"
        facts = {
            "names": names,
            "state": weights[0].state,
            "role": weights[0].role,
            "values": sorted({float(f"{weight.value:.6g}") for weight in weights}),
            "parameters": sum(weight.size for weight in weights),
        }
        yield Finding(
            check.code,
            check.name,
            Level.NOTE,
            check.evidence,
            f"{what}, as an initialisation leaves {them}: {', '.join(map(context.named.spoken, names[:SHOWN]))}{more}",
            None,
            (),
            tuple(sorted({weight.stored for weight in weights})),
            facts,
        )
