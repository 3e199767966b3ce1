"""What each rule says of its flagged fixture, as its page shows it.

    python tests/lint/examples.py

writes the section into all pages; a test compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import helper, numpy_helper

from symlint.audit.engine import audit
from symlint.cli.report import Style
from symlint.cli.report.full import block, typeset
from symlint.evidence.options import Equivariance, InputRange, Mirror
from symlint.lint.rule import Rule, rules
from symlint.lint.settings import Settings

FIXTURES = Path(__file__).parents[2] / "fixtures" / "rules"
WIDTH = 76
SECTION = re.compile(r"## Example\n\n```text\n(.*?)```\n\n", re.DOTALL)
NEXT = "## Why it matters\n"


def settings(text: str, rule: Rule) -> Settings:
    """The settings that a fixture names, with its rule alone."""
    found = re.search(r"^# settings: (.*)$", text, re.MULTILINE)
    values = json.loads(found[1]) if found else {}
    for name, kind in (("mirrors", Mirror), ("equivariances", Equivariance), ("inputs", InputRange)):
        tables = [{k: tuple(v) if isinstance(v, list) else v for k, v in m.items()} for m in values.pop(name, ())]
        values[name] = tuple(kind(**table) for table in tables)
    return Settings(select=(rule.code,), **values)


def example(rule: Rule, folder: Path) -> str:
    """The gravest finding at a layer of the flagged fixture, or of a file that the rule is for, as `check` tells it."""
    file, asked = folder / "model.onnx", Settings()
    if rule.on_failure:
        _broken(rule, file)
    else:
        text = (FIXTURES / f"{rule.code}.flagged.txt").read_text()
        onnx.save(onnx.parser.parse_model(text), file)
        asked = settings(text, rule)
    report = audit(str(file), asked.chosen(rules()), asked)
    mine = [finding for finding in report.findings if finding.rule == rule.code]
    first = max(mine, key=lambda finding: (bool(finding.layer), finding.level))
    lines = typeset(block(first, report), Style(WIDTH)).splitlines()
    return "".join(f"{line}\n" for line in lines if not line.endswith(f"help: symlint rule {rule.code}"))


def _broken(rule: Rule, file: Path) -> None:
    """A file that cannot be read for the reason of a rule."""
    if rule.code == "SYM001":
        file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    elif rule.code == "SYM002":
        file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345678\n")
    else:
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "fc.weight"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 64])],
            [numpy_helper.from_array(np.ones((64, 64), np.float32), "fc.weight")],
        )
        onnx.save(helper.make_model(graph), file, save_as_external_data=True, location="model.onnx.data")
        file.with_name("model.onnx.data").unlink()


def shown(rule: Rule) -> str:
    """The example that a page has; empty where it has none."""
    found = SECTION.search(f"{rule.page}\n\n")
    return found[1] if found else ""


def pages() -> Iterator[tuple[Rule, Path]]:
    """Every rule with its file."""
    for rule in rules():
        code = getattr(rule.check, "__code__")  # noqa: B009 - of any callable, this one is a function
        yield rule, Path(code.co_filename)


def main() -> None:
    """Write the examples into the pages."""
    for rule, file in pages():
        with TemporaryDirectory() as folder:
            section = f"## Example\n\n```text\n{example(rule, Path(folder))}```\n\n"
        text = SECTION.sub("", file.read_text())
        assert text.count(NEXT) == 1, file
        file.write_text(text.replace(NEXT, section + NEXT))


if __name__ == "__main__":
    main()
