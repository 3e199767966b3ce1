"""Damages model files by chance and checks them: nothing but an ordinary answer may come.

    python tests/fuzz/run.py [--minutes N | --cases N] [--seed S] [--keep FOLDER] [FILE | FOLDER ...]
    python tests/fuzz/run.py --seed S --only INDEX --keep FOLDER [FILE | FOLDER ...]

Every case takes one of the files (without any, networks of our own), applies recipes of `mutations.py`, and checks what
comes of it in a child process with 2 GB of address space and 20 seconds of CPU. What is told of:

- traceback: an exception, the words "internal error", or an exit code that an audit of a file does not have;
- hang: the seconds were not enough; signal: the process died of one;
- clean: exit code 0 or 1, although a stored tensor cannot be read, or none of the weights was looked at;
- output: a document that cannot be parsed, or a control character of a name that reaches the terminal.

The same seed and the same files make the same cases. `--only` makes one again and leaves it, with what lies beside it.
Some cases shrink or rewrite the file while it is read (`--meanwhile`, a share); those depend on the moment.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), *map(str, HERE.parent.glob("[a-z]*/"))]

from mutations import mutate  # noqa: E402
from own_models import write_all  # noqa: E402

MEMORY, SECONDS, WALL = 2 << 30, 20, 90
FORMATS = ("json", "json", "full", "concise", "sarif")
LARGEST = 12 << 20
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8), **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32), **dict.fromkeys((7, 11, 13, 14), 64), 15: 128,
    **dict.fromkeys((21, 22, 23), 4), **dict.fromkeys((25, 26), 2),
}  # fmt: skip
"""Code of an element type -> bits of an element."""
_FIELDS = {
    **dict.fromkeys((1,), ("float_data", 1)), 14: ("float_data", 2), **dict.fromkeys((7,), ("int64_data", 1)),
    **dict.fromkeys((11,), ("double_data", 1)), 15: ("double_data", 2), **dict.fromkeys((12, 13), ("uint64_data", 1)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A damaged file and how it came about."""

    index: int
    file: str
    recipes: tuple[str, ...]
    form: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that did not end in an ordinary answer."""

    case: Case
    kind: str
    detail: str
    """Enough to tell two failures apart."""


def unread(path: Path) -> str:
    """Why a model has a tensor that nobody can read; empty if all can be. Decided by other means than symlint's."""
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as problem:  # of any kind
        return f"protobuf refuses it: {type(problem).__name__}"
    for tensor in model.graph.initializer:
        if reason := _undecodable(tensor, path.parent):
            return f"tensor {tensor.name[:40]!r}: {reason}"
    return ""


