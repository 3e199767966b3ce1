"""Limits of a run: what does not fit into the memory or the time is named, and so is what Ctrl-C leaves out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import symlint.audit.engine
import symlint.lint.rule
import symlint.model.budget
from symlint.audit.engine import Report, Run
from symlint.cli.main import cli
from symlint.cli.report import Style, reporter
from symlint.lint.finding import Finding, Level, Skipped
from symlint.lint.rule import Rule, rules
from symlint.model import budget
from symlint.model.budget import Budget, BudgetExceeded, Interrupted, Watch, resident
from symlint.model.load import load
from symlint.symmetry.spaces import Coverage


def call(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def document(*arguments: object):
    result = call("check", *arguments, "--format", "json")
    found = json.loads(result.stdout)
    assert found["exit_code"] == result.exit_code
    return found


# -- amounts ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("2g", 2 << 30),
        ("1.5 GiB", 3 << 29),
        ("4kb", 4096),
        ("1T", 1 << 40),
        ("1000", 1000),
        (1000, 1000),
        ("0", 0),
    ],
)
def test_sizes_are_read(text, size):
    assert budget.memory(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("90s", 90), ("5m", 300), ("1H", 3600), (0.5, 0.5), (0, 0)])
def test_times_are_read(text, seconds):
    assert budget.duration(text) == seconds


WRONG = ["", "M", "-1", "1X", "512 M B", "i", "1e9", "nan", "inf", "٣", "9" * 400, True, None, [1], -1, float("inf")]


@pytest.mark.parametrize("text", [*WRONG, "1s", "1i"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="expected a size such as 512M"):
        budget.memory(text)


@pytest.mark.parametrize("text", [*WRONG, "1G", "1ms"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="expected a time such as 60"):
        budget.duration(text)


@pytest.mark.parametrize(
    ("flag", "words"), [("--max-memory=1Q", "expected a size such"), ("--time-budget=soon", "expected a time")]
)
def test_a_wrong_flag_is_told(perceptron, flag, words):
    result = call("check", perceptron(), flag)
    assert result.exit_code == 2
    assert words in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('max-memory = "much"', "symlint.toml: max-memory: expected a size such as 512M, 2G"),
        ("max-memory = -5", "expected a size"),
        ('time-budget = "1 day"', "symlint.toml: time-budget: expected a time such as 60, 90s or 5m"),
        ("time-budget = true", "expected a time"),
    ],
)
def test_a_wrong_setting_is_one_line(monkeypatch, tmp_path, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symlint.toml").write_text(text)
    result = call("check")
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_settings_limit_and_flags_win(monkeypatch, tmp_path, perceptron):
    file = perceptron()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symlint.toml").write_text('max-memory = "1M"')
    assert document(file)["exit_code"] == 4
    assert document(file, "--max-memory", "64G")["exit_code"] == 0
    assert document(file, "--max-memory", "0")["exit_code"] == 0
    (tmp_path / "symlint.toml").write_text("time-budget = 0.000001")
    assert document(file)["exit_code"] == 4
    assert document(file, "--time-budget", "1h")["exit_code"] == 0
    assert f"time-budget = 1e-06  # {tmp_path / 'symlint.toml'}" in call("config").output


# -- nothing is limited -----------------------------------------------------------------------------------------------
def test_without_limits_nothing_is_wrapped(perceptron):
    model = load(perceptron())
    budget = Budget()
    assert budget.weights(model) is model
    assert budget.steps(model.graph.nodes) is model.graph.nodes
    assert budget.room is None
    budget.claim(1 << 60)


def test_limits_that_are_wide_change_nothing(root):
    file = root / "fixtures" / "decayed_cnn.onnx"
    assert document(file, "--max-memory", "1T", "--time-budget", "1h") == document(file)
    assert document(file)["models"][0]["skipped"] == []


# -- what does not fit ------------------------------------------------------------------------------------------------
def whole(found) -> list[str]:
    """The rules of the report of one model that ran, in parts or not at all."""
    (model,) = found["models"]
    assert found["verdict"] == "incomplete"
    assert all(list(item) in (["rule", "tensor", "reason"], ["phase", "tensor", "reason"]) for item in model["skipped"])
    return [item.get("rule") or item["phase"] for item in model["skipped"]]


RUN = [rule.code for rule in rules() if not rule.on_failure and rule.evidence != "heuristic" and not rule.targets]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--time-budget=0.000001", "the time budget of 1e-06 s is used up"),
        ("--max-memory=1M", "more than 1M of memory"),
    ],
)
def test_a_model_that_is_not_even_read_is_no_clean_one(perceptron, flag, words):
    found = document(perceptron(), flag, "--fail-on", "never")
    assert found["exit_code"] == 4
    assert whole(found) == ["load", *RUN]
    assert all(words in item["reason"] for item in found["models"][0]["skipped"])
    assert found["models"][0]["findings"] == []


class Clock:
    """A clock that only a slow rule moves, so that no test depends on the speed of the machine."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def and_slow(monkeypatch):
    """The installed rules, and among them one that finds something and then goes over the network for ever."""
    clock = Clock()
    monkeypatch.setattr(symlint.model.budget, "time", clock)

    def check(context):
        yield Finding("SYM150", "slow", Level.WARNING, "exact", "found by then", context.spaces[0].id, (0,))
        while True:
            for _ in context.structure.program.steps:
                clock.now += 1

    added = Rule("SYM150", "slow", Level.WARNING, "exact", "It takes its time.", check)
    installed = tuple(sorted((*rules(), added), key=lambda rule: rule.code))
    monkeypatch.setattr(symlint.lint.rule, "rules", lambda: installed)


