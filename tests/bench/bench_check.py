"""What `symlint check` costs beside what else reads a model: whole processes, one thread each, in turn, medians.

    pip install '.[compare,bench]'
    python tests/bench/bench_check.py [FILE | NAME ...] [--forms] [--runs N] [--keep FOLDER] [--json FILE.json]
    python tests/bench/bench_check.py --quick
    python tests/bench/bench_check.py --growth .github/growth.svg

The networks are made by `sizes.py`, which knows their names, with random weights. The table goes to stdout as Markdown,
a row for each tool; CPU seconds, seconds on the clock and peak megabytes for each model. `--quick` needs no PyTorch and
has smaller networks and few tools. `--growth` draws CPU and memory over parameters, width and nodes. No figure is
asserted: what guards against regressions counts (`tests/analysis/test_counts.py`), since no two machines take one time.
"""

# ruff: noqa: T201  (a script talks)
# This process imports little on purpose: what it has held would count as the peak of the children that it starts.
from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from subprocess import DEVNULL
from tempfile import TemporaryDirectory, TemporaryFile

SIZES = Path(__file__).with_name("sizes.py")
LOAD = """
import numpy, onnx, sys
from onnx.numpy_helper import to_array
model = onnx.load(sys.argv[1])
constants = (a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value")
for weight in (*model.graph.initializer, *constants):
    numbers = to_array(weight)
    if numbers.size:
        numpy.ascontiguousarray(numbers).reshape(-1).view(numpy.uint8).max()
"""
CHECK = "import onnx, sys; onnx.checker.check_model(sys.argv[1], full_check=True)"
SESSION = """
import sys, onnxruntime
onnxruntime.set_default_logger_severity(4)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
WATCH = "import onnx, sys, weightwatcher; weightwatcher.WeightWatcher(model=onnx.load(sys.argv[1])).analyze()"
PROFILE = """
import cProfile, pstats, sys
from symlint.cli.main import cli
watch = cProfile.Profile()
try:
    watch.runcall(cli, ["check", sys.argv[1]])
finally:
    pstats.Stats(watch).sort_stats("tottime").print_stats(40)
"""
QUIET = {
    # Every tool runs as it is installed, compiled: what an editable installation lacks its first run writes.
    "PYTHONDONTWRITEBYTECODE": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # None of the tools may ask anything outside of this machine, or install what it lacks.
    "POLYGRAPHY_AUTOINSTALL_DEPS": "0",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "NO_ANALYTICS": "1",
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A command, which gets the file as its last argument."""

    command: Sequence[str]
    needs: str = ""
    """The module without which it is not installed."""
    quick: bool = False
    answers: Sequence[int] = (0,)
    """Exit codes of a run that did its work."""

    def installed(self) -> bool:
        return bool(which(self.command[0])) and (not self.needs or find_spec(self.needs) is not None)


def _beside(name: str) -> str:
    """The script of a package that lies where this Python does."""
    return str(Path(sys.executable).parent / name)


TOOLS = {
    "symlint check": Tool([sys.executable, "-m", "symlint", "check", "-f", "concise"], "symlint", True, (0, 1)),
    "sha256sum": Tool(["sha256sum"], quick=True),
    "onnx.load, each weight read once": Tool([sys.executable, "-c", LOAD], "onnx", True),
    "onnx.checker": Tool([sys.executable, "-c", CHECK], "onnx", True),
    "onnxruntime session": Tool([sys.executable, "-c", SESSION], "onnxruntime", True),
    "onnx-doctor": Tool([_beside("onnx-doctor"), "check"], "onnx_doctor", answers=(0, 1)),
    "polygraphy check lint": Tool([_beside("polygraphy"), "check", "lint"], "onnx_graphsurgeon", answers=(0, 1)),
    "modelaudit": Tool([_beside("modelaudit"), "scan", "--no-cache"], "modelaudit", answers=(0, 1, 2)),
    "WeightWatcher": Tool([sys.executable, "-c", WATCH], "weightwatcher"),
}
CHECKED, LIMITED = "symlint check", "onnxruntime session"
MODELS = ("resnet50", "vit_b16", "bert_base", "gpt2", "enc_vocab", "decoder_1b3", "nodes20k")
FORMS = tuple(f"{name}_{form}" for name in ("bert_base", "gpt2") for form in ("planted", "fp16", "dyn"))
QUICK = ("convolutional", "transformer-4x768", "encoder-90")
GROWTH: dict[str, dict[str, float]] = {
    "parameters, 768 wide": {f"transformer-{n}x768": n * 7.087872 for n in (1, 2, 4, 8, 16, 32, 64)},
    "width, 2 layers": {f"transformer-2x{n}": n for n in (128, 256, 512, 1024, 2048, 4096)},
    "nodes, 16 wide": {f"encoder-{n}": 28 * n + 1 for n in (22, 89, 179, 357, 715)},
}
"""Panel -> network -> where it stands on the panel's axis; the first one in millions."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process."""

    cpu: float
    wall: float
    peak: float
    """In megabytes of 10^6 bytes, as the sizes of files are told."""
    code: int
    said: str = ""
    """The last line of what went wrong."""


