"""The cache: what comes from it prints as what is found anew, and it knows when that would be something else."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from corpora import FIXTURES
from examples import settings as asked_for
from onnx.external_data_helper import convert_model_to_external_data

from symlint.audit import cache as folder_of_reports
from symlint.audit import execution, record
from symlint.audit.acceptance import accepting
from symlint.audit.cache import Cache
from symlint.audit.engine import Job, audit, in_turn
from symlint.audit.execution import InTurn
from symlint.audit.outcome import Report, Run
from symlint.cli.main import cli
from symlint.cli.report import FORMATS, Style, reporter
from symlint.evidence.options import Mirror
from symlint.lint.rule import Rule, rule, rules
from symlint.lint.settings import COMMAND, Acceptance, Settings
from symlint.model.budget import Watch
from symlint.model.errors import UsageProblem

ACCEPTS = accepting((), rules(), "2027-01-01")
FLAGGED = [one for one in rules() if not one.on_failure]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache.made(tmp_path / "cache")


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths of the models that were audited, and not found."""
    found: list[str] = []
    real = execution.carried_out

    def carried_out(job: Job, known: tuple[Rule, ...], watch: Watch) -> Report:
        found.append(Path(job.path).name)
        return real(job, known, watch)

    monkeypatch.setattr(execution, "carried_out", carried_out)
    return found


def report(cache: Cache, path: Path, settings: Settings | None = None, *, saved: bool = False) -> Report:
    (found,) = InTurn(cache)([Job(str(path), settings or Settings(), ACCEPTS if saved else None)], rules(), Watch())
    return found


def every_format(found: Report) -> dict[str, str]:
    one = Run((found,), rules())
    style = Style(verbose=True, notes=True)
    return {form: reporter(form)(one, style) for form in FORMATS}


# -- records ----------------------------------------------------------------------------------------------------------
def same(found: Report, read: Report) -> None:
    assert replace(read, hashed=str) == replace(found, hashed=str, settings=None)
    assert read.sha256 == found.sha256
    assert every_format(read) == every_format(replace(found, settings=None))


@pytest.mark.parametrize("one", FLAGGED, ids=lambda one: one.code)
def test_a_record_of_what_a_rule_finds_is_that(one, tmp_path):
    text = (FIXTURES / "rules" / f"{one.code}.flagged.txt").read_text()
    onnx.save(onnx.parser.parse_model(text), file := tmp_path / "model.onnx")
    settings = asked_for(text, one)
    (found,) = in_turn([Job(str(file), settings, ACCEPTS)], rules(), Watch())
    assert found.findings
    same(found, record.report(json.loads(json.dumps(record.of_report(found)))))
    assert record.value(Settings, json.loads(json.dumps(record.plain(settings)))) == settings