@pytest.mark.parametrize("form", ["full", "concise", "json", "sarif"])
def test_a_deadline_in_the_middle_of_a_rule_keeps_what_was_found(and_slow, perceptron, form):
    result = call("check", perceptron(), "--time-budget", "1m", "--format", form)
    assert result.exit_code == 4
    assert "found by then" in result.output
    if form == "json":
        found = json.loads(result.stdout)
        assert whole(found) == ["SYM150", *(code for code in RUN if code > "SYM150")]
        assert [f["message"] for f in found["models"][0]["findings"]] == ["found by then"]
        assert found["models"][0]["coverage"]["total"] > 0
    elif form != "sarif":
        words = " ".join(result.output.split())
        assert "rules did not run to their end" in words
        assert "not audited: SYM150, SYM201" in words
        assert "the time budget of 60 s is used up" in words
        assert "incomplete, 1 audit not finished: 1 warning" in words


def test_the_budget_is_for_each_model(and_slow, perceptron):
    found = document(perceptron("a.onnx"), perceptron("b.onnx"), "--time-budget", "10")
    assert [model["skipped"][0]["rule"] for model in found["models"]] == ["SYM150", "SYM150"]


def wide(path: Path, size: int) -> Path:
    """A network with a large embedding before a small layer."""
    rng = np.random.default_rng(2)
    weights = {"table": rng.normal(size=(size, 64)), "w": rng.normal(size=(64, 8)), "v": rng.normal(size=(8, 4))}
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5, 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_weight_that_does_not_fit_is_named(tmp_path, monkeypatch):
    """The memory of the process is a number here, so that the test does not depend on the system."""
    file = wide(tmp_path / "wide.onnx", 4096)  # a table of 1 MB
    monkeypatch.setattr(symlint.model.budget, "resident", lambda: 0)
    fits = (symlint.model.budget._PROCESS + (64 << 20)) * 16 // 15
    assert document(file, "--max-memory", fits)["exit_code"] == 0
    found = document(file, "--max-memory", (symlint.model.budget._PROCESS + (3 << 19)) * 16 // 15 + 16)
    (model,) = found["models"]
    assert found["exit_code"] == 4
    assert "SYM005" in whole(found)
    assert {item["tensor"] for item in model["skipped"]} == {"table"}
    assert model["skipped"][0]["reason"].startswith("1M, and what is made of them, do not fit into")
    words = " ".join(
        call("check", file, "--max-memory", (symlint.model.budget._PROCESS + (3 << 19)) * 16 // 15 + 16).output.split()
    )
    assert "table: 1M, and what is made of them, do not fit" in words


def test_what_is_spare_goes_before_anything_is_left_out(monkeypatch):
    held = [900 << 20]
    monkeypatch.setattr(symlint.model.budget, "resident", lambda: held[0])
    budget = Budget(memory=1 << 30)
    budget.claim(10 << 20)
    with pytest.raises(BudgetExceeded, match="100M, and what is made of them"):
        budget.claim(100 << 20, "w")
    budget.spare.append(lambda: held.__setitem__(0, 200 << 20))
    budget.claim(100 << 20, "w")
    assert budget.room == (960 - 200) << 20


def test_memory_that_there_is_not_is_no_fault_of_a_rule(monkeypatch, perceptron):
    def check(context):
        raise MemoryError
        yield

    installed = (*rules(), Rule("SYM199", "hungry", Level.NOTE, "exact", "Hungry.", check))
    monkeypatch.setattr(symlint.lint.rule, "rules", lambda: installed)
    found = document(perceptron())
    assert found["models"][0]["skipped"] == [
        {"rule": "SYM199", "tensor": None, "reason": "the audit needs more memory than there is"}
    ]
    assert whole(found) == ["SYM199"]


def test_the_memory_of_this_process_is_told():
    before = resident()
    held = np.ones(8 << 20)
    assert 10 << 20 < before < 8 << 30
    assert resident() >= before + held.nbytes // 2
    assert Budget(memory=before * 4).room < before * 3
    with pytest.raises(BudgetExceeded, match="more than"):
        Budget(memory=before // 2).tick()


# -- reports ----------------------------------------------------------------------------------------------------------
HALF = Report(
    "half.onnx",
    coverage=Coverage(10, 10, 0, 0),
    incomplete="2 of 30 rules did not run to their end",
    skipped=(Skipped("SYM101", "too much", "a\x1b[2J"), Skipped("SYM102", "too much", "a\x1b[2J")),
)
UNREAD = Report("un.onnx", incomplete="x: nothing was audited", skipped=(Skipped("load", "x", phase=True),))
CLEAN = Report("clean.onnx", coverage=Coverage(10, 10, 0, 0))


def told(form: str, *reports: Report, interrupted: bool = False) -> str:
    return reporter(form)(Run(reports, rules(), seconds=0.84, interrupted=interrupted), Style())


def test_people_read_what_was_left_out():
    assert told("full", HALF, UNREAD, CLEAN) == (
        "half.onnx\n  audited 100% of 10 parameters\n  incomplete: 2 of 30 rules did not run to their end\n"
        "  not audited: SYM101, SYM102: a\\x1b[2J: too much\n\n"
        "un.onnx\n  incomplete: x: nothing was audited\n  not audited: load: x\n\n"
        "clean.onnx: audited 100% of 10 parameters; nothing found\n\n"
        "incomplete, 2 audits not finished: nothing found in 3 models, 0.8 s\n"
    )
    assert told("concise", HALF, UNREAD) == (
        "half.onnx: incomplete: 2 of 30 rules did not run to their end\n"
        "half.onnx: not audited: SYM101, SYM102: a\\x1b[2J: too much\n"
        "un.onnx: incomplete: x: nothing was audited\nun.onnx: not audited: load: x\n"
        "incomplete, 2 audits not finished: nothing found in 2 models, 0.8 s\n"
    )


@pytest.mark.parametrize(
    ("reports", "interrupted", "successful", "code"),
    [((HALF,), False, False, 4), ((HALF, CLEAN), False, True, 4), ((HALF, CLEAN), True, False, 130)],
)
def test_sarif_notifies_of_what_was_left_out(reports, interrupted, successful, code):
    (run,) = json.loads(told("sarif", *reports, interrupted=interrupted))["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is successful
    assert invocation["exitCode"] == code
    first, *others = invocation["toolExecutionNotifications"]
    assert first["level"] == "error"
    assert [other["associatedRule"]["id"] for other in others] == ["SYM101", "SYM102"]
    for other in others:
        assert other["level"] == "warning"
        assert "\x1b" not in other["message"]["text"]
        assert run["tool"]["driver"]["rules"][other["associatedRule"]["index"]]["id"] == other["associatedRule"]["id"]


@pytest.mark.parametrize("interrupted", [False, True])
def test_sarif_follows_its_schema(shared, interrupted):
    jsonschema = pytest.importorskip("jsonschema")
    text = (shared / "sarif" / "sarif-schema-2.1.0.json").read_text(encoding="utf-8")
    document = json.loads(told("sarif", HALF, UNREAD, CLEAN, interrupted=interrupted))
    jsonschema.Draft4Validator(json.loads(text)).validate(document)


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def interrupts() -> Iterator[None]:
    """Python's own answer to an interrupt, which whoever started the tests may have turned off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_raised_only_where_work_may_end(interrupts):
    with Watch() as watch:
        signal.raise_signal(signal.SIGINT)
        assert watch.interrupted
        with pytest.raises(Interrupted), watch.interruptible():
            pytest.fail("nothing is begun after it")
        with pytest.raises(KeyboardInterrupt):  # a second one ends the process as ever
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with Watch() as watch, pytest.raises(Interrupted), watch.interruptible():
        signal.raise_signal(signal.SIGINT)


def test_a_process_that_ignores_interrupts_goes_on(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Watch() as watch:
            signal.raise_signal(signal.SIGINT)
            assert not watch.interrupted
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_after_the_last_rule_takes_nothing_away(monkeypatch, perceptron, interrupts):
    real = symlint.audit.engine._assessed

    def judged(*arguments):
        report = real(*arguments)
        signal.raise_signal(signal.SIGINT)
        return report

    monkeypatch.setattr(symlint.audit.engine, "_assessed", judged)
    assert document(perceptron())["exit_code"] == 0
    found = document(perceptron("a.onnx"), perceptron("b.onnx"))
    assert found["exit_code"] == 130
    assert found["models"][0]["skipped"] == []
    assert found["models"][1]["skipped"] == [{"phase": "load", "tensor": None, "reason": "interrupted"}]


CHILD = """
import signal, sys
from pathlib import Path
import symlint.lint.rule
from symlint.cli.main import cli
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import Rule, rules

def check(context):
    yield Finding("SYM150", "slow", Level.WARNING, "exact", "found by then")
    Path(sys.argv[1]).touch()
    while True:
        sum(range(1000))

added = Rule("SYM150", "slow", Level.WARNING, "exact", "Slow.", check)
installed = tuple(sorted((*rules(), added), key=lambda rule: rule.code))
symlint.lint.rule.rules = lambda: installed
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
cli(["check", *sys.argv[2:]], prog_name="symlint")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signal reaches a child there")
@pytest.mark.parametrize("form", ["full", "concise", "json", "sarif"])
def test_ctrl_c_shows_what_was_found(tmp_path, perceptron, form):
    files = [perceptron("first.onnx"), perceptron("second.onnx")]
    ready = tmp_path / "ready"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(ready), *map(str, files), "--format", form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert (child.returncode, err) == (130, "")
    assert "found by then" in out
    if form == "json":
        found = json.loads(out)
        assert (found["exit_code"], found["verdict"]) == (130, "incomplete")
        first, second = found["models"]
        assert [item["rule"] for item in first["skipped"]] == ["SYM150", *(code for code in RUN if code > "SYM150")]
        assert second["skipped"] == [{"phase": "load", "tensor": None, "reason": "interrupted"}]
    elif form == "sarif":
        (invocation,) = json.loads(out)["runs"][0]["invocations"]
        assert (invocation["exitCode"], invocation["executionSuccessful"]) == (130, False)
    else:
        assert "interrupted, 2 audits not finished: 1 warning in 1 of 2 models" in " ".join(out.split())
        assert "second.onnx" in "".join(out.split())  # a long path may be broken


# -- progress ---------------------------------------------------------------------------------------------------------
def test_a_watch_is_told_of_models_phases_and_shares(perceptron):
    lines: list[tuple[str, str, float]] = []
    files = [str(perceptron("a.onnx")), str(perceptron("b.onnx"))]
    from symlint.lint.configuration import Configurations

    symlint.audit.engine.run(files, (), rules(), Configurations(), Watch(lambda *line: lines.append(line)))
    for file in files:
        mine = [(phase, share) for path, phase, share in lines if path == file]
        assert [phase for phase, _ in mine] == ["load", "symmetries", *RUN]
        shares = [share for _, share in mine]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1] < 1) == (0, True)


def test_progress_is_for_terminals_that_wait(monkeypatch, perceptron):
    import io

    from symlint.cli.commands import check_models as check

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def lines(quiet: bool = False, seconds: float = 0.3) -> str:
        stream = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            status = check._Status(quiet)
            with status.of(["a.onnx", "b\x1b.onnx"]):
                status("b\x1b.onnx", "SYM101", 0.5)
                time.sleep(seconds)
                status("b\x1b.onnx", "SYM102", 0.75)
        return stream.getvalue()

    monkeypatch.setattr("symlint.cli.commands.options.PATIENCE", 10.0)
    assert lines() == ""
    monkeypatch.setattr("symlint.cli.commands.options.PATIENCE", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    assert "2/2 b\\x1b.onnx: SYM101, 50%" in lines()
    assert lines(quiet=True) == ""
    monkeypatch.setenv("CI", "true")
    assert lines() == ""


def test_a_pipe_gets_no_progress(perceptron):
    done = subprocess.run(
        [sys.executable, "-m", "symlint", "check", str(perceptron())], capture_output=True, check=True
    )
    assert done.stderr == b""
