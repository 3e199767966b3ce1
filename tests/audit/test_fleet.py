"""Many models at once: the same reports as one after another, whatever dies or is interrupted meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from corpora import FIXTURES

from symlint.audit.acceptance import accepting
from symlint.audit.cache import Cache
from symlint.audit.engine import run
from symlint.audit.fleet import Fleet, Processes
from symlint.audit.outcome import Report, Run
from symlint.cli.main import cli
from symlint.cli.report import FORMATS, Style, reporter
from symlint.lint.configuration import Configurations
from symlint.lint.rule import rules
from symlint.model.budget import DONE, Watch
from symlint.model.errors import UsageProblem

ACCEPTS = accepting((), rules(), "2027-01-01")
NAMES = ("collinear_mlp", "decayed_cnn", "healthy_cnn", "low_rank_encoder")


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Python's own answer to an interrupt, which whoever started the tests may have turned off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four models and a file that is none."""
    folder = tmp_path_factory.mktemp("models")
    for name in NAMES:
        shutil.copy(FIXTURES / f"{name}.onnx", folder)
    (folder / "broken.onnx").write_bytes(b"no model")
    return sorted(map(str, folder.glob("*.onnx")))


@pytest.fixture(scope="module")
def alone(models: list[str]) -> Run:
    """What one process says of them."""
    return checked(models)


def checked(
    files: list[str],
    hands: Processes | None = None,
    told: Callable[[Report], None] | None = None,
    watch: Watch | None = None,
) -> Run:
    fleet = Fleet(hands) if hands else None
    found = run(files, ("none.onnx",), rules(), Configurations(), watch, accepts=ACCEPTS, auditor=fleet, told=told)
    return replace(found, seconds=0.0)


def every_format(found: Run) -> dict[str, str]:
    return {form: reporter(form)(found, Style(verbose=True, notes=True)) for form in FORMATS}


def test_several_jobs_say_what_one_says(models, alone, tmp_path):
    """In the same order, and once more from the cache that they have shared."""
    cache = Cache.made(tmp_path / "cache")
    order: list[str] = []
    together = checked(models, Processes(2, cache), lambda report: order.append(report.path))
    assert order == [*models, "none.onnx"]
    assert every_format(together) == every_format(alone)
    assert len(list(cache.folder.glob("*.json"))) == len(NAMES)
    assert every_format(checked(models, Processes(3, cache))) == every_format(alone)
    assert together.exit_code == 4


def test_what_dies_names_its_model_and_the_rest_goes_on(models, alone, tmp_path):
    """Nothing of it is kept: the next run audits it, and only it."""
    cache = Cache.made(tmp_path / "cache")
    hands = Processes(1, cache)

    def kill(report: Report) -> None:
        if report.path == models[0]:
            child = hands.workers[0]._child
            assert child
            child.kill()

    found = checked(models, hands, kill)
    killed = [report for report in found.reports if "was killed" in report.incomplete]
    (one,) = killed
    assert one.path in models[1:3]
    assert one.findings[0].rule == "SYM001"
    assert one.incomplete == "the process of its audit was killed; has the machine run out of memory?"
    assert found.exit_code == 4
    others = [report for report in alone.reports if report.path != one.path]
    assert [report.findings for report in found.reports if report.path != one.path] == [r.findings for r in others]
    kept = set(cache.folder.glob("*.json"))
    again = checked(models, Processes(2, cache))
    assert every_format(again) == every_format(alone)
    assert kept < set(cache.folder.glob("*.json"))


def test_an_interrupted_run_keeps_what_is_found(models, alone, tmp_path, interrupts):
    cache = Cache.made(tmp_path / "cache")

    def interrupt(report: Report) -> None:
        if report.path == models[1]:
            signal.raise_signal(signal.SIGINT)

    with Watch() as watch:
        found = checked(models, Processes(1, cache), interrupt, watch)
    assert (found.exit_code, found.verdict) == (130, "incomplete")
    assert [report.path for report in found.reports] == [*models, "none.onnx"]
    assert found.reports[1].finished
    assert found.reports[-2].skipped[0].reason == "interrupted"
    kept = {file: file.stat().st_ino for file in cache.folder.glob("*.json")}
    assert kept
    again = checked(models, Processes(1, cache))
    assert every_format(again) == every_format(alone)
    assert {file: file.stat().st_ino for file in kept} == kept  # nothing was done twice
    assert len(list(cache.folder.glob("*.json"))) == len(NAMES)


