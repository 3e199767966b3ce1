"""Scales as a repair: what rescalings balance, and scales under which nothing is beyond the reach of float16.

A normalisation that is written out squares what it normalises: 795 becomes 632,025, and float16 ends at 65,504. What
is normalised may be of any scale, if the epsilon goes along. A power of two changes no digit: the float32 network
computes the same bits, and its float16 form no infinity.

Source: Micikevicius et al., Mixed Precision Training (ICLR 2018), on the range of float16.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from symlint.evidence.context import Context
from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.model.saving import rewrite
from symlint.program.steps import Program
from symlint.program.translate import Lowering, lower
from symlint.repair.plan import Done, Repair, Wish, repairs
from symlint.symmetry.gauge.scales import Aim, Scales, balanced, chains, two_sided
from symlint.symmetry.kinds.whole import LENGTHS, powers

AIMS: Mapping[str, Aim] = {"int8": "rounding", "float16": "norm"}
"""Target -> what the gauge for it has least of."""


@dataclass(frozen=True, slots=True)
class Balancing:
    """New values of stored tensors, and what they repair."""

    values: Mapping[str, Array]
    done: tuple[Done, ...]
    repairs: tuple[Repair, ...] = ()


def balancing(context: Context, wish: Wish, wanted: Callable[[Iterable[Repair]], Sequence[Repair]]) -> Balancing | None:
    """What a wish asks for: the gauge for its target where rules found something, or the whole network balanced.

    Args:
        context: of the network.
        wish: what was asked of the fix.
        wanted: leaves out what is accepted.
    """
    target, structure = wish.asked.target, context.structure
    aim = AIMS.get(target, "rounding")
    rules = [rule for rule in wish.rules if rule.repair == "balance" and target in rule.targets]
    found = tuple(wanted(repairs(context, rules, ("gauge",))))
    if wish.balance and not (found and aim != "rounding"):
        values = balanced(structure)
        done = Done("SYM701", "unbalanced-scales", f"{len(values)} tensors", 0, 0, "scales were balanced")
        return Balancing(values, (done,)) if values else None
    values = balanced(structure, aim, _actions(context, {r.space for r in found})) if found else {}
    told = (Done(r.rule.code, r.rule.name, r.where, 0, 0, r.finding.message) for r in found)
    return Balancing(values, tuple(told), found) if values else None


def _actions(context: Context, spaces: set[str]) -> set[str]:
    """The rescalings of all spaces that share weights with these, directly or through others."""
    scales = Scales(context.structure, two_sided(context.structure))
    found: set[str] = set()
    for chain in chains(scales):
        actions = [scales.actions[k] for k in chain]
        if not spaces.isdisjoint(action.space for action in actions):
            found |= {action.id for action in actions}
    return found


BEYOND = 65504.0
"""The largest number of float16."""
ROOM = 13
"""The logarithm of two of what nothing should be above: inputs that were not tried may be eight times as large."""
DEEP = -6
"""The same of what the largest element of nothing should be below, so that digits are left."""
LOST = 1e4
"""How much worse an infinite number is than digits that are lost: it takes all of them."""
STEPS = (1, 2, 4, 8)
TURNS = 400


@dataclass(frozen=True, slots=True)
class Reach:
    """A move, as the logarithms of two of what tensors of the program are multiplied by."""

    lowering: Lowering
    logs: Mapping[str, int]

    @property
    def moved(self) -> tuple[str, ...]:
        """The stored tensors that it changes."""
        return tuple(dict.fromkeys(stored for name, stored in self._program.weights.items() if self.logs.get(name)))

    @property
    def _program(self) -> Program:
        return self.lowering.program

    def file(self) -> ir.Model:
        """The model with other weights and epsilons."""
        model = self._program.model
        file = rewrite(model.path, dict(self._values(model)))
        makers = {out.name: node for node in file.graph.all_nodes() for out in node.outputs}
        for (name, place), used in self.lowering.uses.items():
            shift = self.logs.get(used.name, 0)
            if shift and used.name in self._program.tables:
                node, value = makers[name], self._program.tables[used.name]
                scaled = (value.astype(np.float64) * 2.0**shift).astype(value.dtype)
                constant = ir.node("Constant", [], attributes={"value": ir.tensor(scaled)})
                constant.outputs[0].name = f"{name}.symlint.epsilon"
                assert node.graph is not None
                node.graph.insert_before(node, constant)
                node.replace_input_with(place, constant.outputs[0])
        for step in self._program.norms:
            shift = self.logs.get(step.x, 0) if step.function in LENGTHS else 0
            if shift:
                node = makers[step.node.outputs[0]]
                epsilon = node.attributes["epsilon"].as_float()
                node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon * 2.0 ** (2 * shift))
        return file

    def _values(self, model: Model) -> Iterator[tuple[str, Array]]:
        program = self._program
        for name, stored in program.weights.items():
            if shift := self.logs.get(name):
                values = model.tensors[stored].read()
                yield stored, np.ldexp(values.astype(np.float64), shift).astype(values.dtype)
        for step in program.batch_norms:
            if self.logs.get(step.scale) or self.logs.get(step.shift):
                gain, bias, mean, var = (
                    model.tensors[program.weights[n]].read().astype(np.float64) for n in step.operands
                )
                scale = gain / np.sqrt(var + step.epsilon)
                grown = scale * 2.0 ** self.logs.get(step.scale, 0)
                shifted = (bias - mean * scale) * 2.0 ** self.logs.get(step.shift, 0) + mean * grown
                made = {step.gain: grown * np.sqrt(var + step.epsilon), step.bias: shifted}
                for name, values in made.items():
                    tensor = model.tensors[program.weights[name]]
                    yield program.weights[name], values.astype(tensor.read().dtype)


def reach(model: Model, largest: Mapping[str, float]) -> Reach | None:
    """The scales under which all values have room in float16; None where none is beyond it, or none helps.

    Args:
        model: the network.
        largest: floating value -> its largest size, as far as it was tried.
    """
    lowering = lower(model)
    program = lowering.program
    sizes = {lowering.values[n].name: size for n, size in largest.items() if n in lowering.values}
    if not any(BEYOND < size < np.inf for size in sizes.values()):
        return None
    for name, stored in program.weights.items():
        if model.tensors[stored].floating:
            sizes[name] = float(np.abs(model.tensors[stored].read().astype(np.float64)).max(initial=0))
    found = [_kept(moves, program) for moves in powers(program, _epsilons(program))]
    moves = [one for one in found if one is not None and any(one.get(n) for n in sizes)]
    names = [n for n, size in sizes.items() if 0 < size < np.inf and any(n in one for one in moves)]
    if not names:
        return None
    matrix = np.array([[int(one.get(n, 0)) for one in moves] for n in names])
    there = _descended(matrix, np.log2([sizes[n] for n in names]))
    logs: dict[str, int] = {}
    for count, one in zip(there.tolist(), moves, strict=True):
        for name, power in one.items():
            logs[name] = logs.get(name, 0) + count * int(power)
    return Reach(lowering, {name: shift for name, shift in logs.items() if shift}) if any(there) else None


def _epsilons(program: Program) -> Collection[str]:
    """Positive numbers that are added to something, which may be scaled along with it."""
    added = {n for step in program.elementwise if step.law.kind == "sum" for n in step.operands}
    numbers = {n: v for n, v in program.tables.items() if n in added and v.size == 1 and v.dtype.kind == "f"}
    return {n for n, v in numbers.items() if float(v.reshape(())) > 0}


def _kept(moves: Mapping[str, Fraction], program: Program) -> Mapping[str, Fraction] | None:
    """A scaling, unless it needs an epsilon that its operator does not show."""
    norms = (step for step in program.norms if step.function in LENGTHS and step.x in moves)
    return moves if all("epsilon" in step.node.attributes for step in norms) else None


def _descended(matrix: Array, logs: Array) -> Array:
    """How often to go along each move, so that little is above `ROOM` or below `DEEP`; steps of powers of two."""
    there = np.zeros(matrix.shape[1], np.int64)

    def cost(at: Array) -> float:
        now = logs + matrix @ at
        low = np.minimum(logs, DEEP)  # what was small already is not to be made smaller
        infinite = LOST * np.square(np.maximum(now - np.log2(BEYOND), 0)).sum()
        return float(infinite + np.square(np.maximum(now - ROOM, 0)).sum() + np.square(np.maximum(low - now, 0)).sum())

    least = cost(there)
    for _ in range(TURNS):
        tried = [(k, sign * step) for k in range(len(there)) for step in STEPS for sign in (-1, 1)]
        costs = [(cost(there + _along(len(there), k, step)) + 1e-3 * abs(step), k, step) for k, step in tried]
        best, k, step = min(costs, default=(least, 0, 0))
        if best >= least - 1e-9:
            break
        there = there + _along(len(there), k, step)
        least = cost(there)
    return there


def _along(count: int, k: int, step: int) -> Array:
    made = np.zeros(count, np.int64)
    made[k] = step
    return made
