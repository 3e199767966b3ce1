"""The file is not a model that can be audited.

## What it checks

That the file can be opened, is a whole ONNX model with a graph, and that the graph is well formed: every input of a
node is defined, no node depends on itself, no name is defined twice, and every stored tensor has the size that its
bytes have. A model whose audit ran out of memory or into an error of symlint itself is reported here as well.

## Example

```text
error[unreadable-model] SYM001: could not be parsed as ONNX: 72 bytes of
  what looks like an HDF5 file (Keras?): export the model to ONNX first
```

## Why it matters

What was not audited is not clean. The run ends with exit code 4, whatever the other models show, and the rule cannot
be switched off.

## What else can cause it

A download that was cut short, a file of another format with the ending ``.onnx``, a folder, a file without read
permission, a converter that writes names twice. The message says what was read and what was expected.

## Evidence

exact: the message names the first thing that is wrong.

## Repair

Fetch or export the file again. ``onnx.checker.check_model(path)`` gives a second opinion on a graph that is not well
formed.

## References

ONNX intermediate representation specification, https://onnx.ai/onnx/repo-docs/IR.html
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule


@rule("SYM001", "unreadable-model", Level.ERROR, "exact", on_failure=True)
def check(context: Context) -> Iterator[Finding]:  # noqa: ARG001 - the loader speaks for this rule
    """Nothing: the loader finds this."""
    yield from ()
