"""The command line: exit codes, formats, settings, and one line for whatever goes wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from written import written

from symlint.cli.main import COMMANDS, cli
from symlint.lint.rule import rules


def call(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def spoil(weights):
    weights["first.weight"][2, 1] = np.nan


@pytest.fixture
def healthy(perceptron):
    return perceptron("healthy.onnx")


@pytest.fixture
def broken(perceptron):
    return perceptron("broken.onnx", spoil)


@pytest.fixture
def torn(tmp_path, healthy):
    file = tmp_path / "torn.onnx"
    file.write_bytes(healthy.read_bytes()[:100])
    return file


@pytest.mark.parametrize("form", ["full", "concise", "json", "sarif"])
@pytest.mark.parametrize(
    ("names", "flags", "code"),
    [
        (["healthy"], [], 0),
        (["broken"], [], 1),
        (["broken", "healthy"], [], 1),
        (["broken"], ["--fail-on", "error"], 1),
        (["broken"], ["--fail-on", "never"], 0),
        (["broken"], ["--ignore", "SYM005"], 0),
        (["broken"], ["--ignore", "non-finite-weights"], 0),
        (["broken"], ["--select", "SYM004"], 0),
        (["torn"], [], 4),
        (["torn"], ["--fail-on", "never", "--ignore", "SYM001"], 4),
        (["torn", "broken"], [], 4),
        (["nothing"], [], 3),
        (["nothing", "healthy"], [], 4),
        (["healthy"], ["--select", "SYM9"], 2),
        (["healthy"], ["--no-such-option"], 2),
        (["healthy"], ["--output", "pdf=x"], 2),
    ],
)
def test_exit_code_is_the_same_in_every_format(request, tmp_path, names, flags, code, form):
    files = [tmp_path / "nothing.onnx" if name == "nothing" else request.getfixturevalue(name) for name in names]
    result = call("check", *files, *flags, "--format", form)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if form == "json" and code != 2:
        document = json.loads(result.stdout)
        assert document["exit_code"] == code
        assert document["verdict"] == {0: "pass", 1: "fail"}.get(code, "incomplete")


def test_json_is_the_documented_shape(broken):
    document = json.loads(call("check", broken, "--format", "json").stdout)
    assert list(document) == [
        "schema_version",
        "verdict",
        "exit_code",
        "symlint",
        "models",
        "acceptance",
        "unmet_mirrors",
        "unmet_equivariances",
        "unmet_inputs",
    ]
    (model,) = document["models"]
    assert list(model) == ["path", "sha256", "coverage", "findings", "skipped", "not_understood"]
    assert model["skipped"] == []
    assert set(model["coverage"]) == {"total", "covered", "pinned", "opaque", "understood"}
    (finding,) = (finding for finding in model["findings"] if finding["rule"] == "SYM005")
    assert list(finding) == [
        *(
            "rule",
            "name",
            "level",
            "evidence",
            "layer",
            "node",
            "op",
            "message",
            "space",
            "units",
            "tensors",
            "facts",
            "saves",
        ),
        *("fingerprint", "fixable", "stays", "accepted", "worse_than"),
    ]
    assert finding["accepted"] is None
    assert document["acceptance"] == {"baseline": None, "gone": [], "unused": [], "expired": []}
    assert finding["facts"]["NaN"] == 1
    assert finding["tensors"] == ["first.weight"]
    assert finding["saves"] == {"parameters": 0}


def test_an_unreadable_model_does_not_stop_the_others(torn, broken):
    models = json.loads(call("check", torn, broken, "--format", "json").stdout)["models"]
    assert [[finding["rule"] for finding in model["findings"]][:1] for model in models] == [["SYM001"], ["SYM005"]]
    assert models[0]["coverage"]["total"] == 0
    assert len(models[0]["sha256"]) == 64


@pytest.mark.parametrize("problem", [MemoryError(), RecursionError("deep"), KeyError("x")])
def test_a_surprise_in_one_model_is_an_entry_and_no_traceback(monkeypatch, healthy, broken, problem):
    import symlint.audit.engine

    real = symlint.audit.engine.examine

    def examine(model):
        if model.path.endswith("healthy.onnx"):
            raise problem
        return real(model)

    monkeypatch.setattr(symlint.audit.engine, "examine", examine)
    result = call("check", healthy, broken, "--format", "json")
    assert result.exit_code == 4
    models = json.loads(result.stdout)["models"]
    assert [model["findings"][0]["rule"] for model in models] == ["SYM001", "SYM005"]


def test_a_rule_that_stops_makes_the_audit_incomplete(monkeypatch, healthy):
    import symlint.lint.rule
    from symlint.lint.finding import Level

    def check(context):
        raise ZeroDivisionError("oh")
        yield

    crashing = symlint.lint.rule.Rule("SYM199", "crash", Level.NOTE, "exact", "A crash.", check)
    installed = (*symlint.lint.rule.rules(), crashing)
    monkeypatch.setattr(symlint.lint.rule, "rules", lambda: installed)
    result = call("check", healthy)
    assert result.exit_code == 4
    assert "ZeroDivisionError: oh" in " ".join(result.output.split())


def test_folders_are_searched_and_environments_are_not(monkeypatch, tmp_path, perceptron):
    expected = [perceptron(name) for name in ("a/one.onnx", "a/b/two.ONNX")]
    perceptron(".hidden/three.onnx")
    perceptron("env/lib/four.onnx")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    monkeypatch.chdir(tmp_path)
    models = json.loads(call("check", "--format", "json").stdout)["models"]
    assert {model["path"] for model in models} == {file.relative_to(tmp_path).as_posix() for file in expected}
    assert call("check", ".hidden").exit_code == 0


def test_several_outputs_in_one_run(tmp_path, broken):
    flags = [f"--output={form}={tmp_path / form}" for form in ("full", "json", "sarif")]
    result = call("check", broken, *flags, "--format", "json")
    assert json.loads((tmp_path / "json").read_text()) == json.loads(result.stdout)
    assert json.loads((tmp_path / "sarif").read_text())["version"] == "2.1.0"
    assert "error[non-finite-weights]" in (tmp_path / "full").read_text()


def test_text_is_plain_unless_colour_is_asked_for(broken, monkeypatch):
    assert "\x1b" not in call("check", broken).output
    colored = CliRunner().invoke(cli, ["check", str(broken), "--color", "always"], color=True)
    assert "\x1b[" in colored.output


def test_lines_fit_80_columns_and_hide_nothing(perceptron):
    file = perceptron("m.onnx", spoil)
    lines = call("check", file, "-v").output.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("first.weight" in line for line in lines)


@pytest.mark.parametrize("form", ["full", "concise"])
def test_quiet_says_nothing_of_a_clean_model(healthy, form):
    assert call("check", healthy, "--quiet", "--format", form).output == ""


@pytest.mark.parametrize("flags", [[], ["--quiet"], ["--format", "concise"], ["--format", "json"]])
def test_a_missing_model_is_told_in_every_format(tmp_path, flags):
    assert "no model found" in call("check", tmp_path, *flags).output


def test_concise_is_for_grep(monkeypatch, broken, torn):
    monkeypatch.chdir(broken.parent)
    finding, unread, total = call("check", broken.name, torn.name, "--format", "concise").output.splitlines()
    assert re.fullmatch(r"broken\.onnx: SYM005 \[error\] \S.*", finding)
    assert re.fullmatch(r"torn\.onnx: SYM001 \[error\] \S.*", unread)
    assert total.startswith("incomplete")


def test_names_cannot_steer_the_terminal(tmp_path, broken, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a\x1b[31m.onnx"
    file.write_bytes(broken.read_bytes())
    output = call("check", file.name).output
    assert "\x1b" not in output
    assert "\\x1b[31m" in output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('fail_on = "never"', "unknown setting 'fail_on'; did you mean 'fail-on'?"),
        ('fail-on = "warn"', "expected one of error, warning, note, never"),
        ('select = "SYM1"', "expected a list"),
        ('select = ["SYM55"]', "no rule 'SYM55'"),
        ('levels = { SYM005 = "fatal" }', "expected error, warning, note or off"),
        ("select = [", "symlint.toml"),
        ('select = ["SYM701"]', "symlint.toml: select: SYM701 speaks only with --target int8"),
        ('target = "float16"\nselect = ["unbalanced-scales"]', "speaks only with --target int8"),
        ('ignore = ["SYM55"]', "symlint.toml: ignore: no rule 'SYM55'"),
        ("rules.SYM101.error-share = -1", "SYM101.error-share: expected a finite number of at least 0, not -1"),
        ("rules.SYM101.error-share = nan", "expected a finite number"),
        ("rules.SYM101.share = 1", "symlint.toml: rules: SYM101 has no threshold 'share'"),
        ("levels = { SYM005 = [] }", "expected error, warning, note or off"),
        ('[tool.symlint]\nselect = ["SYM1"]', "in symlint.toml the keys stand at the top"),
    ],
)
def test_a_wrong_setting_is_one_line(monkeypatch, tmp_path, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symlint.toml").write_text(text)
    result = call("check")
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "flags", "code"),
    [
        ('fail-on = "never"', [], 0),
        ('fail-on = "never"', ["--fail-on", "note"], 1),
        ('ignore = ["SYM0"]', [], 0),
        ('ignore = ["SYM0"]\nselect = ["SYM005"]', [], 1),
        ('ignore = ["SYM005"]', ["--ignore", "SYM004"], 1),
        ('levels = { SYM005 = "note" }', [], 0),
        ('levels = { SYM0 = "note", SYM005 = "warning" }', [], 1),
        ('levels = { non-finite-weights = "off" }', ["--fail-on", "note"], 0),
        ('target = ""', ["--select", "sym005"], 1),
        ('target = "int8"', ["--select", "SYM7"], 0),
        ("", ["--select", "SYM7"], 2),
    ],
)
@pytest.mark.parametrize("name", ["symlint.toml", "pyproject.toml"])
def test_settings_come_from_the_nearest_file_and_flags_win(monkeypatch, tmp_path, broken, text, flags, code, name):
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / name).write_text(text if name == "symlint.toml" else f"[tool.symlint]\n{text}")
    (below / "pyproject.toml").write_text("[tool.other]")
    monkeypatch.chdir(below)
    assert call("check", broken, *flags).exit_code == code


def test_config_shows_origins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symlint.toml").write_text('ignore = ["SYM004"]')
    output = call("config").output
    assert f'ignore   = ["SYM004"]  # {tmp_path / "symlint.toml"}' in output
    assert 'fail-on  = "warning"  # default' in output


def test_rule_lists_and_prints(root):
    listed = call("rule").output
    assert "SYM005  error    --  non-finite-weights: Weights are NaN" in listed
    assert "SYM101  warning  F-  dead-unit" in listed
    assert "SYM202  warning  -O  near-duplicate-units" in listed
    assert max(map(len, listed.splitlines())) <= 80
    assert "## Repair" in call("rule", "SYM005").output
    assert call("rule", "non-finite-weights").output == call("rule", "SYM005").output
    assert "unreadable-model" in call("rule", "SYM00").output
    assert json.loads(call("rule", "SYM005", "--format", "json").stdout)["rules"][0]["code"] == "SYM005"
    unknown = call("rule", "SYM05")
    assert unknown.exit_code == 2
    assert "did you mean" in unknown.stderr


def test_inspect_json_is_the_documented_shape(healthy, torn):
    document = json.loads(call("inspect", healthy, "--format", "json").stdout)
    assert list(document) == [
        "schema_version",
        "model",
        "parameters",
        "dimension",
        "spaces",
        "generators",
        "opaque",
        "states",
    ]
    assert document["model"]["path"] == str(healthy)
    assert set(document["parameters"]) == {"total", "covered", "pinned", "opaque", "understood"}
    for space in document["spaces"]:
        assert list(space) == ["id", "size", "copies", "name", "tensors", "why"]
    for generator in document["generators"]:
        assert set(generator) == {"id", "kind", "space", "group", "dimension", "exact", "tensors"}
    unread = call("inspect", torn, "--format", "json")
    assert unread.exit_code == 4
    assert json.loads(unread.stdout)["error"]["rule"] == "SYM001"


@pytest.mark.parametrize("flags", [[], ["-v"]])
def test_inspect_table_fits(healthy, flags):
    result = call("inspect", healthy, *flags)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    for words in ("S1", "6 units", "permutation", "first.weight", "second.weight", "continuous"):
        assert words in result.output


def test_inspect_csv_and_dot(healthy, torn):
    document = json.loads(call("inspect", healthy, "--format", "json").stdout)
    lines = call("inspect", healthy, "--format", "csv").stdout.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["generator", *(g["id"] for g in document["generators"])]
    graph = call("inspect", healthy, "--format", "dot").stdout
    assert graph.startswith("digraph symlint {")
    for weight, axis in (("first.weight", 0), ("first.bias", 0), ("second.weight", 1)):
        key = re.search(rf'"(t\d)" \[shape=box, label="{weight}', graph)[1]
        arrow = f'"space S1" -> "{key}"' if axis else f'"{key}" -> "space S1"'
        assert f'{arrow} [xlabel="axis {axis}"]' in graph
    for form in ("table", "csv", "dot"):
        unread = call("inspect", torn, "--format", form)
        assert (unread.exit_code, unread.stdout) == (4, "")


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("model", "lines"),
    [
        ("gpt2", ["h.{0,1}.attn.c_attn.weight e, q(h dk)+k(h dk)+v(h dv)"]),
        ("bert", ["encoder.layer.{0,1}.attention.self.query.weight* e, (h dk)"]),
        ("resnet18", ["layer1.{0,1}.conv1.weight* c1, e1, 3, 3", "fc.weight 10, e4"]),
        ("vit_timm", ["blocks.{0,1}.attn.qkv.weight* e, q(h dk)+k(h dk)+v(h dv)"]),
    ],
)
def test_inspect_reads_like_a_paper(shared, model, lines):
    output = " ".join(call("inspect", shared / "zoo" / f"{model}.onnx").stdout.split())
    for line in lines:
        assert line in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "no.onnx"),
        ("inspect", "no.onnx"),
        ("inspect", "no.onnx", "--format", "json"),
        ("fix", "no.onnx", "--dry-run"),
        ("verify", "no.onnx"),
        ("teleport", "no.onnx", "-o", "out.onnx"),
        ("diff", "no.onnx", "no.onnx"),
    ],
)
def test_a_path_without_a_model_is_exit_code_3_in_every_command(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments).exit_code == 3


def test_a_folder_without_a_model_is_told_as_one(tmp_path):
    result = call("fix", str(tmp_path), "--dry-run")
    assert result.exit_code == 3
    assert "no *.onnx in this folder" in result.stderr


def test_colours_are_forced_by_the_environment_and_by_the_option(monkeypatch, healthy):
    def colored(*flags: str) -> bool:
        return "\x1b[" in CliRunner().invoke(cli, ["check", str(healthy), *flags], color=True).output

    assert not colored()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert colored()
    assert not colored("--color", "never")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored()
    assert colored("--color", "always")


def test_codes_and_names_are_completed():
    from symlint.cli.commands.options import codes

    assert [item.value for item in codes(None, None, "SYM005,SYM10")][:2] == ["SYM005,SYM101", "SYM005,SYM102"]
    assert [item.value for item in codes(None, None, "dead-u")] == ["dead-unit"]
    assert [item.help for item in codes(None, None, "dead-u")] == ["SYM101"]


@pytest.mark.parametrize("arguments", [("teleport", "-o", "x", "--seed", "-1"), ("verify", "--seed", "-1")])
def test_options_out_of_range_are_errors(healthy, arguments):
    assert call(arguments[0], healthy, *arguments[1:]).exit_code == 2


def test_doctor_names_versions():
    result = call("doctor")
    assert result.exit_code == 0
    assert "onnxruntime" in result.output
    assert "symlint_rules" in result.output


def test_an_unknown_command_suggests():
    result = call("chek")
    assert result.exit_code == 2
    assert "did you mean 'check'?" in result.output


def test_an_internal_error_is_one_line_without_debug(monkeypatch, caplog):
    import symlint.lint.rule

    monkeypatch.setattr(symlint.lint.rule, "entry_points", lambda group: 1 / 0)
    symlint.lint.rule.rules.cache_clear()
    result = call("check")
    assert result.exit_code == 2
    assert "ZeroDivisionError" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not caplog.records
    assert call("--debug", "check").exit_code == 2
    assert caplog.records[0].exc_info


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_says_what_the_table_says(name):
    result = call(name, "--help")
    assert result.exit_code == 0, result.output
    assert COMMANDS[name][1].rstrip(".") in " ".join(result.output.split())


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_quick_and_imports_nothing_heavy(name):
    probe = (
        "import sys; from click.testing import CliRunner; from symlint.cli.main import cli;"
        "assert CliRunner().invoke(cli, [*sys.argv[1:], '--help']).exit_code == 0;"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'onnx_ir', 'rich', 'networkx') if m in sys.modules])"
    )
    command = [sys.executable, "-c", probe, *name.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_thread_is_asked_for_before_numpy_is_there(root):
    """Several threads on small matrices wait for each other: a check of a large network took three times as long."""
    probe = (
        "import os, sys\n"
        "class Told:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'numpy':\n"
        "            print(os.environ.get('OPENBLAS_NUM_THREADS'), file=sys.stderr)\n"
        "sys.meta_path.insert(0, Told())\n"
        "from symlint.cli.main import main\n"
        "main()"
    )
    command = [sys.executable, "-c", probe, "check", str(root / "fixtures" / "healthy_cnn.onnx")]
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=free)
    assert done.stderr.splitlines()[:1] == ["1"]


def test_a_check_imports_what_it_needs(root):
    """What edits files, what runs networks, what numpy has no types for and what evaluates rare operators stay away."""
    heavy = {"onnxruntime", "onnx_ir", "sympy", "onnx.reference", "ml_dtypes._finfo", "symlint.repair", "difflib"}
    probe = (
        "import atexit, sys; from symlint.cli.main import main; atexit.register(lambda: print(*sys.modules)); main()"
    )
    command = [sys.executable, "-c", probe, "check", str(root / "fixtures" / "healthy_cnn.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "onnx" in done.stdout.split()
    assert not heavy & set(done.stdout.split())


def test_types_that_numpy_lacks_are_imported_where_a_model_has_them(tmp_path):
    weights = np.random.default_rng(0).standard_normal((2, 8, 8)).astype(ml_dtypes.bfloat16)
    weights[0][:, 3] = 0
    stored = {"first": weights[0], "second": weights[1]}
    text = "a = MatMul(x, first) b = Relu(a) y = MatMul(b, second)"
    path = written(tmp_path / "halves.onnx", text, stored, (1, 8), (1, 8), kinds=(16, 16))
    result = call("check", path, "-f", "json")
    command = [sys.executable, "-m", "symlint", "check", str(path), "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (result.exit_code, result.stdout)
    assert any(finding["rule"] == "SYM101" for finding in json.loads(done.stdout)["models"][0]["findings"])


def test_help_imports_hardly_more_than_click():
    def imported(*arguments: str) -> set[str]:
        command = [sys.executable, "-X", "importtime", *arguments]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        return {line.rpartition("|")[2].strip() for line in told.splitlines()}

    assert len(imported("-m", "symlint", "--help") - imported("-c", "import click")) <= 60


def test_python_m_symlint(healthy):
    done = subprocess.run(
        [sys.executable, "-m", "symlint", "check", str(healthy), "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "pass"


def test_the_process_ends_with_all_its_output_its_exit_code_and_what_others_left_to_do(healthy):
    probe = "import atexit, sys; from symlint.cli.main import main; atexit.register(print, 'left to do'); main()"
    command = [sys.executable, "-c", probe, "check", str(healthy), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left to do\n", "")
    wrong = subprocess.run([*command, "--no-such-option"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "left to do\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
def test_output_that_does_not_arrive_is_no_success(healthy):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "symlint", "check", str(healthy)]
        assert subprocess.run(command, stdout=full, stderr=subprocess.DEVNULL, check=False).returncode != 0


def test_sizes_of_a_run_do_not_depend_on_the_way_a_file_is_named(monkeypatch, healthy):
    monkeypatch.chdir(healthy.parent)
    models = json.loads(call("check", "healthy.onnx", healthy, Path("..") / healthy.parent.name, "-f", "json").stdout)
    assert [model["path"] for model in models["models"]] == ["healthy.onnx"]


def test_the_readme_shows_what_is_printed(root, monkeypatch):
    monkeypatch.chdir(root)
    printed = call("check", "fixtures/decayed_cnn.onnx").output.rstrip()
    readme = (root / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^```\n(fixtures/decayed_cnn.*?)\n```$", readme, re.DOTALL | re.MULTILINE)
    seconds = re.compile(r"[\d.]+ s$")
    assert shown, f"the README shows no output; it should be:\n{printed}"
    assert seconds.sub("", shown[1]) == seconds.sub("", printed)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("healthy_cnn", set()),
        ("decayed_cnn", {("SYM101", 1), ("SYM101", 8), ("SYM101", 9), ("SYM101", 15)}),
        ("collinear_mlp", {("SYM101", 4), ("SYM201", 20)}),
        ("low_rank_encoder", {("SYM301", 0)}),
    ],
)
def test_trained_networks_show_what_symmetry_predicts(root, model, expected):
    installed = {rule.code for rule in rules()}
    (report,) = json.loads(call("check", root / "fixtures" / f"{model}.onnx", "--format", "json").stdout)["models"]
    found = {(f["rule"], len(f["units"])) for f in report["findings"] if f["level"] != "note"}
    assert found == {(code, units) for code, units in expected if code in installed}
