"""Weights that the model keeps in another file cannot be read.

## What it checks

Every tensor with external data: its file exists inside the model's folder (no absolute path, no ``..``, no link that
leads out), and the range that the tensor names lies within it.

## Example

```text
error[missing-external-data] SYM003: external data file 'model.onnx.data' is
  missing; put it beside the model
```

## Why it matters

The model was not audited, and no runtime can load it either. Data outside the model's folder are refused even where
they exist: a model from elsewhere must not choose which files of this machine are read. The run ends with exit code 4,
and the rule cannot be switched off.

## What else can cause it

The model was copied without its ``.data`` file, was renamed after its export, or the data file is a Git LFS pointer or
was cut short.

## Evidence

exact: the path and the sizes that were found and expected.

## Repair

Put the data file beside the model under the name that the message gives, or write the model anew in one piece
(``onnx.save(onnx.load(path), out)``, below 2 GB).

## References

ONNX external data, https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule


@rule("SYM003", "missing-external-data", Level.ERROR, "exact", on_failure=True)
def check(context: Context) -> Iterator[Finding]:  # noqa: ARG001 - the loader speaks for this rule
    """Nothing: the loader finds this."""
    yield from ()
