"""The file is a Git LFS pointer, not the model that it stands for.

## What it checks

Whether the file begins with ``version https://git-lfs``: three lines of text that name a model of so many bytes.

## Example

```text
error[lfs-pointer] SYM002: is a Git LFS pointer, not the model itself; run
  `git lfs pull`
```

## Why it matters

The model was not audited, and a deployment that copies this file ships 130 bytes of text. The run ends with exit code
4, and the rule cannot be switched off.

## What else can cause it

Nothing but Git LFS writes such files. They stay pointers when a clone was made without Git LFS, when a checkout step
of a pipeline leaves large files out (its default in many), or when the quota of the server is used up.

## Evidence

exact: the first bytes of the file.

## Repair

``git lfs pull``, or ``lfs: true`` in the checkout step of the pipeline.

## References

Git LFS specification, https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule


@rule("SYM002", "lfs-pointer", Level.ERROR, "exact", on_failure=True)
def check(context: Context) -> Iterator[Finding]:  # noqa: ARG001 - the loader speaks for this rule
    """Nothing: the loader finds this."""
    yield from ()
