"""onnxruntime, in a child process whose death is an ordinary answer.

`main` is the child: it runs the models of a job file on one set of inputs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from symlint.model.graph import Array
from symlint.runtime import child_process

TIME_LIMIT = 600


@dataclass(frozen=True, slots=True)
class Run:
    """The outputs of one model, or why there are none."""

    outputs: tuple[Array, ...] = ()
    failure: str | None = None


def run(models: Sequence[Path], feeds: Mapping[str, Array]) -> list[Run]:
    """Run each model file on the same inputs, without graph optimisation."""
    return run_each(models, [feeds])


def run_each(models: Sequence[Path], feeds: Sequence[Mapping[str, Array]]) -> list[Run]:
    """Run each model file on several sets of inputs of the same names; its outputs for one stand behind the other's."""
    with TemporaryDirectory(prefix="symlint-") as folder:
        job = Path(folder)
        for k, each in enumerate(feeds):
            _save(job / f"feeds{k}.npz", "f", list(each.values()))
        description = {"models": [str(m.resolve()) for m in models], "names": list(feeds[0]), "feeds": len(feeds)}
        (job / "job.json").write_text(json.dumps(description))
        command = child_process.command("symlint.runtime.session", str(job))
        try:
            done = subprocess.run(
                command,
                env=child_process.environment(),
                capture_output=True,
                text=True,
                timeout=TIME_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            done = subprocess.CompletedProcess(command, 1, "", f"no answer within {TIME_LIMIT} s")
        return [_result(job, k, done) for k in range(len(models))]


def arrays_of(output: Any) -> list[Array]:
    """The arrays of an output: lists and tables are taken apart, and strings have a fixed length."""
    if isinstance(output, dict):
        return [np.asarray([output[key] for key in sorted(output)])]
    if isinstance(output, list):
        return [leaf for item in output for leaf in arrays_of(item)]
    if output is None:
        return []
    array = np.asarray(output)
    return [array.astype(str) if array.dtype == object else array]


def _save(path: Path, letter: str, arrays: Sequence[Array]) -> None:
    named: dict[str, Any] = {f"{letter}{k}": array for k, array in enumerate(arrays)}
    np.savez(path, **named)


def _result(job: Path, k: int, done: subprocess.CompletedProcess[str]) -> Run:
    if (job / f"out{k}.npz").exists():
        with np.load(job / f"out{k}.npz") as saved:
            return Run(tuple(saved[f"y{i}"] for i in range(len(saved.files))))
    if (job / f"error{k}.txt").exists():
        return Run(failure=(job / f"error{k}.txt").read_text())
    if done.returncode < 0:
        return Run(failure=f"onnxruntime died of signal {-done.returncode}")
    return Run(failure=(done.stderr.strip().splitlines() or ["onnxruntime gave no answer"])[-1][:300])


def main(folder: str) -> None:
    """The child: run every model of a job and leave its outputs, or the reason of its failure, in the folder."""
    import onnxruntime as ort

    job = Path(folder)
    description = json.loads((job / "job.json").read_text())
    feeds: list[dict[str, Array]] = []
    for number in range(description["feeds"]):
        with np.load(job / f"feeds{number}.npz") as saved:
            feeds.append({name: saved[f"f{k}"] for k, name in enumerate(description["names"])})
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for k, path in enumerate(description["models"]):
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            arrays = [y for each in feeds for output in session.run(None, each) for y in arrays_of(output)]
            _save(job / f"part{k}.npz", "y", arrays)
            (job / f"part{k}.npz").rename(job / f"out{k}.npz")
        except Exception as error:
            (job / f"error{k}.txt").write_text(" ".join(str(error).split())[:300])
