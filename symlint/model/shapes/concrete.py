"""Numbers for symbolic dimensions, such that no operator refuses its inputs.

Distinct primes that divide no weight dimension keep axes apart that only happen to have one size. Where the network
ties dimensions that the file calls by different names, a refusal says so: they are bound and the pass is repeated.
Where a window or a flattening needs a certain size, usual sizes are tried.
"""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from symlint.model.graph import Array, Graph, Shape, Tensor
from symlint.model.records import dataclass
from symlint.model.shapes.forward import Conflict, Pass
from symlint.model.shapes.inference import RECURRENT, WINDOWED, Inference, contracted
from symlint.model.shapes.known import Call, Kind, stored_values

Dim = int | str | None
Declared = tuple[str, tuple[Dim, ...]]

LADDER = (8, 16, 64, 224, 28, 32, 96, 112, 128, 256, 299, 320, 384, 416, 512, 640, 1024, 16000, 1)
"""Sizes tried for all dimensions but the first of an input; 1 comes last because it broadcasts over mistakes."""
WORK_LIMIT = 100_000
"""Nodes visited while sizes are searched."""
TIES = 4
"""How often the number of a dimension that data tell is changed."""
_SIGNS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A graph with the types that its file declares, before any dimension has a number."""

    graph: Graph
    tensors: Mapping[str, Tensor]
    inputs: Mapping[str, Declared]
    recorded: Mapping[str, Declared]


@dataclass(frozen=True, slots=True)
class Concrete:
    """What one pass with one choice of numbers found."""

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    constants: Mapping[str, Array]
    symbols: Mapping[str, int]
    moving: frozenset[str]
    notes: tuple[str, ...]


def make_concrete(skeleton: Skeleton) -> Concrete:
    """Choose numbers for the symbolic dimensions and find shapes (element counts), dtypes and known values.

    Values come from integers, booleans and single numbers alone; floating weights are not read. Never raises for a
    network that refuses every choice: what has no shape then is absent and noted.
    """
    inputs, batch = _named(skeleton.inputs)
    symbols = list(dict.fromkeys(dim for _, dims in inputs.values() for dim in dims if isinstance(dim, str)))
    plain = [s for s in symbols if _formula(s) is None or not _formula(s)]
    plain += [name for s in symbols for name in _formula(s) or () if name not in plain]
    return _Search(skeleton, inputs, list(dict.fromkeys(plain)), symbols, batch).run()


def _named(inputs: Mapping[str, Declared]) -> tuple[dict[str, Declared], set[str]]:
    """Inputs with a name for every unnamed dimension, and the symbols that stand first."""
    named: dict[str, Declared] = {}
    batch: set[str] = set()
    for name, (dtype, dims) in inputs.items():
        shape = tuple(f"{name}[{axis}]" if dim is None else dim for axis, dim in enumerate(dims))
        named[name] = (dtype, shape)
        if shape and isinstance(shape[0], str):
            batch.add(shape[0])
    return named, batch


def _formula(symbol: str) -> tuple[str, ...] | None:
    """Names inside of a dimension such as ``past + 1``; empty for a plain name, None for what is no formula."""
    try:
        tree = ast.parse(symbol, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    if not isinstance(tree, ast.BinOp) or len(symbol) > 200:
        return () if isinstance(tree, ast.Name) else None
    return tuple(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))


def _compute(tree: ast.expr, numbers: Mapping[str, int]) -> int:
    if isinstance(tree, ast.BinOp):
        return int(_SIGNS[type(tree.op)](_compute(tree.left, numbers), _compute(tree.right, numbers)))
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.Name):
        return numbers[tree.id]
    raise KeyError(ast.dump(tree))


class _Search:
    def __init__(
        self, skeleton: Skeleton, inputs: dict[str, Declared], plain: list[str], symbols: list[str], batch: set[str]
    ) -> None:
        self.skeleton = skeleton
        self.inputs = inputs
        self.plain = plain
        self.symbols = symbols
        self.batch = batch
        self.totals = _totals(plain)
        self.inference = Inference()
        self.values = stored_values(skeleton.graph, skeleton.tensors)
        sizes = {dim for tensor in skeleton.tensors.values() for dim in tensor.shape if dim > 1}
        count = 400 + 3 * len(symbols)
        self.primes = [p for p in itertools.islice(_primes(7), count) if all(size % p for size in sizes)]
        self.primes += itertools.islice(_primes(self.primes[-1] + 1 if self.primes else 7), count)
        self.visited = 0

    def run(self) -> Concrete:
        doubtful: Pass | None = None
        best: tuple[int, dict[str, int], dict[str, int]] = (-1, {}, {})
        for numbers in self.choices():
            bound: dict[str, int] = {}
            for _ in range(4 * len(self.plain) + 8):
                chosen = {**numbers, **{k: v for k, v in bound.items() if k in numbers}}
                state, conflict = self.attempt(chosen, bound, strict=True)
                if conflict is None:
                    if not state.doubts:
                        return self.answer(state)
                    doubtful = state if doubtful is None or state.doubts < doubtful.doubts else doubtful
                    break
                if state.done > best[0]:
                    best = (state.done, chosen, dict(bound))
                tie = _tie(conflict, state.numbers)
                if tie is None or bound.get(tie[0]) == tie[1]:
                    break
                bound[tie[0]] = tie[1]
            if self.visited > WORK_LIMIT or not self.plain:
                break
        return self.answer(doubtful or self.attempt(best[1], best[2], strict=False)[0])

    def choices(self) -> Iterator[dict[str, int]]:
        first = dict(zip(self.plain, self.primes, strict=False))
        yield first
        for floor in (61, 251, 1021):
            large = iter([prime for prime in self.primes if prime >= floor])
            yield {name: first[name] if name in self.batch else next(large) for name in first}
        for size in LADDER:
            yield {name: first[name] if name in self.batch and size > 1 else size for name in first}

    def attempt(self, numbers: dict[str, int], bound: dict[str, int], strict: bool) -> tuple[Pass, Conflict | None]:
        numbers = dict(numbers)
        for total, parts in self.totals.items():
            numbers[total] = sum(numbers[part] for part in parts)
        for symbol in self.symbols:
            if symbol not in numbers:
                try:
                    numbers[symbol] = max(1, _compute(ast.parse(symbol, mode="eval").body, numbers))
                except (KeyError, ZeroDivisionError, OverflowError):
                    numbers[symbol] = self.primes[len(numbers)]
        used = set(numbers.values())
        spare = (prime for prime in self.primes[len(numbers) :] if prime not in used)
        state = Pass(self.skeleton.tensors, self.skeleton.recorded, numbers, spare, self.inference, strict, bound)
        state.begin(self.values)
        for name, (dtype, dims) in self.inputs.items():
            state.put(name, Kind(dtype, tuple(numbers[dim] if isinstance(dim, str) else dim or 1 for dim in dims)))
        conflict = self.settled(state, bound)
        self.visited += state.done + state.repeated
        return state, conflict

    def settled(self, state: Pass, bound: dict[str, int]) -> Conflict | None:
        """Walk the graph; what is refused for a dimension that data tell is gone through again with another number."""
        nodes, index, ties = self.skeleton.graph.nodes, 0, Counter[str]()
        while index < len(nodes):
            state.enter_at(index)
            try:
                state.visit(nodes[index])
            except Conflict as conflict:
                symbol, number = _tie(conflict, state.numbers) or ("", 0)
                ties[symbol] += 1
                spent = state.repeated > max(WORK_LIMIT, 4 * len(nodes))
                if symbol not in state.invented or ties[symbol] > TIES or spent or bound.get(symbol) == number:
                    return conflict
                bound[symbol] = number
                index = state.rewind(symbol, nodes)
            else:
                index += 1
        return None

    def answer(self, state: Pass) -> Concrete:
        moving = self.moving(state)
        notes = tuple(state.notes)
        if wrong := state.contradictions():
            first = f"{wrong[0]!r} as {list(state.recorded[wrong[0]][1])}, and it is {list(state.shapes[wrong[0]])}"
            more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
            notes += (f"the file declares {first}{more}: what operators make is used",)
        return Concrete(state.shapes, state.dtypes, state.constants, state.numbers, moving, notes)

    def _lasting(self) -> set[str]:
        """What is stored, and what nodes make of such things alone: no length has a part in it."""
        lasting = self.skeleton.tensors.keys() - self.inputs.keys()
        for node in self.skeleton.graph.nodes:
            if not node.bodies and all(name in lasting for name in node.inputs if name):
                lasting.update(node.outputs)
        return lasting

    def moving(self, state: Pass) -> frozenset[str]:
        """The known values that another choice of numbers changes: they stand for lengths known only at run time."""
        chosen = {name: state.numbers[name] for name in self.plain}
        told = {name: state.numbers[name] for name in state.invented}
        free = {name: number for name, number in (chosen | told).items() if name not in state.bound}
        used = set(state.numbers.values())
        other = {name: next(p for p in self.primes if p > number and p not in used) for name, number in free.items()}
        if not other or state.constants.keys() <= self._lasting():
            return frozenset()
        bound = {**state.bound, **{name: other[name] for name in told if name in other}}
        again, _ = self.attempt({name: other.get(name, chosen[name]) for name in chosen}, bound, strict=False)
        return frozenset(
            name
            for name, value in state.constants.items()
            if name not in again.constants or not np.array_equal(value, again.constants[name])
        )


def _totals(symbols: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Lengths that decoders call a total: of what is new and of the past."""
    words = {name: set(re.findall("[a-z]+", name.lower())) - {"len", "length"} for name in symbols}
    past = [name for name, mine in words.items() if "past" in mine]
    new = [name for name, mine in words.items() if mine and mine <= {"seq", "sequence"}]
    if len(past) != 1 or len(new) != 1:
        return {}
    return {name: (past[0], new[0]) for name, mine in words.items() if "total" in mine}


