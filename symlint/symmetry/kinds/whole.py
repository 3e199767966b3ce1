"""Whole tensors: scalings of all elements at once, which a space of size 1 carries.

Where units cannot be told apart, because the network mixes them in a fixed order, the scale of a tensor as a whole may
still be free. Every tensor has one exponent; the equations are those of the rescalings without the axes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction

from symlint.program.functions import dispatched
from symlint.program.steps import (
    CONSTANT,
    Affine,
    Concat,
    Einsum,
    Fold,
    Law,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    Unknown,
)
from symlint.symmetry.charges.linear_system import LinearSystem, Number
from symlint.symmetry.charges.unknowns import ONE, Charge, Occurrence


def whole(tensor: str) -> Occurrence:
    """A tensor as a whole."""
    return Occurrence(tensor, -1, 0, 0)


LENGTHS = ("rms", "l2", "standardise")
"""Normalisations that would take any scale away, had they no epsilon."""


def scalings(program: Program, *, nearly: bool = False) -> list[Charge]:
    """Independent scalings of whole weights, by the exponents of all tensors of the program.

    With `nearly`, as if no normalisation had an epsilon.
    """
    system = _Exponents(program, nearly=nearly)
    for step in program.steps:
        system.step(step)
    return system.solve()


def powers(program: Program, loose: Collection[str]) -> list[dict[str, Fraction]]:
    """Independent scalings as what they do to every tensor: its exponent, a whole number, where it is not zero.

    The `loose` constants scale as weights do: an epsilon among them, a written-out normalisation takes any scale away.
    So do those that have theirs inside, as if they had none.
    """
    system = _Exponents(program, nearly=True, loose=loose)
    for step in program.steps:
        system.step(step)
    names = {number: name for name, number in system.number.items()}
    return [{names[v]: c for v, c in found.items() if c} for found in system.system.solve(names)]


class _Exponents:
    def __init__(self, program: Program, *, nearly: bool, loose: Collection[str] = ()) -> None:
        self.program, self.nearly = program, nearly
        self.number = {name: k for k, name in enumerate(program.shapes)}
        self.system = LinearSystem()
        statistics = {n for step in program.batch_norms for n in step.operands}
        self.free = {n for n in program.weights if n not in program.detached and n not in statistics}
        for name in {*program.ends, *program.tables, *program.detached}.difference(loose):
            self.still(name)
        for loop in (loop for loop in program.loops if not loop.flows):
            self.equal(loop.output, loop.input)
        for name, stored in program.weights.items():
            if not program.model.tensors[stored].floating:
                self.still(name)

    def variable(self, name: str) -> int:
        return self.number.setdefault(name, len(self.number))

    def equal(self, out: str, name: str) -> None:
        """Two tensors scale alike."""
        self.system.equalities.append((self.variable(out), self.variable(name)))

    def product(self, out: str, parts: Sequence[tuple[str, Fraction]]) -> None:
        """The exponent of a tensor is the weighted sum of others."""
        if len(parts) == 1 and parts[0][1] == 1:
            self.equal(out, parts[0][0])
            return
        row: dict[int, Number] = {self.variable(out): -1}
        for name, c in parts:
            v = self.variable(name)
            row[v] = row.get(v, 0) + (c.numerator if c.denominator == 1 else c)
        self.system.add(row)

    def still(self, *names: str) -> None:
        """These tensors keep their scale, unless they are the known zero."""
        for name in names:
            if name not in self.program.nil:
                self.system.zeros.append(self.variable(name))

    def answer(self, law: Law, out: str, names: tuple[str, ...]) -> None:
        """An output against its operands."""
        pairs = zip(names, law.degrees or (ONE,) * len(names), strict=True)
        moving = [(n, d) for n, d in pairs if n not in self.program.nil]
        self.still(*(n for n, d in moving if d is None))
        scaled = [(n, d) for n, d in moving if d is not None]
        if law.kind == "none" or not scaled:
            self.still(out, *(n for n, _ in scaled))
        elif law.kind == "sum":
            for n, _ in scaled:
                self.equal(out, n)
        else:
            self.product(out, scaled)

    def solve(self) -> list[Charge]:
        wanted = {self.variable(n): n for n in (*self.free, *self.program.affines)}
        return [{whole(wanted[v]): c for v, c in s.items()} for s in self.system.solve(wanted)]

    @dispatched
    def step(self, step: Step) -> None:
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        self.product(step.out, [(n, ONE) for n in step.operands])

    @step.register
    def _(self, step: Pointwise) -> None:
        self.answer(step.law, step.out, step.operands)

    @step.register
    def _(self, step: Concat) -> None:
        self.answer(Law("sum"), step.out, step.operands)

    @step.register
    def _(self, step: Slice) -> None:
        self.equal(step.out, step.x)

    @step.register
    def _(self, step: Mix | Fold) -> None:
        self.answer(step.law, step.out, (step.x,))

    @step.register
    def _(self, step: Normalise) -> None:
        lost = step.law == CONSTANT or (self.nearly and step.function in LENGTHS)
        self.still(*(() if lost else step.operands), *step.results)

    @step.register
    def _(self, step: Unknown) -> None:
        self.still(*step.operands, *step.results)

    @step.register
    def _(self, step: Affine) -> None:
        names = (step.gain, step.bias)
        if any(n not in self.program.weights or n in self.program.detached or self.program.reads[n] > 1 for n in names):
            self.still(*step.operands, *step.results)
