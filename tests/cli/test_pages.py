"""Pages: self-contained, readable without their script, and what a model calls its parts is text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner
from corpora import FIXTURES
from written import written

from symlint.audit.engine import audit
from symlint.audit.outcome import Report, Run
from symlint.audit.record import plain, value
from symlint.cli.main import cli
from symlint.cli.report import Style, profile_tables
from symlint.cli.report.page import blocks, html_report, largest, strip
from symlint.evidence.ranks import CLEAR, few
from symlint.lint.finding import Finding, Level, Spectrum
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.symmetry.spaces import Coverage, Space

VOID = {"meta", "link", "input", "br", "wbr", "img", "hr", "path", "rect"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EVIL = "<script>alert(1)</script>\"'\x1b[31m\u202e"


class Outline(HTMLParser):
    """The elements of a page; raises where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def audited(*paths):
    reports = tuple(audit(str(path), Settings().chosen(rules()), Settings()) for path in paths)
    return Run(reports, Settings().chosen(rules()))


def invented(layers: int, name: str) -> Run:
    """A report on a deep network in which every layer has a finding."""
    names = [f"{name}.{k}.weight" for k in range(layers)]
    findings = [
        Finding("SYM101", "dead-unit", Level.WARNING, "exact", f"3 of 64 units of {n} are dead", f"S{k}", (1, 5, 6),
                (f"{n}.a", f"{n}.b"), {"dead": 3, "tolerance": 1e-9}, 192, True, layer=n, node=n, op="Gemm")
        for k, n in enumerate(names)
    ]  # fmt: skip
    spaces = {f"S{k}": Space(f"S{k}", 64, 1, n, (), ()) for k, n in enumerate(names)}
    sizes = tuple((n, 4096) for n in names)
    total = 4096 * layers
    coverage = Coverage(total, total, 0, 0, reasons=((f"no rule for {name}", 12.0),))
    one = Report(f"{name}.onnx", coverage=coverage, findings=tuple(findings), spaces=spaces, layers=sizes)
    return Run((one,), rules())


def profiled(*paths):
    done = CliRunner().invoke(cli, ["profile", *map(str, paths), "-f", "html"])
    assert done.exit_code == 0
    return done.stdout


def pages():
    own = sorted(FIXTURES.glob("*.onnx"))
    yield "audit", html_report(audited(*own), Style())
    yield "deep", html_report(invented(1000, "net.layer"), Style())
    yield "profile", profiled(FIXTURES / "decayed_cnn.onnx")
    yield "course", profiled(FIXTURES / "healthy_cnn.onnx", FIXTURES / "decayed_cnn.onnx")


@pytest.fixture(scope="module")
def made():
    return dict(pages())


@pytest.mark.parametrize("name", ["audit", "deep", "profile", "course"])
def test_a_page_is_well_formed_and_asks_for_nothing(made, name):
    text = made[name]
    assert len(text.encode()) < 2e6
    elements = Outline(text).elements
    anchors = {attrs.get("id") for _, attrs in elements}
    for tag, attrs in elements:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "srcset", "action", "onclick", "onload"} & attrs.keys()
        assert attrs.get("href", "#")[0] == "#"
        assert attrs.get("href", "#")[1:] in {"", *anchors}
    assert not re.search(r"url\(|@import|https?:", text)
    assert [attrs for tag, attrs in elements if tag == "meta" and "default-src 'none'" in (attrs.get("content") or "")]


def words(page: str) -> str:
    """A page without what only says where its lines may be broken."""
    return re.sub(r'<wbr>|<span class="whole">(.*?)</span>', r"\1", page)


def test_a_page_says_what_the_audit_says(made):
    run, text = audited(*sorted(FIXTURES.glob("*.onnx"))), words(made["audit"])
    for one in run.reports:
        assert one.path in text
        for finding in one.findings:
            assert finding.message in text  # none of them is one of every network of its architecture
            assert not finding.fixable or f"{one.path} -o OUT --select {finding.rule}" in text
    assert "7,777 (65.7%)" not in text  # nobody has asked what a fix takes away
    asked = CliRunner().invoke(cli, ["check", str(FIXTURES / "decayed_cnn.onnx"), "-f", "html"]).stdout
    assert "7,777 (65.7%)" in asked


