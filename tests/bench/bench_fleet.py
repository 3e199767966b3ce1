"""What `symlint check --jobs` gains over one job, and that whoever dies loses nothing and repeats nothing.

    python tests/bench/bench_fleet.py [--models 500] [--model fixtures/decayed_cnn.onnx] [--dask]

Copies of a small network get other weights each. One job and two audit them, each with a cache of its own; then two
jobs are killed midway, and go on. `--dask` starts a scheduler and two workers on this machine, and kills one of them
midway (`pip install 'symlint[dask]'`). Lines have to be the same bytes each time, and reports that were kept are never
written again. CPU seconds are those of all processes; on a machine that does something else at once, they tell more
than the clock, and the load is told with them.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = Path(__file__).parents[2]


def copies(source: Path, folder: Path, number: int) -> None:
    """So many networks, every weight changed by about a hundredth."""
    model, rng = onnx.load(source), np.random.default_rng(0)
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    for k in range(number):
        for tensor, values in zip(model.graph.initializer, weights, strict=True):
            if values.dtype.kind == "f":
                changed = values * (1 + 0.01 * rng.standard_normal(values.shape))
                tensor.CopyFrom(numpy_helper.from_array(changed.astype(values.dtype), tensor.name))
        onnx.save(model, folder / f"model{k:04}.onnx")


@dataclass(frozen=True, slots=True)
class Bench:
    """Models, and where caches are to be."""

    folder: Path

    def start(self, cache: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "symlint", "check", "models", "-f", "jsonl", "--cache", cache, *flags]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE)

    def run(self, cache: str, *flags: str) -> tuple[bytes, float, float]:
        """The lines, and seconds on the clock and of all processes."""
        begun = time.perf_counter()
        process = self.start(cache, *flags)
        assert process.stdout
        lines = process.stdout.read()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        return lines, time.perf_counter() - begun, used.ru_utime + used.ru_stime

    def kept(self, cache: str) -> dict[str, int]:
        """Every report that is kept, and the file that it is: another one when it is written again."""
        files = (self.folder / cache).glob("*.json")
        return {file.name: file.stat().st_ino for file in files}


def read(process: subprocess.Popen[bytes], lines: int) -> None:
    """Wait for so many lines."""
    assert process.stdout
    for _ in range(lines):
        process.stdout.readline()


def compared(bench: Bench, number: int) -> bytes:
    """One job beside two."""
    alone, clock, cpu = bench.run("alone", "--jobs", "1")
    together, clock2, cpu2 = bench.run("together", "--jobs", "2")
    assert together == alone, "two jobs say something else than one"
    assert alone.count(b"\n") == number
    print(f"one job   {clock:7.1f} s, {cpu:7.1f} s of CPU")
    print(f"two jobs  {clock2:7.1f} s, {cpu2:7.1f} s of CPU: {clock / clock2:.2f} times as fast on the clock;")
    print(f"          {2 * cpu / cpu2:.2f} times where both cores are free; load {os.getloadavg()[0]:.1f}")
    return alone


def resumed(bench: Bench, number: int, expected: bytes) -> None:
    """Two jobs are killed midway, and go on."""
    process = bench.start("killed", "--jobs", "2")
    read(process, number // 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(3)  # its children notice by themselves
    kept = bench.kept("killed")
    lines, clock, _ = bench.run("killed", "--jobs", "2")
    unchanged(bench, "killed", kept, number)
    assert lines == expected, "what goes on says something else"
    print(f"killed with {len(kept)} of {number} reports kept; the rest {clock:.1f} s: nothing lost, nothing done twice")


def unchanged(bench: Bench, cache: str, before: dict[str, int], number: int) -> None:
    """Every report is there, and none of those that were has been written again."""
    now = bench.kept(cache)
    assert len(now) == number, f"{len(now)} reports of {number}"
    assert all(now[name] == mark for name, mark in before.items()), "a report was written again"


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, Sequence[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, by its address."""
    address = folder / "scheduler.json"
    where = ["--scheduler-file", str(address)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    dask = [sys.executable, "-m", "dask"]
    started = [subprocess.Popen([*dask, "scheduler", "--port", "0", "--no-dashboard", *where], **quiet)]
    try:
        while not address.exists():
            time.sleep(0.1)
        worker = [*dask, "worker", *where, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        started += [subprocess.Popen(worker, **quiet) for _ in range(2)]
        import json

        yield json.loads(address.read_text())["address"], started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


def distributed(bench: Bench, number: int, expected: bytes) -> None:
    """On a cluster of two workers, one of which is killed midway."""
    with cluster(bench.folder) as (address, workers):
        begun = time.perf_counter()
        process = bench.start("cluster", "--dask", address)
        assert process.stdout
        head = b"".join(process.stdout.readline() for _ in range(number // 2))
        workers[0].kill()
        kept = bench.kept("cluster")
        lines = head + process.communicate()[0]
        unchanged(bench, "cluster", kept, number)
        assert lines == expected, "a cluster says something else"
        seconds = time.perf_counter() - begun
        print(
            f"on Dask, a worker killed with {len(kept)} reports kept: {seconds:.1f} s, nothing lost, nothing done twice"
        )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--model", type=Path, default=ROOT / "fixtures" / "decayed_cnn.onnx")
    parser.add_argument("--dask", action="store_true")
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="symlint-") as name:
        bench = Bench(Path(name))
        (bench.folder / "models").mkdir()
        copies(asked.model, bench.folder / "models", asked.models)
        expected = compared(bench, asked.models)
        resumed(bench, asked.models, expected)
        if asked.dask:
            distributed(bench, asked.models, expected)


if __name__ == "__main__":
    main()