def _tie(conflict: Conflict, numbers: Mapping[str, int]) -> tuple[str, int] | None:
    """Which symbol must have which number for the refused call to be accepted, as far as its shapes show."""
    symbol = {number: name for name, number in reversed(list(numbers.items()))}
    call = conflict.call
    shapes = [kind.shape for kind in call.kinds if kind is not None]
    try:
        pairs = contracted(call)
    except LookupError:
        pairs = []
    if call.node.op not in WINDOWED | RECURRENT:
        for one, two in itertools.combinations(shapes[:8], 2):
            pairs += zip(reversed(one), reversed(two), strict=False)
    if call.node.op == "Squeeze" and shapes:
        axes = call.attribute("axes") or _listed(call)
        pairs += [(shapes[0][axis], 1) for axis in axes]
    if call.node.op == "Split" and shapes:
        parts = call.attribute("split") or _listed(call)
        pairs.append((shapes[0][call.attribute("axis", 0)], sum(parts) if parts else len(call.node.outputs)))
    if conflict.target is not None and shapes:
        asked = [dim for dim in conflict.target if dim > 0]
        for number in symbol:
            have, want = math.prod(shapes[0]), math.prod(asked) * number
            if have and number in shapes[0] and want % have == 0:
                pairs.append((number, want // have))
    for a, b in sorted(pairs, key=lambda pair: 1 in pair):  # a size of 1 mostly broadcasts
        if a == b or min(a, b) < 1:
            continue
        if a in symbol and b in symbol:
            return symbol[max(a, b)], min(a, b)
        if a in symbol or b in symbol:
            return (symbol[a], b) if a in symbol else (symbol[b], a)
    return None


def _listed(call: Call) -> list[int]:
    """The numbers of a second input, if they are known."""
    given = call.value(1) if call.has(1) else None
    return [] if given is None else [int(number) for number in given.reshape(-1)]


def _primes(start: int) -> Iterator[int]:
    limit = 1 << 13
    while True:
        sieve = np.ones(limit, bool)
        for number in range(2, math.isqrt(limit) + 1):
            sieve[number * number :: number] = False
        yield from (int(number) for number in np.flatnonzero(sieve[start:]) + start)
        start, limit = limit, 4 * limit
