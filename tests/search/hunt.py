"""The search: draws recipes, tries each in a copy of this process, and makes what breaks a law small."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import calls
import grammar
import images
import kinds
import laws
import numpy as np
import onnx
import sequences
import stored_forms
from laws import Failure
from recipe import Recipe

from symlint.model.operators import operators
from symlint.symmetry import dimension

FILLED = (images, kinds, sequences, stored_forms)
"""Modules that register their blocks when they are imported."""
SECONDS = 300
"""Of CPU that a network may take; asleep it may be as long again and again, on a machine with other work."""
PATIENCE = 4 * SECONDS
MEASURED = 1 << 10
"""Weights of the largest networks of which the rank of all directions is taken."""
DEAR = 12
"""All laws are tried on every so many-th network; on the others those that take no second."""
LISTS = ("one_of_a_list", "rest_of_a_list", "whole_list", "mapped_list")
"""Blocks that have all operators on sequences, which no call has."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one network."""

    failures: tuple[Failure, ...] = ()
    notes: Counter[str] = field(default_factory=Counter)
    operators: frozenset[str] = frozenset()
    blocks: frozenset[str] = frozenset()
    seconds: float = 0.0


def drawn(seed: int, count: int) -> Iterator[Recipe]:
    """Recipes of a run: two of three are of the grammar alone, the third has calls of operators in turns."""
    parts = list(_parts(seed, -(-count // 3)))
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        if k % 3 or not parts:
            yield grammar.draw(rng, longest=6)
        else:
            opset, names = parts[k // 3 % len(parts)]
            yield grammar.with_calls(rng, names, opset)


def _parts(seed: int, count: int) -> Iterator[tuple[int, list[str]]]:
    """The table in about so many parts, each with an opset for its operators; what no runtime has is by itself."""
    table = sorted(set(operators()) & set(calls.calls()))
    order = np.random.default_rng(seed).permutation(table).tolist()
    groups: dict[tuple[bool, int], list[str]] = {}
    for name in order:
        groups.setdefault((name in calls.NOWHERE, calls.opset(name)), []).append(calls.PREFIX + name)
    share = -(-len(order) // max(count - len(groups) - len(LISTS), 1))
    for name in LISTS:
        yield 17, [name]
    for (_, opset), names in groups.items():
        for k in range(0, len(names), share):
            yield opset or grammar.OPSETS[(seed + k) % len(grammar.OPSETS)], names[k : k + share]


def turn(k: int, recipe: Recipe) -> tuple[str, ...]:
    """The laws of the k-th network of a short run."""
    return laws.few(recipe) if k % DEAR else tuple(laws.LAWS)


def met(model: onnx.ModelProto) -> frozenset[str]:
    """The operators of a network and of its bodies."""

    def of(graph: onnx.GraphProto) -> Iterator[str]:
        for node in graph.node:
            yield f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    yield from of(attribute.g)

    return frozenset(of(model.graph))


def tried(recipe: Recipe, wanted: Sequence[str] = tuple(laws.LAWS)) -> Answer:
    """Try a network in a copy of this process, whose death is an answer like another."""
    with TemporaryDirectory(prefix="search-") as folder:
        out = Path(folder) / "answer"
        child = os.fork()
        if not child:
            code = 1
            try:
                import resource  # where there are copies of processes, there is this

                resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
                out.write_bytes(pickle.dumps(_here(recipe, Path(folder), wanted)))
                code = 0
            finally:
                os._exit(code)
        return _waited(child, out)


def _waited(child: int, out: Path) -> Answer:
    start = time.monotonic()
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() - start > PATIENCE:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Answer((Failure("ends", f"not within {PATIENCE} s"),))
        time.sleep(0.005)
    if out.exists() and not status:
        answer: Answer = pickle.loads(out.read_bytes())
        return answer
    return Answer((Failure("ends", f"died with status {status}"),))


def _here(recipe: Recipe, folder: Path, wanted: Sequence[str]) -> Answer:
    start = time.process_time()
    # The rank of all directions is what takes longest, and is a law of the small ones.
    dimension.PARAMETERS = MEASURED
    try:
        failures, notes, case = laws.broken(recipe, folder, wanted)
    except Exception as error:
        return Answer((Failure("builds", laws.told(error)),))
    spent = time.process_time() - start
    return Answer(tuple(failures), notes, met(case.model), frozenset(case.stood), spent)


def shrunk(recipe: Recipe, failure: Failure, tries: int = 120) -> Recipe:
    """The smallest recipe that was met, taking one thing away after another, that still breaks the law alike."""
    left = tries
    while True:
        for smaller in recipe.smaller():
            left -= 1
            if left < 0:
                return recipe
            if any(alike(f, failure) for f in tried(smaller, [failure.law]).failures):
                recipe = smaller
                break
        else:
            return recipe


def alike(one: Failure, other: Failure) -> bool:
    """Whether two failures are of one cause, as far as their words tell."""
    return one.law == other.law and _cause(one.detail) == _cause(other.detail)


def _cause(detail: str) -> str:
    """What is wrong, without where."""
    if detail.startswith("raises"):
        return detail.rpartition(" at ")[2]
    return " ".join(detail.split()[:1])


def seed_of_commit() -> int:
    """A seed that every commit has of its own; of an installation without a history, the same."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 1
    return int(done.stdout.strip()[:8], 16)


def model(recipe: Recipe) -> onnx.ModelProto:
    """The network of a recipe."""
    return grammar.build(recipe, calls.call)[0].model()