def test_a_record_of_what_was_not_read_is_that(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    found = audit(str(tmp_path / "a.onnx"), rules(), Settings())
    same(found, record.report(json.loads(json.dumps(record.of_report(found)))))
    limited = audit(str(FIXTURES / "decayed_cnn.onnx"), rules(), Settings(max_memory=1 << 20))
    assert limited.skipped
    same(limited, record.report(json.loads(json.dumps(record.of_report(limited)))))


@pytest.mark.parametrize("change", [{"coverage": None}, {"findings": [{"is": "Finding"}]}, {"layers": [["a"]]}])
def test_what_is_no_record_is_refused(change):
    found = record.of_report(audit(str(FIXTURES / "decayed_cnn.onnx"), rules(), Settings()))
    with pytest.raises(ValueError, match="no record of Report"):
        record.report({**found, **change})


# -- hits -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["collinear_mlp", "decayed_cnn", "healthy_cnn", "low_rank_encoder"])
def test_what_comes_from_the_cache_prints_as_what_is_found(name, cache, audited, tmp_path):
    file = FIXTURES / f"{name}.onnx"
    fresh = every_format(next(in_turn([Job(str(file), Settings(), ACCEPTS)], rules(), Watch())))
    assert every_format(report(cache, file, saved=True)) == fresh
    assert every_format(report(cache, file, saved=True)) == fresh
    assert audited == [file.name]
    shutil.copy(file, moved := tmp_path / "moved.onnx")
    assert report(cache, moved).path == moved.as_posix()
    assert audited == [file.name]


def test_what_a_fix_takes_away_is_asked_for_once(cache, audited):
    file = FIXTURES / "decayed_cnn.onnx"
    assert report(cache, file).takes is None
    assert report(cache, file, saved=True).takes == 7_777
    assert report(cache, file).takes is None
    assert report(cache, file, saved=True).takes == 7_777
    assert audited == [file.name] * 2
    spared = Settings(accept=(Acceptance("known", rule="SYM101", layer="conv2"),))
    assert [report(cache, file, spared, saved=True).takes for _ in range(2)] == [2_497] * 2
    assert audited == [file.name] * 3


def test_what_only_judges_findings_changes_no_report(cache, audited):
    file = FIXTURES / "decayed_cnn.onnx"
    report(cache, file)
    lenient = Settings(fail_on="never", accept=(Acceptance("known", rule="SYM101"),), exclude=("old",), file="a.toml")
    assert report(cache, file, lenient).settings == lenient
    assert audited == [file.name]


# -- misses -----------------------------------------------------------------------------------------------------------
def test_other_settings_are_another_report(cache, audited, perceptron):
    file = perceptron()
    others = [
        Settings(),
        Settings(levels={"SYM101": "error"}),
        Settings(select=("SYM1",)),
        Settings(select=("SYM1",), origins={"select": COMMAND}),
        Settings(rules={"SYM101": {"note-model": 0.5}}),
        Settings(target="int8"),
        Settings(largest_input=1e3),
        Settings(min_understood=100),
        Settings(find_states=False),
        Settings(mirrors=(Mirror("twins", ("first.weight",), "swap 0 1"),)),
    ]
    for settings in [*others, *others]:
        report(cache, file, settings)
    assert len(audited) == len(others)


def test_other_content_is_another_report(cache, audited, perceptron, tmp_path):
    file = perceptron()
    assert not report(cache, file).findings
    dead = perceptron("model.onnx", lambda weights: weights["second.weight"].__setitem__((slice(None), 2), 0))
    assert [finding.rule for finding in report(cache, dead).findings] == ["SYM101"]
    assert len(audited) == 2


def test_external_data_are_content(cache, audited, perceptron, tmp_path):
    for name in ("one", "other"):
        model = onnx.load(perceptron(f"{name}.onnx"))
        convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
        (tmp_path / name).mkdir()
        onnx.save(model, tmp_path / name / "model.onnx")
    data = tmp_path / "other" / "weights.bin"
    assert (tmp_path / "one" / "model.onnx").read_bytes() == (tmp_path / "other" / "model.onnx").read_bytes()
    report(cache, tmp_path / "one" / "model.onnx")
    report(cache, tmp_path / "other" / "model.onnx")
    assert len(audited) == 1
    data.write_bytes(np.full(data.stat().st_size // 4, 0.5, np.float32).tobytes())
    assert report(cache, tmp_path / "other" / "model.onnx").findings
    assert not report(cache, tmp_path / "one" / "model.onnx").findings
    assert len(audited) == 2


def test_what_is_read_beside_a_model_is_content(cache, audited, perceptron, tmp_path):
    file = perceptron("folder/model.onnx")
    np.save(surface := tmp_path / "turned.npy", np.eye(6, 1))
    settings = Settings(mirrors=(Mirror("turned", ("first.weight", "first.bias", "second.weight"), str(surface)),))
    report(cache, file, settings)
    np.save(surface, np.eye(6, 2))
    report(cache, file, settings)
    file.with_name("genai_config.json").write_text("{}")
    report(cache, file, settings)
    report(cache, file, settings)
    assert len(audited) == 3


@pytest.mark.parametrize("changed", ["rule", "symlint", "library"])
def test_another_source_is_another_report(changed, cache, audited, perceptron, tmp_path, monkeypatch):
    """That of a package of rules, or symlint's own."""
    (tmp_path / "acme_rules.py").write_text("SAID = 'once'\n")
    monkeypatch.syspath_prepend(tmp_path)

    @rule("SYM199", "said", FLAGGED[0].level, "exact")
    def check(context):
        yield from ()

    check.check.__module__ = "acme_rules"
    job = Job(str(perceptron()), Settings(select=("SYM199",)))
    for time in range(3):
        list(InTurn(cache)([job], [check], Watch()))
        if time == 1 and changed == "rule":
            (tmp_path / "acme_rules.py").write_text("SAID = 'twice'\n")
            folder_of_reports._source.cache_clear()
        elif time == 1 and changed == "symlint":
            monkeypatch.setattr(folder_of_reports, "__version__", "9.9.9")
        elif time == 1:
            monkeypatch.setattr(folder_of_reports, "_version", lambda library: "9.9.9")
    folder_of_reports._source.cache_clear()
    assert len(audited) == 2


# -- the folder -------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(sys.platform == "win32", reason="has no such modes")
def test_the_folder_is_its_owners(cache):
    report(cache, FIXTURES / "healthy_cnn.onnx")
    (file,) = cache.folder.glob("*.json")
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {path.name for path in cache.folder.iterdir()} == {file.name, ".gitignore"}
    assert json.loads(file.read_text())["report"]["sha256"] == report(cache, FIXTURES / "healthy_cnn.onnx").sha256


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"accepted": [], "report": {}}', "\x00"])
def test_a_file_that_is_damaged_is_none(text, cache, audited):
    fresh = report(cache, FIXTURES / "healthy_cnn.onnx")
    (file,) = cache.folder.glob("*.json")
    file.write_text(text)
    assert every_format(report(cache, FIXTURES / "healthy_cnn.onnx")) == every_format(fresh)
    assert len(audited) == 2
    assert json.loads(file.read_text())["report"]


def test_what_is_incomplete_is_not_kept(cache, audited, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for _ in range(2):
        report(cache, tmp_path / "broken.onnx")
        report(cache, FIXTURES / "decayed_cnn.onnx", Settings(max_memory=1 << 20))
    assert len(audited) == 4
    assert not list(cache.folder.glob("*.json"))


def test_a_model_that_changes_meanwhile_is_not_kept(cache, perceptron, monkeypatch):
    file = perceptron()
    real = execution.carried_out

    def carried_out(job: Job, known: tuple[Rule, ...], watch: Watch) -> Report:
        perceptron("model.onnx", lambda weights: weights["second.weight"].__setitem__((slice(None), 2), 0))
        return real(job, known, watch)

    monkeypatch.setattr(execution, "carried_out", carried_out)
    report(cache, file)
    assert not list(cache.folder.glob("*.json"))


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageProblem, match="no cache can be there"):
        Cache.made(tmp_path / "file" / "cache")


# -- the command ------------------------------------------------------------------------------------------------------
def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    return result.exit_code, re.sub(r"[\d.]+ s$", "", result.output, flags=re.MULTILINE)


def test_the_command_says_the_same_of_what_it_knows(cache, audited):
    plain = call("check", FIXTURES)
    assert [call("check", FIXTURES, "--cache", cache.folder) for _ in range(2)] == [plain, plain]
    assert len(audited) == 4
    code, text = call("check", FIXTURES, "--cache", cache.folder, "--no-cache")
    assert (code, text) == (2, "symlint: choose one of --cache and --no-cache\n")


def test_one_job_has_no_cache_unless_it_is_asked_for(tmp_path, monkeypatch, modules_of_a_check: Callable[[], set[str]]):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not {name for name in modules_of_a_check() if name.startswith("symlint.audit.fleet")}
    assert not list(tmp_path.iterdir())


@pytest.fixture
def modules_of_a_check() -> Callable[[], set[str]]:
    """The modules that a plain check has imported."""
    import subprocess

    probe = """
import atexit, sys
atexit.register(lambda: print(*sys.modules))
from symlint.cli.main import main
main()
"""

    def modules() -> set[str]:
        command = [sys.executable, "-c", probe, "check", "-q", str(FIXTURES / "healthy_cnn.onnx")]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    return modules


def test_what_was_used_the_longest_ago_goes_where_there_is_too_much(cache):
    for k, name in enumerate(("healthy_cnn", "decayed_cnn", "collinear_mlp")):
        report(cache, FIXTURES / f"{name}.onnx")
        for file in cache.folder.glob("*.json"):
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 100 * (k + 1)))
    mine = cache.folder / "mine.json"
    mine.write_text("x" * 1000)
    report(cache, FIXTURES / "healthy_cnn.onnx")  # used again, and so the youngest
    sizes = {file: file.stat().st_size for file in cache.folder.glob("*.json") if file != mine}
    _, *others = sorted(sizes, key=lambda file: file.stat().st_mtime)
    cache.shrink(sum(sizes.values()))
    assert set(cache.folder.glob("*.json")) == {mine, *sizes}
    cache.shrink(sum(sizes.values()) - 1)
    assert set(cache.folder.glob("*.json")) == {mine, *others}
    cache.shrink(0)
    assert set(cache.folder.glob("*.json")) == {mine}
