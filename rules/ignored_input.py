"""Features or channels of an input that no output depends on.

## What it checks

Along the axes of every graph input that weights meet (features, channels, bands, places of a flattened image): which
entries reach no output, because all that reads them is zero or is itself read by nothing. What a normalisation takes
away again does not count as reading. An input that reaches no output at all is told as a whole. Inputs of which only
the shape is used are left alone, and so are those that are looked up, compared or counted in ways that hide which of
their entries matter.

The units of the finding are the entries, from 0; where several axes are concerned at once they are places in these
axes, row by row. The facts name the axes.

## Example

```text
warning[ignored-input] SYM011: entries 1 and 3 of 5 of input x reach no
  output
  --> w1 (MatMul -> a)
    = tensors: w1
    = evidence: exact; tolerance 1e-30
    = units: 1, 3
```

## Why it matters

Whoever calls the model measures, sends and stores values that change nothing. A feature that was meant to matter and
does not is often a fault of the data: a column that was constant in training, a join that failed, a wrong order.

## What else can cause it

Weight decay or a sparse penalty that removed a useless feature, pruning of inputs, borders of images that are always
black, padding of a feature vector to a round length. What the graph itself leaves out (a slice, a window that is zero
at its ends, an input that the exporter left behind) is only a note, and so is an input that reaches no output because a
whole weight is zero, as adapters and conditioning start.

## Evidence

exact: follows from zeros in the weights and from the graph, for every input.

## Repair

None is made, since the inputs of a model are a contract. Check the feature in the training data; to drop it, delete
its column from the tensors of the finding.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rescaling symmetry; Wen et al., Learning
Structured Sparsity in Deep Neural Networks (NeurIPS 2016).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.ends import entries, reading
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule

LOST = {"left": "no node reads input {}", "lost": "what is computed from input {} reaches no output"}


@rule("SYM011", "ignored-input", Level.WARNING, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One finding per input of which something is ignored; a second where the graph leaves out more."""
    for name, use in reading(context.symmetry.model).items():
        if use in LOST:
            yield _finding(Level.NOTE, LOST[use].format(name), name)
        elif use == "used" and name in context.structure.program.inputs and name in context.structure.program.ends:
            yield from _entries(context, name)


def _entries(context: Context, name: str) -> Iterator[Finding]:
    ends = context.ends
    unread = ends.unread(name)
    outputs = [output for output in context.structure.program.outputs if output in context.moving]
    silent = all(ends.still(output).all() for output in outputs)  # SYM012 says so
    if not unread.any() or silent or name in ends.hidden:
        return
    built = ends.generic.unread(name)
    for mask, level, reason in ((unread & ~built, Level.WARNING, ""), (unread & built, Level.NOTE, " by construction")):
        if mask.all():
            begun = not reason and not ends.begun.unread(name).all()
            why = ": the weights behind it are still at zero" if begun else reason
            yield _finding(Level.NOTE if begun else level, f"no output depends on input {name}{why}", name)
        elif (found := entries(mask)) is not None:
            verb = "reaches" if len(found.places) == 1 else "reach"
            message = f"{found.of(f'input {name}')} {verb} no output{reason}"
            facts = {**found.facts, "tolerance": 1e-30}
            yield _finding(level, message, name, found.places, ends.weights(name, found.axes), facts)


def _finding(
    level: Level,
    message: str,
    name: str,
    units: tuple[int, ...] = (),
    tensors: tuple[str, ...] = (),
    facts: dict[str, object] | None = None,
) -> Finding:
    facts = {"input": name, **(facts or {})}
    return Finding(check.code, check.name, level, check.evidence, message, None, units, tensors, facts)
