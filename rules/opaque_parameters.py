"""Parameters lie behind an operator that symlint does not understand, so nothing was said about them.

## What it checks

Which parameters no operator rule reaches, grouped by the operator that stopped the inference; and which parts of the
model could not be made concrete: a dimension that stayed unknown, an operator set of an unknown domain or of a later
version than the installed onnx knows.

## Example

```text
note[opaque-parameters] SYM004: 5 of 47 parameters were not audited: no rule
  for operator example.Warp (at 'y')
  --> g (example.Warp 'y')
    = tensors: g
    = evidence: exact
```

## Why it matters

A report without findings says nothing of these parameters. The share is given for the whole model; when it is
everything, nothing was audited, and the run ends with exit code 4.

## What else can cause it

Nothing is wrong with such a model. Custom operators, operators of a runtime's own domain, indices that are computed at
run time and quantised kernels are legitimate; symlint only does not know their symmetries yet.

## Evidence

exact: the count of parameters, and the names of the nodes.

## Repair

None is needed. Exporting without a runtime's fused operators, or with concrete input shapes, often makes the same
network readable. A rule for one more operator is one to five lines: see the README.

## References

`symlint inspect MODEL` lists every opaque tensor with its node and reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule
from symlint.symmetry.spaces import Opaque

_SHOWN = 3


@rule("SYM004", "opaque-parameters", Level.NOTE, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One finding per operator, and one for everything that could not be made concrete."""
    symmetry = context.symmetry
    total = symmetry.coverage.total
    groups: dict[str, list[Opaque]] = defaultdict(list)
    for item in symmetry.opaque:
        groups[item.op].append(item)
    for op, items in sorted(groups.items(), key=lambda group: (-_parameters(group[1]), group[0])):
        yield _by_operator(op, items, total)
    if symmetry.model.notes:
        notes = symmetry.model.notes
        message = f"parts of the model are not concrete, or not as declared: {_some(notes, '; ')}"
        yield Finding(check.code, check.name, Level.NOTE, check.evidence, message, facts={"notes": list(notes)})


def _by_operator(op: str, items: list[Opaque], total: int) -> Finding:
    nodes = tuple(dict.fromkeys(item.node for item in items))
    reasons = tuple(dict.fromkeys(item.reason for item in items))
    parameters = _parameters(items)
    named = tuple(node for node in nodes if node)
    where = f" (at {_some(named, ', ')})" if named else ""
    message = f"{parameters:,} of {total:,} parameters were not audited: {_some(reasons, '; ')}{where}"
    return Finding(
        rule=check.code,
        name=check.name,
        level=Level.NOTE,
        evidence=check.evidence,
        message=message,
        tensors=tuple(sorted({item.tensor for item in items})),
        facts={"op": op, "nodes": list(nodes), "parameters": parameters, "share": parameters / total if total else 0.0},
    )


def _parameters(items: list[Opaque]) -> int:
    return sum(item.parameters for item in items)


def _some(words: tuple[str, ...], separator: str) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return separator.join(words[:_SHOWN]) + more
