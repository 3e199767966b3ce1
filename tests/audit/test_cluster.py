"""On a Dask cluster: the same reports, also where a worker is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from corpora import FIXTURES

from symlint.cli.main import cli

NAMES = ("collinear_mlp", "decayed_cnn", "healthy_cnn", "low_rank_encoder")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler, and its two workers."""
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    address = tmp_path / "scheduler.json"
    dask, where = [sys.executable, "-m", "dask"], ["--scheduler-file", str(address)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([*dask, "scheduler", "--port", "0", "--no-dashboard", *where], **quiet)]
    try:
        end = time.monotonic() + 60
        while not address.exists() and time.monotonic() < end:
            time.sleep(0.05)
        worker = [*dask, "worker", *where, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        started += [subprocess.Popen([*worker, "--local-directory", str(tmp_path)], **quiet) for _ in range(2)]
        yield json.loads(address.read_text())["address"], started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_cluster_says_what_one_process_says(cluster, tmp_path):
    """And goes on when one of its workers is killed; the cache is that of all of them."""
    address, workers = cluster
    folder = tmp_path / "models"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(FIXTURES / f"{name}.onnx", folder)
    (folder / "broken.onnx").write_bytes(b"no model")
    alone = call("check", folder, "-f", "jsonl")
    asked = ["check", folder, "--dask", address, "-f", "jsonl"]
    together = call(*asked, "--no-cache")
    assert (together.exit_code, together.stdout) == (4, alone.stdout)
    workers[0].kill()
    assert call(*asked, "--cache", tmp_path / "cache").stdout == alone.stdout
    kept = {file: file.stat().st_ino for file in (tmp_path / "cache").glob("*.json")}
    assert len(kept) == len(NAMES)
    assert call("check", folder, "--jobs", 2, "--cache", tmp_path / "cache", "-f", "jsonl").stdout == alone.stdout
    assert {file: file.stat().st_ino for file in kept} == kept


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = call("check", FIXTURES, "--dask", "tcp://none:1", "--no-cache")
    assert result.exit_code == 2
    assert result.output == (
        "symlint: --dask tcp://none:1: Dask is not installed, and the extra `dask` brings it: "
        "pip install 'symlint[dask]'\n"
    )


def test_processes_or_a_cluster():
    result = call("check", FIXTURES, "--dask", "tcp://none:1", "--jobs", 2)
    assert (result.exit_code, "choose one of --jobs and --dask" in result.output) == (2, True)


def test_where_no_scheduler_answers_one_line_says_so(monkeypatch):
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    monkeypatch.setattr("symlint.audit.fleet._PATIENCE", 0.2)
    result = call("check", FIXTURES, "--dask", "tcp://127.0.0.1:1", "--no-cache")
    assert result.exit_code == 2
    assert "symlint: --dask tcp://127.0.0.1:1: no scheduler answers: " in result.output