def test_what_cannot_be_followed_ends_the_run(models, tmp_path):
    hands = Processes(2, None)
    settings = Configurations(states=(), select=("SYM999",))
    with pytest.raises(UsageProblem, match="no rule 'SYM999'"):
        run(models, (), rules(), settings, auditor=Fleet(hands))
    (tmp_path / "symlint.toml").write_text('[[states]]\ninput = "image"\noutput = "scores"\n')
    with pytest.raises(UsageProblem, match="image"):
        run([models[2]], (), rules(), Configurations(str(tmp_path / "symlint.toml")), auditor=Fleet(hands))


# -- the command ------------------------------------------------------------------------------------------------------
def call(*arguments: object, home: Path) -> tuple[int, str]:
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(cli, words, env={"XDG_CACHE_HOME": str(home)})
    return result.exit_code, re.sub(r"[\d.]+ s$", "", result.output, flags=re.MULTILINE)


@pytest.mark.parametrize("form", ["full", "jsonl"])
def test_the_command_says_with_jobs_what_it_says_without(form, models, tmp_path):
    folder = Path(models[0]).parent
    alone = call("check", folder, "-f", form, home=tmp_path / "home")
    assert not (tmp_path / "home").exists()
    assert call("check", folder, "-f", form, "--jobs", 2, home=tmp_path / "home") == alone
    assert len(list((tmp_path / "home" / "symlint").glob("*.json"))) == len(NAMES)
    assert alone[0] == 4


def test_lines_are_written_as_models_end(models, tmp_path):
    """Of the file that is written, a line is there before the next model is done."""
    file, seen = tmp_path / "lines.jsonl", []
    from symlint.cli.commands.check_models import lines

    with lines([file], stdout=False) as told:
        assert told

        def both(report: Report) -> None:
            told(report)
            seen.append([json.loads(line)["path"] for line in file.read_text().splitlines()])

        checked(models, None, both)
    assert seen == [[*models, "none.onnx"][: k + 1] for k in range(len(models) + 1)]


def test_a_baseline_has_its_say_in_every_line(models, tmp_path):
    folder, base = Path(models[0]).parent, tmp_path / "base.json"
    call("check", folder, "--write-baseline", base, home=tmp_path)
    code, text = call("check", folder, "--baseline", base, "-f", "jsonl", home=tmp_path)
    accepted = [
        f["accepted"] for line in text.splitlines() for f in json.loads(line)["findings"] if f["level"] != "note"
    ]
    assert code == 4
    assert accepted.count(None) == 1  # the file that is no model


def test_as_many_jobs_as_cores(models, tmp_path, monkeypatch):
    from symlint.cli.commands import check_models

    monkeypatch.setattr(check_models.os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    assert check_models._cores() == 3
    monkeypatch.setattr("symlint.cli.commands.check_models._cores", lambda: 1)
    assert call("check", models[3], "--jobs", 0, home=tmp_path)[0] == 0
    assert not (tmp_path / "symlint").exists()


def test_a_default_cache_that_cannot_be_is_done_without(models, tmp_path):
    (tmp_path / "home").touch()
    code, text = call("check", models[3], "--jobs", 2, "-q", home=tmp_path / "home")
    assert code == 0
    assert text.startswith("symlint: without a cache: ")
    assert call("check", models[3], "--jobs", 2, "-q", "--no-cache", home=tmp_path / "home") == (0, "")


def test_the_commands_of_the_readme_run(models, tmp_path, monkeypatch, root):
    section = re.search(
        r"^## Many models$(.*?)^## ", (root / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )[1]
    commands = re.findall(r"^symlint (.*)$", section, re.MULTILINE)
    assert len(commands) >= 3
    (tmp_path / "models").mkdir()
    shutil.copy(models[3], tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        code, text = call(*command.split(), home=tmp_path)
        assert code == 0, text
    assert Path(".symlint-cache").is_dir()
    assert Path("report.html").is_file()


def test_a_line_says_how_many_are_done_and_what_is_at_work(monkeypatch):
    from symlint.cli.commands.check_models import _Status

    status, said = _Status(quiet=True), list[str]()
    monkeypatch.setattr(status._waiting, "say", said.append)
    with status.of(["a", "b", "c"]):
        status.of_many("a", "load", 0.0)
        status.of_many("b", "SYM101", 0.25)
        status.of_many("a", DONE, 1.0)
    assert said[1:] == ["0/3 done; a: load, 0%; b: SYM101, 25%", "1/3 done; b: SYM101, 25%"]
