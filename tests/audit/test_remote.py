"""Models at addresses: fetched with what belongs to them, audited as if they were here, and told by their address."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from corpora import FIXTURES
from onnx.external_data_helper import convert_model_to_external_data

from symlint.audit.engine import find
from symlint.cli.main import cli

NAMES = ("decayed_cnn", "healthy_cnn")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def findings(result: Result) -> dict[str, Any]:
    return {model["path"]: (model["sha256"], model["findings"]) for model in json.loads(result.stdout)["models"]}


@pytest.fixture
def memory() -> Iterator[Any]:
    fsspec = pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as packed:
        for name in NAMES:
            packed.write(FIXTURES / f"{name}.onnx", f"nets/{name}.onnx")
        packed.writestr("nets/.old/hidden.onnx", b"")
        packed.writestr("nets/readme.txt", b"")
    return tmp_path / "models.zip"


def test_a_folder_elsewhere_is_audited_as_one_here(memory):
    for name in NAMES:
        memory.pipe(f"/nets/{name}.onnx", (FIXTURES / f"{name}.onnx").read_bytes())
    result = call("check", "memory://nets", "-f", "json")
    here = findings(call("check", *(FIXTURES / f"{name}.onnx" for name in NAMES), "-f", "json"))
    assert result.exit_code == 1
    assert list(findings(result)) == [f"memory:///nets/{name}.onnx" for name in NAMES]
    assert list(findings(result).values()) == list(here.values())


def test_processes_fetch_for_themselves_and_know_the_content(archive, tmp_path):
    """In the order of the addresses, from the cache as well; a copy here is known, too."""
    arguments = ["check", f"zip://nets::{archive}", "--jobs", 2, "--cache", tmp_path / "cache", "-f", "jsonl"]
    first = call(*arguments)
    addresses = [f"zip://nets/{name}.onnx::{archive}" for name in NAMES]
    assert [json.loads(line)["path"] for line in first.stdout.splitlines()] == addresses
    assert call(*arguments).stdout == first.stdout
    (tmp_path / "cache" / "one.json").touch()
    call("check", FIXTURES / f"{NAMES[0]}.onnx", "--cache", tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.json"))) == 3


def test_external_data_come_along_from_the_models_folder_alone(memory, perceptron, tmp_path):
    model = onnx.load(perceptron())
    convert_model_to_external_data(model, location="data/weights.bin", size_threshold=0)
    (tmp_path / "data").mkdir()
    onnx.save(model, saved := tmp_path / "external.onnx")
    memory.pipe("/nets/external.onnx", saved.read_bytes())
    address = "memory://nets/external.onnx"
    missing = call("check", address)
    assert missing.exit_code == 4
    assert "external data file 'data/weights.bin' is missing" in " ".join(missing.output.split())
    memory.pipe("/nets/data/weights.bin", (tmp_path / "data" / "weights.bin").read_bytes())
    assert call("check", address).exit_code == 0
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../data/weights.bin"
    memory.pipe("/nets/external.onnx", model.SerializeToString())
    memory.pipe("/data/weights.bin", b"secret")
    outside = call("check", address)
    assert outside.exit_code == 4
    assert "lies outside of the model's folder" in " ".join(outside.output.split())


def test_what_is_not_there_is_told(memory):
    memory.pipe("/nets/text.onnx", b"no model")
    assert call("check", "memory://none.onnx").exit_code == 3
    assert "of what looks like text" in " ".join(call("check", "memory://nets/text.onnx").output.split())
    result = call("check", "nothing://a/model.onnx")
    assert result.exit_code == 2
    assert "nothing" in result.output
    assert len(result.output.splitlines()) == 1


def test_a_store_that_fails_is_told_of_its_model(memory, monkeypatch):
    memory.pipe("/nets/a.onnx", b"")

    def fail(*arguments: object) -> None:
        raise RuntimeError("no credentials\nwere found")

    monkeypatch.setattr(type(memory), "get_file", fail)
    result = call("check", "memory://nets/a.onnx", "-f", "json")
    assert result.exit_code == 4
    (model,) = json.loads(result.stdout)["models"]
    assert model["findings"][0]["message"] == "cannot be fetched: no credentials were found"


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    result = call("check", "s3://bucket/model.onnx")
    assert result.exit_code == 2
    assert result.output == (
        "symlint: s3://bucket/model.onnx: fsspec is not installed, and the extra `remote` brings it: "
        "pip install 'symlint[remote]'\n"
    )


@pytest.fixture
def bucket(memory: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store that fsspec takes for S3."""
    import fsspec

    class Bucket(type(memory)):  # type: ignore[misc]
        protocol, store, pseudo_dirs = "s3", {}, [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.removeprefix("s3://").strip("/")

        def unstrip_protocol(self, name: str) -> str:
            return f"s3://{name}"

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Bucket)
    return fsspec.filesystem("s3")


