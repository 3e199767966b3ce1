"""Half precision, emulated: what a network computes where every result is rounded to float16.

On a CPU onnxruntime computes in float32 what it has no float16 for, and leaves out conversions in between, so that it
does not show what a file of float16 does on other devices. Here each result of each node is rounded, and what is beyond
65,504 is infinite, wherever the float32 file runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from symlint.model.file.edit import rewrite
from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.runtime.inputs.collection import collect
from symlint.runtime.inputs.probe import save_lifted
from symlint.runtime.noise import Trial
from symlint.runtime.runner import Runner

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
