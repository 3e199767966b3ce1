"""What every installed rule has to have; a new rule is tested here without a line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from symlint.rule import rules

SECTIONS = ["What it checks", "Why it matters", "What else can cause it", "Evidence", "Repair", "References"]
RULES = rules()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_page(rule):
    lines = rule.page.strip().splitlines()
    assert re.fullmatch(r"[A-Z].*\.", lines[0])
    assert len(lines[0]) <= 120
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == SECTIONS
    texts = re.split(r"^## .*$", rule.page, flags=re.MULTILINE)[1:]
    assert all(text.strip() for text in texts)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_name(rule):
    assert re.fullmatch(r"SYM\d{3}", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.name)


def test_codes_and_names_are_unique():
    assert len({rule.code for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES)


def test_one_rule_per_file():
    names = {rule.name.replace("-", "_") for rule in RULES}
    files = {file.stem for file in (Path(__file__).parents[1] / "rules").glob("*.py")}
    assert names <= files


def test_failures_have_their_rules():
    assert {"SYM001", "SYM002", "SYM003"} == {rule.code for rule in RULES if rule.on_failure}
