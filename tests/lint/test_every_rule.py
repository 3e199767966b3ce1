"""What every installed rule has to have; a new rule is tested here without a line.

Its fixtures are two models in ONNX's textual form, ``fixtures/rules/CODE.flagged.txt`` and ``CODE.clean.txt``, with
comments: ``# expect: {...}`` for every finding, with fields or facts of it, and ``# settings: {...}`` where it has any.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import onnx.parser
import pytest
from corpora import ROOT
from examples import example, settings, shown

from symlint.audit.engine import audit
from symlint.lint.finding import Finding, Level, remedy
from symlint.lint.rule import Rule, rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport
from symlint.testing import check_page

RULES = rules()
READ = [rule for rule in RULES if not rule.on_failure]
"""The rules of files that could be read; test_load.py has the others'."""
FIXED = {"SYM014", "SYM016", "SYM801"}
"""Rules that speak of stored numbers as training began with them or of copies, or of units that the user named here."""
FIXTURES = ROOT / "fixtures" / "rules"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_page(rule):
    check_page(rule)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_page_shows_what_the_rule_says_today(rule, tmp_path):
    """Of its flagged fixture; `python tests/lint/examples.py` writes it."""
    assert shown(rule) == example(rule, tmp_path)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_name(rule):
    assert re.fullmatch(r"SYM\d{3}", rule.code)


def test_codes_and_names_are_unique():
    assert len({rule.code for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES)


def test_one_rule_per_file():
    names = {rule.name.replace("-", "_") for rule in RULES}
    files = {file.stem for file in (ROOT / "rules").glob("*.py")}
    assert names <= files


def test_failures_have_their_rules():
    assert {"SYM001", "SYM002", "SYM003"} == {rule.code for rule in RULES if rule.on_failure}


def said(rule: Rule, kind: str, folder: Path) -> tuple[Path, Settings, list[Finding], str]:
    """The fixture of a rule as a model, and what the rule says of it."""
    text = (FIXTURES / f"{rule.code}.{kind}.txt").read_text()
    file = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), file)
    asked = settings(text, rule)
    return file, asked, findings(file, asked), text


def findings(file: Path, asked: Settings) -> list[Finding]:
    report = audit(str(file), asked.chosen(RULES), asked)
    assert not report.incomplete, report.incomplete
    return list(report.findings)


def field(finding: Finding, name: str) -> object:
    """An attribute of a finding as JSON would have it, or else one of its facts."""
    value = getattr(finding, name) if hasattr(finding, name) else finding.facts[name]
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Level) else value


@pytest.mark.parametrize("rule", READ, ids=lambda rule: rule.code)
def test_flagged(rule, tmp_path):
    """The fixture's rule says what the fixture expects; ``expect`` has a line per finding."""
    _, _, found, text = said(rule, "flagged", tmp_path)
    expected = [json.loads(line) for line in re.findall(r"^# expect: (.*)$", text, re.MULTILINE)]
    assert expected, f"{rule.code}.flagged.txt has no line '# expect: {{...}}' for what is found: {found}"
    assert [{name: field(f, name) for name in e} for f, e in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize("rule", READ, ids=lambda rule: rule.code)
def test_clean(rule, tmp_path):
    assert said(rule, "clean", tmp_path)[2] == []


@pytest.mark.parametrize(
    "rule", [r for r in READ if r.evidence != "gauge" and r.code not in FIXED], ids=lambda rule: rule.code
)
@pytest.mark.parametrize("kind", ["flagged", "clean"])
def test_gauge_is_not_seen(rule, kind, tmp_path):
    """Random gauges of all kinds change nothing but the labels of units."""
    file, asked, found, _ = said(rule, kind, tmp_path)
    _, structure = examine(load(str(file)))
    for seed in range(3):
        out = tmp_path / f"{seed}.onnx"
        write(file, teleport(structure, select(structure, None, None), seed), out)
        assert [invariant(f) for f in findings(out, asked)] == [invariant(f) for f in found]


@pytest.mark.parametrize("rule", [rule for rule in READ if rule.repair], ids=lambda rule: rule.code)
def test_findings_carry_their_repairs(rule, tmp_path):
    """What a finding carries is what the word of its rule and its facts tell, as of packages that carry none."""
    _, _, found, _ = said(rule, "flagged", tmp_path)
    mine = [finding for finding in found if finding.rule == rule.code]
    assert any(finding.repair for finding in mine)
    for finding in mine:
        assert finding.repair == remedy(rule.repair, finding.space, finding.facts)
        assert remedy("", finding.space, finding.facts) is None


def invariant(finding: Finding) -> tuple[object, ...]:
    return finding.rule, finding.level, finding.space, len(finding.units), finding.tensors, finding.saves