@dataclass(slots=True)
class Cell:
    """The runs of a tool on a model."""

    runs: list[Run] = field(default_factory=list)
    note: str = ""

    @property
    def cpu(self) -> float:
        return statistics.median(run.cpu for run in self.runs) if self.runs else float("nan")

    @property
    def peak(self) -> float:
        return max((run.peak for run in self.runs), default=float("nan"))

    def __str__(self) -> str:
        if not self.runs:
            return self.note
        wall = statistics.median(run.wall for run in self.runs)
        text = f"{_short(self.cpu)} / {_short(wall)} / {self.peak:,.0f}"
        return f"{text} ({self.note})" if self.note else text


def _short(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 20 else f"{seconds:.0f}"


def timed(command: Sequence[str], longest: float) -> Run:
    """Run a process to its end, or for so many seconds on the clock."""
    start = time.perf_counter()
    with TemporaryFile() as errors:
        child = subprocess.Popen(
            command, stdin=DEVNULL, stdout=DEVNULL, stderr=errors, env=os.environ | QUIET, start_new_session=True
        )
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(child.pid, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, longest)
        _, status, usage = os.wait4(child.pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        spent = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - 1000))
        lines = errors.read().decode(errors="replace").strip().splitlines()
    said = lines[-1].strip() if lines else ""
    return Run(usage.ru_utime + usage.ru_stime, spent, usage.ru_maxrss * 1024 / 1e6, child.returncode, said)


def files(path: Path) -> list[Path]:
    """A model and what lies beside it."""
    return [path, *(p for p in [path.with_name(f"{path.name}.data")] if p.exists())]


def compare(path: Path, tools: Mapping[str, Tool], runs: int, longest: float, once: float) -> dict[str, Cell]:
    """All tools in turn, so often; the first turn only warms the caches where it is a short one."""
    cells = {name: Cell(note="" if tool.installed() else "not installed") for name, tool in tools.items()}
    for turn in range(runs + 1):
        for name, tool in tools.items():
            cell = cells[name]
            if cell.note or (cell.runs and cell.runs[0].wall > once):
                continue
            whole = files(path) if name == "sha256sum" else [path]
            run = timed([*tool.command, *map(str, whole)], longest)
            if run.code == -signal.SIGKILL and run.wall >= longest:
                cell.note = f"over {longest:.0f} s"
            elif run.code not in tool.answers:
                why = f"fails: {run.said[:60]}" if run.code >= 0 else f"dies of {signal.Signals(-run.code).name}"
                cell.note = f"{why.replace('|', ' ')}, after {_short(run.cpu)} s"
            elif tool.answers[-1] == run.code == 2:
                cell.runs.append(run)
                cell.note = "incomplete"
            elif turn or run.wall > once:
                cell.runs.append(run)
            print(f"  {path.stem:24}{name:34}{run.cpu:8.2f} s{run.peak:8.0f} MB  {cell.note}", file=sys.stderr)
    return cells


def table(found: Mapping[Path, Mapping[str, Cell]]) -> Iterator[str]:
    """Markdown, a column for each model."""
    yield "| CPU s / s / peak MB | " + " | ".join(path.stem for path in found) + " |"
    yield "|---" * (len(found) + 1) + "|"
    sizes = [sum(part.stat().st_size for part in files(path)) / 1e6 for path in found]
    yield "| size | " + " | ".join(f"{size:,.0f} MB" for size in sizes) + " |"
    for tool in next(iter(found.values())):
        yield f"| {tool} | " + " | ".join(str(cells[tool]) for cells in found.values()) + " |"
    limits = []
    for size, cells in zip(sizes, found.values(), strict=True):
        if not {CHECKED, LIMITED} <= cells.keys():
            return
        check, limit = cells[CHECKED], 2.5 * cells[LIMITED].cpu + 0.3
        held = "held" if check.cpu <= limit and check.peak <= 2 * size + 300 else "NOT HELD"
        limits.append(f"{limit:.2f} / – / {2 * size + 300:,.0f}: {held}")
    yield "| limit: 2.5 sessions + 0.3 s, 2 files + 300 MB | " + " | ".join(limits) + " |"


