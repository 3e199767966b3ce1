"""A network in fewer bits: float16 emulated, and what onnxruntime's own quantisers make of it, in a child process.

On a CPU onnxruntime computes in float32 what it has no float16 for, and leaves out conversions in between, so that it
does not show what a file of float16 does on other devices. Here each result of each node is rounded, and what is beyond
65,504 is infinite, wherever the float32 file runs.

``int8`` is static quantisation with one step size a tensor, calibrated on some inputs, in pairs of QuantizeLinear and
DequantizeLinear. ``int4`` rounds the weights of matrix products alone, symmetrically, in blocks of 32 with one step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.model.saving import rewrite
from symlint.runtime import child_process
from symlint.runtime.probe import Trial, save_lifted
from symlint.runtime.proof import collect
from symlint.runtime.runner import Loaded, Runner

SPLIT = 2.0**13 + 1
"""Splits a float32 number after the 11 bits that float16 has."""
SUBNORMAL = 0.75
"""A number of which the last place in float32 is 2^-24, as it is of all subnormal numbers in float16."""
OVER = 65520.0
"""The least number that rounds to infinity."""
FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Halving:
    """What float16 does to the outputs of a network."""

    finite: bool
    """Whether the outputs are finite wherever they are in float32."""
    error: float
    """The largest difference from float32, relative to the largest value of each output; infinite where not finite."""

    def __str__(self) -> str:
        return f"off by {self.error:.2g} of the largest" if self.finite else "NaN or infinite"


class Halves:
    """Trials of one model, and what files that compute the same make of them; a context manager."""

    def __init__(self, model: Model, seed: int, given: Mapping[str, Array]) -> None:
        self.model, self.seed, self.given = model, seed, given
        self.trials: Sequence[Trial] = ()

    def __enter__(self) -> Halves:
        self._folder = TemporaryDirectory(prefix="symlint-")
        self._runner = Runner().__enter__()
        path = self._saved(rewrite(self.model.path, {}), "plain")
        plain = self._runner.load(path)
        if plain.failure is None:
            self.trials, _ = collect(self._runner, self.model, plain, plain, self.seed, self.given)
        return self

    def __exit__(self, *problem: object) -> None:
        self._runner.__exit__(None, None, None)
        self._folder.cleanup()

    def largest(self) -> dict[str, float]:
        """Floating value of the model -> its largest size in any trial; empty where the model does not run."""
        file = rewrite(self.model.path, {})
        names = [value.name or "" for value in self._results(file)]
        file.graph.outputs.clear()
        for number, value in enumerate(self._results(file)):
            size = ir.node("Abs", [value])
            most = ir.node("ReduceMax", [size.outputs[0]], attributes={"keepdims": 0})
            most.outputs[0].name, most.outputs[0].type = f"symlint.largest.{number}", ir.TensorType(ir.DataType.FLOAT)
            most.outputs[0].shape = ir.Shape([])
            file.graph.extend([size, most])
            file.graph.outputs.append(most.outputs[0])
        found = dict.fromkeys(names, 0.0)
        for answer in self._runs(self._saved(file, "largest")):
            if answer is None:
                return {}
            found = {n: max(found[n], float(y.max(initial=0))) for n, y in zip(names, answer, strict=True)}
        return found if self.trials else {}

    def judged(self, path: Path) -> Halving | None:
        """What float16 makes of a file, beside what the model computes; None where it does not run."""
        finite, error = True, 0.0
        for trial, answer in zip(self.trials, self._runs(self._narrow(path)), strict=True):
            if answer is None:
                return None
            for before, after in zip(trial.plain.outputs, answer, strict=True):
                if before.dtype.kind != "f" or before.shape != after.shape or not before.size:
                    continue
                here = np.isfinite(before)
                finite &= bool(np.isfinite(after[here]).all())
                scale = float(np.abs(before[here]).max(initial=0)) or 1.0
                with np.errstate(invalid="ignore"):
                    gap = float(np.abs(before[here].astype(np.float64) - after[here]).max(initial=0)) / scale
                error = max(error, gap) if np.isfinite(gap) else np.inf
        return Halving(finite, error) if self.trials else None

    def _results(self, file: ir.Model) -> list[ir.Value]:
        """The floating results of the nodes of the graph itself."""
        floats = {n for n, dtype in self.model.dtypes.items() if dtype in FLOATS}
        return [v for node in file.graph for v in node.outputs if v.name in floats and node.op_type != "Constant"]

    def _narrow(self, path: Path) -> Path:
        """A file in which every result, weight and input is rounded."""
        file = rewrite(path, {})
        for value in (*self._results(file), *(x for x in file.graph.inputs if x.dtype == ir.DataType.FLOAT)):
            self._halve(file.graph, value)
        for value in file.graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype == ir.DataType.FLOAT:
                with np.errstate(over="ignore"):
                    narrow = tensor.numpy().astype(np.float16)
                value.const_value = ir.tensor(narrow.astype(np.float32), name=value.name)
        return self._saved(file, "halved")

    def _halve(self, graph: ir.Graph, value: ir.Value) -> None:
        """Round a value where it is read, and where it leaves."""
        users = list(value.uses())
        made, rounded = _rounding(value)
        for user, index in users:
            user.replace_input_with(index, rounded)
        maker = value.producer()
        if maker is None:
            graph.insert_before(graph[0], made)
        else:
            graph.insert_after(maker, made)
        for k, out in enumerate(graph.outputs):
            if out is value:
                rounded.type, rounded.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
                graph.outputs[k] = rounded

    def _runs(self, path: Path) -> Iterator[Sequence[Array] | None]:
        loaded = self._runner.load(path)
        for trial in self.trials:
            answer = self._runner.run(loaded, trial.feeds) if loaded.failure is None else None
            yield answer.outputs if answer is not None and answer.failure is None else None

    def _saved(self, file: ir.Model, name: str) -> Path:
        path = Path(self._folder.name) / f"{name}.onnx"
        save_lifted(file, path)
        return path


def _rounding(value: ir.Value) -> tuple[list[ir.Node], ir.Value]:
    """Nodes that round a float32 value as float16 would: Veltkamp's splitting, and a sum for subnormal numbers.

    A pair of conversions would do as much, but onnxruntime takes it away at any level of optimisation.
    """
    made: list[ir.Node] = []

    def number(of: float) -> ir.Value:
        made.append(ir.node("Constant", [], attributes={"value": ir.tensor(np.float32(of))}))
        return made[-1].outputs[0]

    def call(op: str, *operands: ir.Value) -> ir.Value:
        made.append(ir.node(op, operands))
        return made[-1].outputs[0]

    size, large = call("Abs", value), call("Mul", value, number(SPLIT))
    normal = call("Sub", large, call("Sub", large, value))
    grid = number(SUBNORMAL)
    small = call("Sub", call("Add", value, grid), grid)
    here = call("Where", call("Less", size, number(2.0**-14)), small, normal)
    infinite = call("Mul", value, number(np.inf))
    rounded = call("Where", call("Less", size, number(OVER)), here, infinite)
    for number_of, node in enumerate(made):
        node.outputs[0].name = f"{value.name}.symlint.half.{number_of}"
    return made, rounded


BITS = {"int8": 8, "int4": 4}
BLOCK = 32
"""Weights that share a step of int4."""
SETS = 6
"""Sets of inputs, apart from those of the calibration, on each of which a gauge has to be better."""
APART = 100
"""How far seeds of sets are apart: those of the inputs of one set follow each other."""
LIMIT = 300
"""Seconds that one quantisation may take."""
DONE = "done"
"""What the child answers where there is a quantised file."""
FINEST = 1e-16
"""Noise below this share of the signal counts as this."""


class Quantiser:
    """Judges files that compute what one model computes; a context manager."""

    def __init__(self, model: Model, target: str, seed: int, given: Mapping[str, Array]) -> None:
        self.model, self.target, self.seed, self.given = model, target, seed, given
        self.sets: list[list[Trial]] = []
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Quantiser:
        self._folder = TemporaryDirectory(prefix="symlint-")
        self._runner = Runner().__enter__()
        plain = self._runner.load(self.model.path)
        if plain.failure is None:
            self.sets = [self._collected(plain, self.seed + APART * k) for k in range(SETS + 1)]
        if self.sets:
            for k, trial in enumerate(self.sets[0]):
                named: dict[str, Any] = dict(trial.feeds)
                np.savez(Path(self._folder.name) / f"calibration{k}.npz", **named)
        return self

    def __exit__(self, *problem: object) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._runner.__exit__(None, None, None)
        self._folder.cleanup()

    def decibels(self, path: Path) -> tuple[float, ...] | None:
        """Signal to noise of the outputs of a file once it is quantised, on each set of inputs, averaged over outputs.

        None where it cannot be quantised, has nothing that is, or does not run then.
        """
        out = Path(self._folder.name) / "quantised.onnx"
        if not all(self.sets) or not self.sets or not self._made(path, out):
            return None
        loaded = self._runner.load(out, "exact")
        found = [self._of(loaded, trials) for trials in self.sets[1:]] if loaded.failure is None else []
        self._runner.drop(loaded)
        told = [one for one in found if one is not None]
        return tuple(told) if len(told) == SETS else None

    def sizes(self, path: Path, values: Mapping[str, int]) -> dict[str, Array]:
        """The largest sizes of values of a file along an axis each, on the inputs of the calibration.

        Values that it does not have, or not as float32, are left out; all where it does not run.
        """
        file, found = rewrite(str(path), {}), dict[str, Array]()
        there = {v.name: v for v in (*file.graph.inputs, *(v for node in file.graph for v in node.outputs))}
        told = [n for n in values if n in there and there[n].dtype in (None, ir.DataType.FLOAT)]
        file.graph.outputs[:] = [there[n] for n in told]
        for name in told:
            there[name].type = ir.TensorType(ir.DataType.FLOAT)
        out = Path(self._folder.name) / "exposed.onnx"
        save_lifted(file, out)
        loaded = self._runner.load(out)
        for trial in self.sets[0] if loaded.failure is None and told else ():
            answer = self._runner.run(loaded, trial.feeds)
            for name, y in zip(told, answer.outputs, strict=answer.failure is None):
                most = np.abs(np.moveaxis(y, values[name], 0)).reshape(y.shape[values[name]], -1).max(1, initial=0)
                found[name] = np.maximum(found.get(name, most), most)
        self._runner.drop(loaded)
        return found

    def _collected(self, plain: Loaded, seed: int) -> list[Trial]:
        return collect(self._runner, self.model, plain, plain, seed, self.given)[0]

    def _made(self, path: Path, out: Path) -> bool:
        child = self._begun()
        assert child.stdin is not None
        assert child.stdout is not None
        timer = Timer(LIMIT, child.kill)
        timer.start()
        try:
            child.stdin.write(json.dumps([str(path.resolve()), str(out)]) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline().strip()
        except OSError:
            answer = ""
        finally:
            timer.cancel()
        return answer == DONE

    def _begun(self) -> subprocess.Popen[str]:
        if self._child is None or self._child.poll() is not None:
            command = child_process.command("symlint.runtime.precision", self.target, self._folder.name)
            self._child = subprocess.Popen(
                command,
                env=child_process.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        return self._child

    def _of(self, loaded: Loaded, trials: Sequence[Trial]) -> float | None:
        noise: dict[int, float] = {}
        signal: dict[int, float] = {}
        for trial in trials:
            answer = self._runner.run(loaded, trial.feeds)
            if answer.failure is not None:
                return None
            for k, (before, after) in enumerate(zip(trial.plain.outputs, answer.outputs, strict=True)):
                if before.dtype.kind == "f" and np.isfinite(before).all() and before.shape == after.shape:
                    wide = before.astype(np.float64)
                    gap = float(np.square(wide - after).sum())
                    noise[k] = noise.get(k, 0.0) + (gap if np.isfinite(gap) else np.inf)
                    signal[k] = signal.get(k, 0.0) + float(np.square(wide).sum())
        shares = [noise[k] / signal[k] for k in signal if signal[k] > 0]
        return float(-10 * np.log10(np.maximum(shares, FINEST)).mean()) if any(shares) else None


def main(kind: str, folder: str) -> None:
    """The child: quantise files, each a line with its path and that of the result."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a quantiser prints is no answer
    feeds = [dict(np.load(file)) for file in sorted(Path(folder).glob("calibration*.npz"))]
    for line in sys.stdin:
        source, target = json.loads(line)
        try:
            _blocks(source, target) if kind == "int4" else _steps(source, target, feeds)
        except Exception as error:
            answers.write(f"{type(error).__name__}\n")
        else:
            answers.write(f"{DONE}\n")
        answers.flush()


def _blocks(source: str, target: str) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    made = MatMulNBitsQuantizer(source, bits=BITS["int4"], block_size=BLOCK, is_symmetric=True)
    plain = [node.op_type for node in made.model.nodes()]
    made.process()
    if plain == [node.op_type for node in made.model.nodes()]:
        message = "no matrix product with stored weights that are not rounded yet"
        raise ValueError(message)
    made.model.save_model_to_file(target)


def _steps(source: str, target: str, feeds: Sequence[dict[str, Array]]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        *(source, target, _Reader(feeds)),
        quant_format=QuantFormat.QDQ,
        per_channel=False,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


class _Reader:
    """The inputs of a calibration, one after another."""

    def __init__(self, feeds: Sequence[dict[str, Array]]) -> None:
        self._left = list(feeds)

    def get_next(self) -> dict[str, Array] | None:
        """The next, or None after the last."""
        return self._left.pop(0) if self._left else None
