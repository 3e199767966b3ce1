"""Second moments of tensors, and what elementwise functions make of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from symlint.analysis.paths.squares import Layout
from symlint.analysis.values.lattice import Value
from symlint.model.graph import Array
from symlint.model.stored import PACKED, unpacked
from symlint.program.flow import Passages
from symlint.program.functions import Parity
from symlint.program.steps import Pointwise

SUMS = frozenset({"Add", "Sub", "Sum", "Mean", "Max", "Min", "Where"})
GATES = frozenset({"Sigmoid", "HardSigmoid", "Exp", "Cos", "Sign", "Reciprocal", "Softplus"})
UNBOUNDED = 1e6
"""Limits above this are none."""


class Elements:
    """The moments of the tensors of a program."""

    def __init__(self, layout: Layout, values: Mapping[str, Value]) -> None:
        self.layout, self.values, self.program = layout, values, layout.structure.program
        self.moving = Passages(self.program).moving
        self.found: dict[str, Array] = {}
        blocks = [step for step in self.program.steps if step.node.op == PACKED]
        self._levels = {name for step in blocks for name in step.results} - self.moving
        read = [(step, n) for step in blocks if self.moving.issuperset(step.results) for n in step.operands]
        self._packed = {name: step.node for step, name in read if name in self._levels}

    # -- tensors --------------------------------------------------------------------------------------------------
    def ones(self, name: str) -> Array:
        """Elements of size one that have nothing to do with each other."""
        return self.layout.spread(name, np.ones(()))

    def number(self, name: str) -> Array | None:
        """The value of a tensor that depends on no input."""
        if name in self._packed:
            made, shape = unpacked(self.program.model, self._packed[name]), self.program.shapes[name]
            return None if made is None else made[0][: shape[0], : shape[1]]
        value = self.values.get(name)
        if name in self.moving or value is None or value.bases is not None:
            return None
        number, shape = np.asarray(value.scale), self.program.shapes[name]
        return (
            np.broadcast_to(number, shape)
            if all(a in (1, b) for a, b in zip(number.shape, shape, strict=True))
            else None
        )

    def unknown(self, name: str) -> bool:
        """Whether the moments of a tensor are found step by step: it depends on the inputs, or has no known value."""
        return name in self.moving or (name not in self._levels and self.number(name) is None)

    def of(self, name: str) -> Array:
        """The second moments of a tensor; inputs are of size one."""
        if name not in self.found:
            number = self.number(name)
            self.found[name] = self.ones(name) if number is None else self.layout.outer(name, number)
        return self.found[name]

    def squares(self, name: str) -> Array:
        """The squares of a tensor's elements."""
        return self.layout.diagonal(name, self.of(name))

    def put(self, name: str, square: Array) -> None:
        """Remember the moments of a tensor."""
        self.found[name] = self.layout.levelled(name, self.layout.masked(name, square))

    # -- functions of elements ---------------------------------------------------------------------------------------
    def lanes(self, step: Pointwise) -> list[int]:
        """The operands through which paths lead; of a constant without a known value, all that it is made of."""
        degrees = step.law.degrees or (None,) * len(step.operands)
        summed = step.law.kind != "product"
        return [
            k
            for k, name in enumerate(step.operands)
            if (name in self.moving or step.out not in self.moving)
            and k >= _conditions(step)
            and (summed or degrees[k] is not None)
        ]

    def plain(self, step: Pointwise) -> Array:
        """The moments of the sum or product of the operands."""
        lanes = self.lanes(step)
        if not lanes:
            return self.ones(step.out)
        if step.law.kind == "product":
            return np.asarray(prod((self.factor(step, k) for k in range(len(step.operands))), start=np.ones(())))
        if step.law.kind != "sum" and step.function not in SUMS:
            lanes = lanes[:1]
        return np.asarray(sum((self.wide(step, k) for k in lanes), start=np.zeros(())))

    def passed(self, step: Pointwise) -> Array:
        """What a function leaves of its argument, element by element."""
        squares = self.layout.diagonal(step.out, np.broadcast_to(self.plain(step), self.of_shape(step.out)))
        if step.law.kind == "none" and step.function in GATES:
            return root(squares, -1.0)
        if self.bound(step):
            return self.slope(step)
        values = step.operands[_conditions(step) :]
        added = [n for n in values if n in self.program.tables and self.program.tables[n].size == 1]
        if step.function in SUMS and added and step.out not in self.layout.structure.compensated:
            more = sum(float(self.program.tables[n].reshape(-1)[0].astype(np.float64)) ** 2 for n in added)
            return np.where(squares > 0, (1.0 + more * root(squares, -2.0)) ** 0.5, 0.0)
        return np.ones(())

    def bound(self, step: Pointwise) -> float:
        """The largest value of a bounded function; 0 of others."""
        if step.law.kind == "none" and (step.function in GATES or step.known.parity is Parity.ODD):
            return 1.0
        node, constants = step.node, self.program.model.constants
        limits = [node.attributes[x] for x in ("min", "max") if x in node.attributes]
        limits += [float(constants[x].reshape(-1)[0]) for x in node.inputs[1:] if x in constants and constants[x].size]
        top = max(map(abs, limits), default=0.0)
        return float(top) if step.function == "Clip" and len(limits) == 2 and top < UNBOUNDED else 0.0

    def slope(self, step: Pointwise) -> Array:
        """What a bounded function leaves of a small change of its argument."""
        plain = np.broadcast_to(self.plain(step), self.of_shape(step.out))
        return np.asarray((1.0 + self.layout.diagonal(step.out, plain) / self.bound(step) ** 2) ** -0.5)

    def of_shape(self, name: str) -> tuple[int, ...]:
        """The shape of the moments of a tensor."""
        shape = self.layout.shape(name)
        return (*shape, *(shape[k] for k in self.layout.doubled(name)))

    def keep(self, step: Pointwise, k: int) -> list[int | None]:
        """The axis of an operand that each axis of the result is."""
        lead = len(self.program.shapes[step.out]) - len(self.program.shapes[step.operands[k]])
        return [None] * lead + list(range(len(self.program.shapes[step.operands[k]])))

    def wide(self, step: Pointwise, k: int) -> Array:
        """The moments of an operand in the layout of the result."""
        name = step.operands[k]
        return self.layout.carry(name, step.out, self.of(name), self.keep(step, k))

    def factor(self, step: Pointwise, k: int) -> Array:
        """What an operand multiplies the moments of a product with."""
        name, degree = step.operands[k], step.law.degrees[k]
        number = self.number(name)
        if degree is None:
            return np.ones(())
        if number is not None:
            wide = number.astype(np.float64)
            bent = np.where(wide == 0, 0.0, np.abs(wide) ** float(degree) * np.sign(wide))
            return self.layout.outer(step.out, bent)
        if degree == 1:
            return self.wide(step, k)
        bent = self.layout.scaled(name, self.of(name), root(self.squares(name), float(degree) - 1.0))
        return self.layout.carry(name, step.out, bent, self.keep(step, k))


def _conditions(step: Pointwise) -> int:
    """How many operands say which of the others is taken."""
    return 1 if step.function == "Where" else 0


def root(squares: Array, power: float) -> Array:
    """A power of the roots of squares; zero stays zero."""
    return np.where(squares > 0, np.where(squares > 0, squares, 1.0) ** (power / 2), 0.0)
