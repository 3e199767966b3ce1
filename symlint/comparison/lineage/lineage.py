"""The engine of `symlint trace`: the networks of files and folders, by how surely another is derived from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from symlint.comparison.lineage.sketch import Sketch, compared, sketched
from symlint.comparison.lineage.storage import SUFFIX, read
from symlint.comparison.lineage.trace import Trace, traced
from symlint.comparison.weights import Weights
from symlint.evidence.context import Context
from symlint.model.errors import MissingModel, UnreadableModel, UsageProblem
from symlint.model.graph import Model
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.symmetry.inference import examine

UNSOLVED = 4
"""Exit code: something could not be read, or nothing could be compared."""


@dataclass(frozen=True)
class Lineage:
    """Everything that `symlint trace` tells: the networks that one may be derived from, the most likely first."""

    path: str
    found: tuple[Trace, ...]

    @property
    def best(self) -> Trace:
        """The most likely origin."""
        return self.found[0]

    @property
    def exit_code(self) -> int:
        """4 where some network could not be read or nothing could be compared, 0 else."""
        unread = any(trace.problem is not None for trace in self.found)
        return UNSOLVED if unread or all(trace.score is None for trace in self.found) else 0


def lineage(path: str, paths: Iterable[str]) -> Lineage:
    """Whether a network is derived from one of others, whatever was done to it.

    Args:
        path: a model.
        paths: models, sketches, and folders of both, in which the first itself is left out.

    Raises `UnreadableModel` where the first cannot be read or there is nothing to compare it with, and `UsageProblem`
    where scipy is missing or a weight of it is NaN or infinite.
    """
    try:
        import_module("scipy.optimize")
    except ImportError as error:
        raise UsageProblem("trace needs scipy, which an extra brings: pip install 'symlint[align]'") from error
    others = list(candidates(path, paths))
    mine = weights(load(path))
    if mine.broken:
        raise UsageProblem(f"{path}: {mine.broken} holds NaN or infinity, which tells nothing (see symlint check)")
    sketch = sketched(mine, path) if any(map(_is_sketch, others)) and not mine.quantised else None
    found = [_beside_sketch(sketch, other) if _is_sketch(other) else _beside(mine, other) for other in others]
    return Lineage(path, tuple(sorted(found, key=lambda t: (t.score is None, -(t.score or 0.0), t.path))))


def candidates(path: str, paths: Iterable[str]) -> Iterator[str]:
    """The files that some paths name; in folders all models but one, and all sketches."""
    for other in paths:
        if not Path(other).is_dir():
            if not Path(other).exists():
                raise MissingModel(other)
            yield other
            continue
        files = sorted((*Path(other).rglob("*.onnx"), *Path(other).rglob(f"*{SUFFIX}")))
        inside = [file for file in files if file.resolve() != Path(path).resolve()]
        if not inside:
            raise MissingModel(other, f"no other *.onnx and no *{SUFFIX} in this folder")
        yield from map(str, inside)


def weights(model: Model) -> Weights:
    """The weights of a network."""
    return Weights(Context(*examine(model)))


def _is_sketch(path: str) -> bool:
    return Path(path).suffix == SUFFIX


def _beside_sketch(mine: Sketch | None, path: str) -> Trace:
    if mine is None:
        return Trace(path, sketched=True, problem="a quantised network has no sketch to compare with this one")
    try:
        return replace(compared(mine, read(path)), path=path)
    except UnreadableModel as problem:
        return Trace(path, sketched=True, problem=problem.reason)


def _beside(mine: Weights, path: str) -> Trace:
    try:
        other = weights(load(path))
    except UnreadableModel as problem:
        return Trace(path, problem=problem.reason)
    if other.broken:
        return Trace(path, problem=f"{other.broken} holds NaN or infinity")
    return traced(mine, other, path)