def test_a_file_is_written_beside_what_is_printed(tmp_path):
    done = CliRunner().invoke(cli, ["check", str(FIXTURES / "healthy_cnn.onnx"), "-o", f"html={tmp_path / 'out.html'}"])
    assert done.exit_code == 0
    assert "Nothing found." in (tmp_path / "out.html").read_text()


def test_what_could_not_be_audited_is_told(tmp_path):
    (tmp_path / "broken.onnx").write_text("none")
    text = CliRunner().invoke(cli, ["check", str(tmp_path / "broken.onnx"), "-f", "html"]).stdout
    assert "Audit incomplete" in text
    assert "incomplete</span>" in text


def test_names_are_text():
    text = html_report(invented(3, EVIL), Style())
    assert text.count("<script") == 1
    assert not {"\x1b", "\u202e"} & set(text)
    assert "&lt;script&gt;alert(1)" in text
    Outline(text)


def test_names_of_a_model_are_text_in_a_profile(tmp_path):
    stored = {"a<script>": np.eye(9, 24), "w": np.eye(24, 3)}
    path = written(
        tmp_path / "evil.onnx",
        "a = MatMul(x, v) h = Tanh(a) y = MatMul(h, w)",
        {"v": stored["a<script>"], "w": stored["w"]},
        (None, 9),
    )
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = [EVIL if name == "v" else name for name in node.input]
    model.graph.initializer[0].name = EVIL
    onnx.save(model, path)
    text = profiled(path)
    assert text.count("<script") == 1
    Outline(text)


def test_a_narrow_page_breaks_names_and_commands_where_they_part():
    text = html_report(invented(1, "net.layer"), Style())
    assert "net.<wbr>layer.<wbr>0.<wbr>weight" in text
    assert '<wbr>onnx <span class="whole">-o OUT</span> <span class="whole">--select SYM101</span></code>' in text


def test_findings_that_are_not_shown_are_counted():
    assert "600 findings more" in html_report(invented(1000, "net"), Style())


def test_the_map_has_a_row_for_each_block():
    sizes = [(f"net.layer.{k}.{part}", 10 * k + 5) for k in range(3) for part in ("query", "value")]
    found = blocks([("embed", 7), *sizes], {"net.layer.1.value": (Level.ERROR, "m0f0")})
    assert [row.name for row in found] == ["embed", "net.layer.0", "net.layer.1", "net.layer.2"]
    assert sum(row.parameters for row in found) == 7 + sum(size for _, size in sizes)
    assert [layer.name for row in found for layer in row.layers if layer.level] == ["net.layer.1.value"]


def test_a_map_of_many_blocks_keeps_those_of_findings_and_the_largest():
    every = blocks([(f"l{k}", k) for k in range(50)], {"l3": (Level.ERROR, "m0f0")})
    assert [row.name for row in largest(every, 3)] == ["l3", "l48", "l49"]
    wide = html_report(invented(1500, "net"), Style())
    assert "500 blocks more" in wide
    assert ">To what is below<" in wide
    assert len(wide) < 2 << 20


def test_a_profile_of_many_spaces_keeps_those_with_savings_and_the_largest(monkeypatch):
    monkeypatch.setattr(profile_tables, "_ROWS", 2)
    text = words(profiled(FIXTURES / "decayed_cnn.onnx"))
    assert re.findall(r'<td class="name mono">(\w+)<', text) == ["conv2", "conv3"]
    assert "2 spaces more" in text