def draw(found: Mapping[str, Mapping[str, Cell]], path: Path) -> None:
    """CPU above and peak memory below; a panel for each thing that grows."""
    import re
    from io import StringIO

    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    colours = {CHECKED: "#c2410c", LIMITED: "#7c3aed", "onnx.load, each weight read once": "#2563eb"}
    units = ("million parameters, 768 units wide", "units wide, 2 layers", "nodes, 16 units wide")
    ticks = ([7, 28, 113, 454], [128, 256, 512, 1024, 2048, 4096], [600, 2500, 5000, 10_000, 20_000])
    plt.rcParams.update({"svg.hashsalt": "growth", "axes.spines.top": False, "axes.spines.right": False})
    plt.rcParams.update({"xtick.minor.bottom": False, "ytick.minor.left": False, "font.size": 9})
    figure, rows = plt.subplots(2, len(GROWTH), figsize=(10, 4.6), sharex="col", sharey="row", layout="constrained")
    what: tuple[tuple[str, Callable[[Cell], float]], ...] = (
        ("CPU seconds", lambda cell: cell.cpu),
        ("peak MB", lambda cell: cell.peak),
    )
    for row, (label, value) in zip(rows, what, strict=True):
        for panel, places in zip(row, GROWTH.values(), strict=True):
            for tool, colour in colours.items():
                there = [(x, value(found[name][tool])) for name, x in places.items() if name in found]
                panel.loglog(*zip(*there, strict=True), "o-", color=colour, lw=1.6, ms=3.5, label=tool)
            panel.grid(color="#e5e7eb", lw=0.7)
            panel.tick_params(length=0)
            panel.yaxis.set_major_formatter("{x:,g}")
        row[0].set_ylabel(label)
    for panel, unit, places in zip(rows[-1], units, ticks, strict=True):
        panel.set_xlabel(unit)
        panel.set_xticks(places, [f"{place:,}" for place in places])
        panel.minorticks_off()
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    short = re.sub(r"\b[1-9]\d*\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text.getvalue())
    path.write_text(re.sub(r"\n\s*|<!--.*?-->", "\n", short).replace("\n\n", "\n"))


def made(names: Sequence[str], folder: Path) -> Iterator[Path]:
    """The files, made where they are not there: in processes of their own."""
    for name in names:
        path = Path(name) if name.endswith(".onnx") else folder / f"{name}.onnx"
        if not path.exists():
            subprocess.run([sys.executable, str(SIZES), str(folder), name], check=True)
        yield path


def main() -> None:
    """Make the networks, run the tools, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", help="files, or names that sizes.py knows")
    parser.add_argument("--quick", action="store_true", help="smaller networks without PyTorch, few tools")
    parser.add_argument("--forms", action="store_true", help="planted, float16 and quantised forms as well")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, help="only these")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each command")
    parser.add_argument("--once", type=float, default=20, help="run once what takes longer than so many seconds")
    parser.add_argument("--longest", type=float, default=900, help="end what takes longer than so many seconds")
    parser.add_argument("--keep", type=Path, help="folder for the networks; a temporary one by default")
    parser.add_argument("--json", type=Path, help="write every run to this file")
    parser.add_argument("--growth", type=Path, help="draw how CPU and memory grow into this SVG file")
    parser.add_argument("--profile", action="store_true", help="print where a check spends its time")
    options = parser.parse_args()
    names = options.models or (QUICK if options.quick else MODELS + FORMS if options.forms else MODELS)
    tools = {n: t for n, t in TOOLS.items() if n in (options.tools or TOOLS) and (t.quick or not options.quick)}
    if options.growth:
        names = [name for places in GROWTH.values() for name in places]
        tools = {n: TOOLS[n] for n in (CHECKED, LIMITED, "onnx.load, each weight read once")}
    found: dict[Path, dict[str, Cell]] = {}
    with TemporaryDirectory() as folder:
        for path in made(names, options.keep or Path(folder)):
            found[path] = compare(path, tools, options.runs, options.longest, options.once)
            if options.profile:
                subprocess.run([sys.executable, "-c", PROFILE, str(path)], check=False)
            if options.json:
                runs = {p.stem: {n: asdict(cell) for n, cell in cells.items()} for p, cells in found.items()}
                options.json.write_text(json.dumps(runs, indent=1) + "\n")
        print("\n".join(table(found)))
    if options.growth:
        draw({path.stem: cells for path, cells in found.items()}, options.growth)


if __name__ == "__main__":
    main()
