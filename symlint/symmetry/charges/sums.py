"""Sums: axes of a tensor that everything sums over in the end, however many steps later."""

from __future__ import annotations

from symlint.program.functions import dispatched
from symlint.program.steps import Einsum, Pointwise, Program, Step

FAR = 12
"""Steps after which a product is not taken to be part of a contraction."""


class Sums:
    """The axes of the tensors of one program along which only their sum is ever read."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._known: dict[tuple[str, int], bool] = {}

    def taken(self, name: str, axis: int, far: int = FAR) -> bool:
        """Whether every way from a tensor on is linear along an axis, all alike, and sums over it."""
        key = (name, axis)
        if key not in self._known:
            program = self.program
            readers = program.readers.get(name, ()) if far and name not in program.finals else ()
            self._known[key] = bool(readers) and all(self._step(program.steps[k], name, axis, far - 1) for k in readers)
        return self._known[key]

    @dispatched
    def _step(self, step: Step, name: str, axis: int, far: int) -> bool:
        return False

    @_step.register
    def _(self, step: Einsum, name: str, axis: int, far: int) -> bool:
        if step.operands.count(name) > 1:
            return False
        mine = step.operands.index(name)
        label = step.specs[mine][axis]
        others = {x for k, spec in enumerate(step.specs) if k != mine for place in spec for x in place}
        if len(label) != 1 or label[0] in others or step.specs[mine].count(label) > 1:
            return False
        if label[0] not in step.kept:
            return True
        return label in step.result and self.taken(step.out, step.result.index(label), far)

    @_step.register
    def _(self, step: Pointwise, name: str, axis: int, far: int) -> bool:
        shapes = self.program.shapes
        size, rank = shapes[name][axis], len(shapes[step.out])
        place = axis - len(shapes[name]) + rank
        if shapes[step.out][place] != size:
            return False
        if not step.linear:
            beside = [shapes[n] for n in step.operands if n != name]
            thin = all(len(s) < rank - place or s[place - rank] == 1 for s in beside)
            scaled = step.known.factor > 0 or (step.known.factor and step.operands[0] == name)
            if not scaled or not thin or step.operands.count(name) > 1:
                return False
        return self.taken(step.out, place, far)