def test_a_bucket_is_read_with_external_data_and_archives_in_it(bucket, archive, tmp_path):
    model = onnx.load(FIXTURES / "healthy_cnn.onnx")
    convert_model_to_external_data(model, location="data/weights.bin", size_threshold=0)
    (tmp_path / "data").mkdir()
    onnx.save(model, tmp_path / "external.onnx")
    for name in ("external.onnx", "data/weights.bin"):
        bucket.pipe(f"b/nets/{name}", (tmp_path / name).read_bytes())
    bucket.pipe("b/nets/decayed.onnx", (FIXTURES / "decayed_cnn.onnx").read_bytes())
    bucket.pipe("b/models.zip", archive.read_bytes())
    result = call("check", "s3://b/nets", "zip://nets::s3://b/models.zip", "-f", "json")
    assert result.exit_code == 1
    assert list(findings(result)) == [
        "s3://b/nets/decayed.onnx",
        "s3://b/nets/external.onnx",
        *(f"zip://nets/{name}.onnx::s3://b/models.zip" for name in NAMES),
    ]
    assert call("check", "s3://b/none").exit_code == 3
    told = call("inspect", "s3://b/nets/decayed.onnx")
    assert told.exit_code == 3
    assert "no such file here, and of the commands `symlint check` alone fetches models" in told.output


@pytest.mark.parametrize(
    ("address", "module"),
    [
        ("s3://b/m.onnx", "s3fs"),
        ("gs://b/m.onnx", "gcsfs"),
        ("hf://o/n/m.onnx", "huggingface_hub"),
        ("zip://m.onnx::s3://b/m.zip", "s3fs"),
    ],
)
def test_what_reaches_a_store_is_named_where_it_is_missing(address, module, monkeypatch):
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    monkeypatch.setitem(sys.modules, module, None)
    result = call("check", address)
    assert result.exit_code == 2
    assert result.output == (
        f"symlint: {address}: {module} is not installed, and the extra `remote` brings it: "
        "pip install 'symlint[remote]'\n"
    )


def test_baselines_and_other_formats_name_addresses(memory, tmp_path):
    memory.pipe("/nets/decayed_cnn.onnx", (FIXTURES / "decayed_cnn.onnx").read_bytes())
    address, base = "memory:///nets/decayed_cnn.onnx", tmp_path / "base.json"
    call("check", address, "--write-baseline", base)
    assert list(json.loads(base.read_text())["models"]) == [address]
    assert call("check", address, "--baseline", base).exit_code == 0
    (run,) = json.loads(call("check", address, "-f", "sarif").stdout)["runs"]
    assert run["artifacts"][0]["location"]["uri"] == address


def test_paths_keep_their_order_and_are_named_once(tmp_path, monkeypatch):
    monkeypatch.chdir(FIXTURES)
    listed = {"s3://b": ["s3://b/1.onnx", "s3://b/2.onnx"]}
    paths = [
        "healthy_cnn.onnx",
        "s3://b",
        "decayed_cnn.onnx",
        "s3://b",
        "s3://none",
        str(FIXTURES / "healthy_cnn.onnx"),
    ]
    files, missing = find(paths, listed=lambda address: listed.get(address, []))
    assert files == ("healthy_cnn.onnx", "s3://b/1.onnx", "s3://b/2.onnx", "decayed_cnn.onnx")
    assert missing == ("s3://none",)