def _undecodable(tensor: TensorProto, folder: Path) -> str:
    if any(size < 0 for size in tensor.dims):
        return "negative size"
    count = 1
    for size in tensor.dims:
        count *= size
    if tensor.data_type == TensorProto.STRING:
        return "" if len(tensor.string_data) == count else "strings are missing"
    if tensor.data_type not in _BITS:
        return f"type {tensor.data_type}"
    wanted = -(-count * _BITS[tensor.data_type] // 8)
    if tensor.data_location == TensorProto.EXTERNAL:
        return _unreachable({e.key: e.value for e in tensor.external_data}, wanted, folder)
    if tensor.HasField("raw_data"):
        return "" if len(tensor.raw_data) == wanted else f"{len(tensor.raw_data)} bytes for {wanted}"
    name, each = _FIELDS.get(tensor.data_type, ("int32_data", 1))
    there = len(getattr(tensor, name))
    packed = (
        -(-count // 2) if _BITS[tensor.data_type] == 4 else -(-count // 4) if _BITS[tensor.data_type] == 2 else count
    )
    return "" if there == packed * each else f"{there} numbers for {count}"


def _unreachable(entries: dict[str, str], wanted: int, folder: Path) -> str:
    location = entries.get("location", "")
    if not location or "\0" in location or Path(location).is_absolute() or ".." in Path(location).parts:
        return f"location {location[:40]!r}"
    try:
        file = (folder / location).resolve()
        if folder.resolve() not in file.parents or not file.is_file():
            return f"location {location[:40]!r}"
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else file.stat().st_size - offset
    except (OSError, RuntimeError):
        return f"location {location[:40]!r}"
    except ValueError:
        return "no number for offset or length"
    if offset < 0 or length < wanted or offset + wanted > file.stat().st_size:
        return f"{length} bytes at {offset} for {wanted}"
    return ""


def learned(path: Path) -> bool:
    """Whether a matrix of floating-point numbers takes part in a product."""
    model = onnx.load_model_from_string(path.read_bytes())
    stored = {w.name for w in model.graph.initializer if len(w.dims) > 1 and w.data_type in (1, 10, 11, 16)}
    return any(
        n.op_type in ("MatMul", "Gemm", "Conv") and not n.domain and n.input[1:2] and n.input[1] in stored
        for n in model.graph.node
    )


def check(path: Path, form: str, folder: Path, meanwhile: float | None = None) -> tuple[int, str, str]:
    """Wait status, standard output and standard error of `symlint check` in a child that is a copy of this process."""
    out, err = folder / "out", folder / "err"
    child = os.fork()
    if not child:
        _child(path, form, out, err)
    start, changed = time.monotonic(), meanwhile is None
    pause = 0.0005
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        spent = time.monotonic() - start
        if not changed and meanwhile is not None and spent > meanwhile:
            changed = True
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)
        if spent > WALL:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            break
        time.sleep(pause)
        pause = min(0.02, pause * 1.3)
    return status, out.read_text(errors="replace"), err.read_text(errors="replace")


def _child(path: Path, form: str, out: Path, err: Path) -> None:
    code = 70
    try:
        for stream, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        faulthandler.enable()
        faulthandler.register(signal.SIGXCPU, chain=True)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from symlint.cli.main import cli

        try:
            cli(["--debug", "check", str(path), "--format", form])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 70
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # whatever escapes is what is looked for
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


_FRAME = re.compile(r'File "[^"]*?(symlint|rules)/([^"]+)", line (\d+),? in (\S+)')


def judge(path: Path, form: str, status: int, out: str, err: str) -> tuple[str, str] | None:
    """What is wrong with an answer: its kind, and what tells it apart from others; None if nothing is."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        kind = "hang" if number in (signal.SIGXCPU, signal.SIGKILL) else "signal"
        frames = _FRAME.findall(err)
        return kind, f"{signal.Signals(number).name} at {_place(frames[:1])}"
    code = os.WEXITSTATUS(status)
    if "please report" in re.sub(r"\s+", " ", out + err).lower() or code not in (0, 1, 4):
        # With --debug the traceback is told even of what was caught and reported.
        raised = re.findall(r"^(\w[\w.]*(?:Error|Exception|Interrupt|Exit)\w*:?.*)", err, re.MULTILINE)[-1:] or ["?"]
        what = re.sub("'.*?'|[0-9]+", "N", raised[0])[:90]
        return "traceback", f"exit {code}: {what} at {_place(_FRAME.findall(err)[-1:])}"
    if problem := _malformed(form, out):
        return "output", problem
    if code in (0, 1):
        if reason := unread(path):
            return "clean", re.sub("'.*?'|[0-9]+", "N", reason)
        if form == "json" and not json.loads(out)["models"][0]["coverage"]["total"] and learned(path):
            return "clean", "no weight was looked at"
    return None


def _place(frames: Sequence[tuple[str, ...]]) -> str:
    return " ".join(f"{module}:{line}:{function}" for _, module, line, function in frames) or "?"


def _malformed(form: str, out: str) -> str:
    """What is wrong with a document, whatever it says."""
    if form in ("json", "sarif"):
        try:
            json.loads(out)
        except ValueError as problem:
            return f"{form}: {problem}"[:80]
        return ""
    strange = set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out))
    return f"{form}: raw {sorted(strange)}" if strange else ""


class Fuzzer:
    """Makes cases one after another."""

    def __init__(self, files: Sequence[Path], seed: int, work: Path, keep: Path | None, meanwhile: float) -> None:
        self.files = files
        self.seed = seed
        self.work = work
        self.keep = keep
        self.meanwhile = meanwhile
        self.codes: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.seen: Counter[tuple[str, str]] = Counter()
        sizes = np.array([max(file.stat().st_size, 2000) for file in files], float)
        self.weights = sizes**-0.5 / (sizes**-0.5).sum()
        """Small files are taken more often: they have less of weights, and as much of everything else."""

    def make(self, index: int) -> tuple[Case, Path, float | None]:
        """The file of a case, in a folder of its own."""
        rng = np.random.default_rng([self.seed, index])
        folder = self.work / "case" / "inner"
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder.parent / "outside.bin").write_bytes(bytes(1 << 16))
        source = self.files[int(rng.choice(len(self.files), p=self.weights))]
        for beside in source.parent.glob("*.data"):
            if source.read_bytes().find(beside.name.encode()) >= 0:
                shutil.copy(beside, folder)
        data, recipes = mutate(rng, source.read_bytes(), folder)
        path = folder / "model.onnx"
        path.write_bytes(data)
        moment = float(rng.uniform(0.001, 0.2)) if rng.random() < self.meanwhile else None
        if moment is not None:
            recipes.append("shrink meanwhile")
        form = str(rng.choice(FORMATS))
        return Case(index, source.name, tuple(recipes), form), path, moment

    def try_one(self, index: int) -> Failure | None:
        """Make a case, check it, and note what was wrong."""
        case, path, moment = self.make(index)
        status, out, err = check(path, case.form, self.work, moment)
        self.codes[str(os.WEXITSTATUS(status)) if os.WIFEXITED(status) else "died"] += 1
        wrong = None if moment is not None and path.stat().st_size == 0 else judge(path, case.form, status, out, err)
        if wrong is None or (moment is not None and wrong[0] == "clean"):
            return None
        failure = Failure(case, *wrong)
        self.failures.append(failure)
        self.seen[wrong] += 1
        if self.keep and self.seen[wrong] <= 2:
            target = self.keep / f"{failure.kind}-{index}"
            shutil.rmtree(target, ignore_errors=True)
            _copy(path.parent, target)
            (target / "err").write_text(err[-20_000:])
            (target / "out").write_text(out[:20_000])
            (target / "case.json").write_text(json.dumps({"seed": self.seed, **asdict(failure)}, indent=1) + "\n")
        return failure


def _copy(folder: Path, target: Path) -> None:
    """What makes the case, without what only stands in the way: pipes and files that are nothing but a size."""
    target.mkdir(parents=True, exist_ok=True)
    for item in folder.iterdir():
        if item.is_symlink():
            (target / item.name).symlink_to(item.readlink())
        elif item.is_file() and item.stat().st_size < 1 << 28:
            shutil.copy(item, target)
        elif item.is_dir():
            (target / item.name).mkdir(exist_ok=True)


def corpus(paths: Sequence[Path], work: Path) -> list[Path]:
    """The files to damage: those named and those in folders named; without any, our own."""
    if not paths:
        return write_all(work / "own")
    found = [file for path in paths for file in (sorted(path.rglob("*.onnx")) if path.is_dir() else [path])]
    return [file for file in found if file.stat().st_size <= LARGEST]


def warm(work: Path) -> None:
    """Import what a check needs, so that the copies of this process need not."""
    tiny = write_all(work / "warm", only=("perceptron",))[0]
    from symlint.cli.main import cli

    for form in sorted(set(FORMATS)):
        with redirect_stdout(StringIO()), suppress(SystemExit):
            cli(["check", str(tiny), "--format", form])


def turns(options: argparse.Namespace) -> Iterator[int]:
    """The numbers of the cases."""
    if options.only is not None:
        yield options.only
        return
    end, index = time.monotonic() + 60 * options.minutes, options.first
    while index < options.first + options.cases if options.cases else time.monotonic() < end:
        yield index
        index += 1


def main() -> int:
    """Run the cases; 1 if there was a failure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--cases", type=int, help="so many instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="make this case again")
    parser.add_argument("--meanwhile", type=float, default=0.03, help="share of files that shrink while they are read")
    parser.add_argument("--keep", type=Path, help="folder for the files of failures")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        if os.environ.get(name) != "1":  # a thread would not live on in the copies
            os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {name: "1"})
    files = [file.absolute() for file in options.files]
    keep = options.keep.absolute() if options.keep else None
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        os.chdir(work)
        warm(work)
        fuzzer = Fuzzer(corpus(files, work), options.seed, work, keep, options.meanwhile)
        start, said = time.monotonic(), time.monotonic()
        count = 0
        for index in turns(options):
            failure = fuzzer.try_one(index)
            count += 1
            if failure and fuzzer.seen[failure.kind, failure.detail] == 1:
                print(f"seed {options.seed} case {index}: {failure.kind}: {failure.detail}", flush=True)
                print(
                    f"    {failure.case.file} {' '.join(failure.case.recipes)} --format {failure.case.form}", flush=True
                )
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"{count} cases, {len(fuzzer.failures)} failures, exit codes {dict(fuzzer.codes)}", flush=True)
        spent = time.monotonic() - start
    print(f"seed {options.seed}: {count} cases in {spent:.0f} s, exit codes {dict(sorted(fuzzer.codes.items()))}")
    for (kind, detail), times in fuzzer.seen.most_common():
        print(f"{times:6} {kind}: {detail}")
    print(f"{len(fuzzer.failures)} failures of {len(fuzzer.seen)} kinds")
    return 1 if fuzzer.failures else 0


if __name__ == "__main__":
    sys.exit(main())