def test_a_card_of_a_rank_draws_what_it_is_counted_by(monkeypatch):
    monkeypatch.chdir(FIXTURES)
    run = audited("low_rank_encoder.onnx")
    (finding,) = run.reports[0].findings
    (one,) = finding.spectra
    assert (one.rank, one.bound, one.noise) == (5, 16, finding.facts["tolerance"][0])
    assert len(one.values) == 16
    assert one.values == tuple(sorted(one.values, reverse=True))
    assert (one.values[0], one.values[4]) == (1.0, pytest.approx(finding.facts["kept"][0], rel=0.1))
    assert one.values[5] <= one.noise * CLEAR < one.values[4]
    text = html_report(run, Style())
    assert text.count("<figure>") == text.count("<figcaption") == 1
    assert "rank 5 of 16</figcaption>" in text
    assert value(Report, plain(replace(run.reports[0], settings=None))).findings == run.reports[0].findings


def test_heads_of_low_rank_are_marked_among_heads(tmp_path):
    text = (FIXTURES / "rules" / "SYM302.flagged.txt").read_text()
    onnx.save(onnx.parser.parse_model(text), tmp_path / "heads.onnx")
    page = CliRunner().invoke(cli, ["check", str(tmp_path / "heads.onnx"), "-f", "html"]).stdout
    assert 'aria-label="1 of 2 units"' in page
    assert "1: rank 1 of 3</figcaption>" in page
    assert "<dt>cache</dt><dd>of these keys it holds 24 bytes per token where 16 would do</dd>" in page
    assert "<dt>repair</dt><dd>none, since heads or copies keep one size" in page


def test_pages_of_many_spectra_stay_small():
    run = invented(1000, "net.layer")
    lines = tuple(Spectrum(k, 3, 64, 1e-8, few([10.0 ** (-j / 9) for j in range(64)])) for k in range(16))
    (one,) = run.reports
    one = replace(one, findings=tuple(replace(finding, spectra=lines) for finding in one.findings))
    text = html_report(replace(run, reports=(one,)), Style())
    assert "and 13 more" in text
    assert len(text) < 2e6


def test_a_strip_marks_each_unit():
    assert strip([0, 2, 3], 8, "3 of 8").count("M") == 2
    wide = strip(range(0, 4096, 512), 4096, "8 of 4096")
    assert wide.count("M") == 8


def browser() -> str | None:
    named = os.environ.get("SYMLINT_CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def dumped(page: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """What a browser has made of a page, and what it has said."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'user'}",
        "--enable-logging=stderr", "--dump-dom", *more, file.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no chromium on this machine")
@pytest.mark.parametrize("name", ["audit", "profile", "course"])
def test_a_browser_shows_it_without_a_word_on_the_console(made, name, tmp_path):
    done = dumped(made[name], tmp_path)
    assert "CONSOLE" not in done.stderr
    assert re.search(r'class="js"', done.stdout)
    shown = re.search(r"data-left[^>]*>(\d+) of (\d+)<", done.stdout)
    assert shown
    assert shown[1] == shown[2] != "0"


def axe() -> Path | None:
    """axe-core, where somebody has installed it: SYMLINT_AXE names the file, or a package of Python has it."""
    if named := os.environ.get("SYMLINT_AXE"):
        return Path(named)
    found = find_spec("axe_playwright_python")
    return next(Path(found.origin).parent.glob("axe*.js"), None) if found and found.origin else None


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no chromium on this machine")
@pytest.mark.skipif(axe() is None, reason="no axe-core: SYMLINT_AXE=FILE, or the package axe-playwright-python")
@pytest.mark.parametrize("mode", [[], ["--blink-settings=preferredColorScheme=0"]], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["audit", "profile", "course"])
def test_everybody_can_use_it(made, name, mode, tmp_path):
    told = 'axe.run().then(r => document.body.dataset.faults = r.violations.map(v => v.id + " " + v.impact).join(", "))'
    page = f"{made[name]}<script>{axe().read_text(encoding='utf-8')}</script><script>{told}</script>"
    done = dumped(page, tmp_path, "--virtual-time-budget=60000", *mode)
    assert 'data-faults=""' in done.stdout, re.search(r'data-faults="[^"]*"', done.stdout)
