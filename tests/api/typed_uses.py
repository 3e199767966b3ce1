"""What type checkers see of the public functions; checked with the code, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

import symlint

if TYPE_CHECKING:
    from typing_extensions import assert_type

    report = symlint.check("model.onnx", select="SYM1", config=symlint.Settings())
    assert_type(report, symlint.Report)
    assert_type(report.findings, tuple[symlint.Finding, ...])
    assert_type(report.to_dicts(), list[dict[str, Any]])
    assert_type(symlint.inspect(b""), symlint.Symmetry)
    assert_type(symlint.profile("first.onnx", "last.onnx"), symlint.Profile)
    assert_type(symlint.fix(onnx.ModelProto()), tuple[onnx.ModelProto, symlint.Repairs])
    assert_type(symlint.equivariance("model.onnx", only="flip"), symlint.Equivariance)
    assert_type(symlint.diff("old.onnx", b""), symlint.Comparison)
