"""Inlining: calls of a model's own functions are written out, but for operators that somebody brings a rule for."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from symlint.model.operators import known

_SHARED = ("", "com.microsoft", "ai.onnx", "ai.onnx.ml")
"""Domains whose operators many know: a function of such a name in a file is what the file means by it."""


def inline(model: ir.Model) -> None:
    """Write out the functions of `model`, in place.

    What has a rule of its own stays a call: runtimes find out by its function what the rule already says.
    """
    InlinePass(criteria=_written_out)(model)


def _written_out(function: ir.Function) -> bool:
    return function.domain in _SHARED or known(f"{function.domain}.{function.name}").rule is None
