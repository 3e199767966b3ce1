"""Weights that lie on the surface of a mirror that you declared.

## What it checks

For every mirror in the configuration: whether the network has it, and whether the weights have collapsed onto it. A
network has the mirror symmetry of a surface O if the weights (I - 2 O O^T) theta compute the same function, whatever
theta is; weights with O^T theta = 0 are fixed by it. A mirror is a table:

```toml
[[tool.symlint.mirrors]]      # [[mirrors]] in symlint.toml
name = "twins"
tensors = ["conv1.weight", "conv1.bias", "conv2.weight"]
surface = "swap 3 7"
```

``tensors`` names every weight that the reflection moves. ``surface`` is one of
- ``swap I J``: two units change places (or several pairs, ``swap 0 1 2 3``); O^T theta is their difference;
- ``sign I``: a unit changes its sign (or several, ``sign 2 5``); O^T theta is all that writes and reads it;
- a file ``directions.npy`` beside the configuration, of shape (units, directions): directions of the units, such as an
  axis of a rotated space; or of shape (weights, directions), over the weights of all tensors one after another. The
  columns need not be orthonormal, only what they span counts.

Units are those along axis 0 of the first tensor, numbered as in findings; ``axes = [1, 1, 0]`` says other axes,
one for each tensor. Where an axis holds several spaces, ``swap 0 1 of 12`` chooses that with 12 units, such as heads.

That the network has the mirror is shown from its structure, without running it: the reflection has to be an element of
the symmetries that ``symlint inspect`` lists. Weights that have collapsed onto it are a warning. So is a mirror that is
not shown to be a symmetry: the finding says what is missing. Where it is one and the weights are off its surface, a
note says how far; a model with none of the tensors gets a note as well. A declaration that means nothing in the model,
such as a tensor or a unit that is not there, is an error.

## Example

```text
warning[mirror-constraint] SYM801: mirror 'twins': the weights of w1 have
  collapsed onto this symmetry of the network
  --> w1 (MatMul -> a)
    = tensors: b1, w1, w2
    = evidence: exact; tolerance 0
    = units: 1, 3
```

## Why it matters

Once weights lie on such a surface the gradient has no component that leads off it, so that training does not leave it
by itself: the network has less capacity than it has parameters. A mirror says which states you want to hear of, by
name, in every later check of the model.

## What else can cause it

A constraint that was wanted and built in, a constant or copied initialisation, pruning. The finding does not tell these
apart. A mirror that is not shown may still be a symmetry, if an operator that symlint does not know is in the way.
One that turns kernels around is none of the weights alone, since inputs are not turned with them; weights on its
surface make the network go along with flips, which ``symlint equivariance`` proves and SYM802 watches.

## Evidence

exact: the symmetry holds for all weights, and O^T theta is zero to the rounding of the stored numbers of every tensor.
The facts give its length relative to theta, and the tolerance. A surface belongs to one choice of coordinates: the same
network with rescaled or renumbered units lies on another one.

## Repair

None of its own. The units of a ``swap`` that holds are found, and merged, by SYM201; those of a ``sign`` that holds are
dead, see SYM101.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), the O-mirror symmetry; Chen et al., Stochastic
Collapse: How Gradient Noise Attracts SGD Dynamics Towards Simpler Subnetworks (NeurIPS 2023), invariant sets.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.mirror import Verdict, judge
from symlint.evidence.options import Mirror
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule
from symlint.model.errors import UsageProblem


@rule("SYM801", "mirror-constraint", Level.WARNING, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One finding per declared mirror."""
    for mirror in context.asked.mirrors:
        if not set(mirror.tensors) & set(context.structure.program.weights.values()):
            yield _said(mirror, Level.NOTE, "this model has none of its tensors", facts={"absent": True})
            continue
        try:
            verdict = judge(context.structure, mirror)
        except UsageProblem as problem:
            yield _said(mirror, Level.ERROR, str(problem))
        else:
            yield _judged(context, mirror, verdict)


def _judged(context: Context, mirror: Mirror, verdict: Verdict) -> Finding:
    if verdict.reason:
        message = f"it is not shown to be a symmetry of this network: {verdict.reason}"
        return _said(mirror, Level.WARNING, message)
    owner = next(a.space for a in context.structure.actions.values() if a.leaf == verdict.leaf)
    space = next(s for s in context.symmetry.spaces if s.id == owner)
    facts: dict[str, object] = {"distance": _short(verdict.distance), "tolerance": _short(verdict.tolerance)}
    level, message = (
        (Level.WARNING, f"the weights of {space.name} have collapsed onto this symmetry of the network")
        if verdict.holds
        else (Level.NOTE, f"it is a symmetry of this network; the weights are off it by {_off(verdict.distance)}")
    )
    return _said(mirror, level, message, space.id, verdict.units, context.tensors(space), facts)


def _said(
    mirror: Mirror,
    level: Level,
    message: str,
    space: str | None = None,
    units: tuple[int, ...] = (),
    tensors: tuple[str, ...] = (),
    facts: dict[str, object] | None = None,
) -> Finding:
    named = {"mirror": mirror.name, **(facts or {})}
    text = f"mirror {mirror.name!r}: {message}"
    return Finding(check.code, check.name, level, check.evidence, text, space, units, tensors, named)


def _off(distance: float) -> str:
    return f"{distance:.1%}" if distance >= 0.001 else f"{distance:.1e} of their norm"


def _short(value: float) -> float:
    """Two digits: the rest is noise."""
    return float(f"{value:.1e}")
