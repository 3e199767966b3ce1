"""States after a move: where a generator takes what a network carries on, against what it says of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.runtime.difference import difference
from symlint.runtime.runner import Run
from symlint.symmetry.motion.teleport import Journey, journey
from symlint.symmetry.structure import Structure

ELSEWHERE = "its states end elsewhere than it says"


@dataclass(frozen=True)
class Straying:
    """The states of a network over a few steps, before and after moves."""

    structure: Structure
    seed: int
    run: Callable[[Mapping[str, Array]], Run]
    """All outputs of some steps, those of states among them, with other values of some weights."""

    def found(self, held: Sequence[str], tolerance: float) -> dict[str, float]:
        """Generators, of those that hold outside, that move states elsewhere than they say, and how far off."""
        telling = [name for name in held if self.structure.action(name).carries] if self.names else []
        if not telling or self.before.failure is not None or self._apart(telling) <= tolerance:
            return {}
        alone = {name: self._apart([name]) for name in telling}
        return {name: apart for name, apart in alone.items() if apart > tolerance}

    @cached_property
    def names(self) -> dict[str, str]:
        """Output of the model -> the tensor of the program that it is, of closed loops."""
        program = self.structure.program
        outputs = {state.input: state.output for state in program.model.states}
        return {outputs[loop.input]: loop.output for loop in program.loops if loop.input in outputs}

    @cached_property
    def before(self) -> Run:
        """What the network as it is hands out."""
        return self.run({})

    def _apart(self, generators: Sequence[str]) -> float:
        taken = journey(self.structure, generators, self.seed)
        after = self.run(taken.moved)
        if after.failure is not None or len(after.outputs) != len(self.before.outputs):
            return float("inf")
        pairs = zip(self.before.outputs, after.outputs, strict=True)
        return max(self._off(taken, k, x, y) for k, (x, y) in enumerate(pairs))

    def _off(self, taken: Journey, k: int, before: Array, after: Array) -> float:
        """How far one output is off; what others read is compared elsewhere."""
        outputs = self.structure.program.model.graph.outputs
        name = self.names.get(outputs[k % len(outputs)])
        return 0.0 if name is None else difference(taken.carried(name, before).astype(after.dtype), after)
