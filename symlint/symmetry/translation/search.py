"""The search for translations: every weight, changed in every pattern that its axes suggest, followed to its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from symlint.axes.terms import Expansion
from symlint.axes.walk import Axes
from symlint.program.steps import Einsum, Program
from symlint.symmetry.translation.absorption import Way
from symlint.symmetry.translation.course import Nowhere, Translation, Visit
from symlint.symmetry.translation.following import Following
from symlint.symmetry.translation.null import alone, nulls
from symlint.symmetry.translation.patterns import Patterns, anything
from symlint.symmetry.translation.wave import Kind, Wave, covers, each, overlap, regrouped, same


class Search:
    """All translations of a program."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program = program
        self.patterns = Patterns(program, axes, expansion)
        fixed = program.fixed
        self.nulls = nulls(program, fixed)
        self.following = Following(program, fixed, self.nulls)
        self.taken: dict[str, list[tuple[Wave, Way]]] = {}
        """Weight -> its changes found so far, and what takes each back."""

    def translations(self) -> Iterator[Translation]:
        """Every translation, weight by weight in the order in which they are read."""
        order = [n for step in self.program.steps for n in step.operands if n in self.program.weights]
        for name in dict.fromkeys(order):
            tensor = self.program.model.tensors[self.program.weights[name]]
            if (
                not tensor.floating
                or not tensor.size
                or name in self.program.detached
                or name in self.program.statistics
            ):
                continue
            found: list[Wave] = []
            least = self.patterns.least(name)
            hopeless = least is not None and self._followed(name, least) is None
            for wave in self.patterns.of(name) if not hopeless else ():
                if any(covers(f, wave) for f in found):
                    continue
                visits = self._followed(name, wave)
                if visits is not None:
                    found.append(wave)
                    yield self._found(Translation(name, wave, visits))
            if not any(covers(f, anything(self.program, name)) for f in found):
                yield from self._along_nulls(name)

    def _followed(self, name: str, wave: Wave) -> tuple[Visit, ...] | None:
        return self.following.follow({name: wave}, partial(self._circular, name, wave))

    def _found(self, translation: Translation) -> Translation:
        for way in translation.absorbers:
            self.taken.setdefault(translation.weight, []).append((translation.wave, way))
        return translation

    def _circular(self, source: str, pattern: Wave, way: Way) -> bool:
        """Whether what takes the change back has itself been found to be taken back, in the end, by the source."""
        todo, seen = [(way.weight, way.wave)], set[int]()
        while todo:
            name, wave = todo.pop()
            if name == source and overlap(wave, pattern):
                return True
            for here, after in self.taken.get(name, ()):
                if id(after) not in seen and overlap(here, wave):
                    seen.add(id(after))
                    todo.append((after.weight, after.wave))
        return False

    def _along_nulls(self, name: str) -> Iterator[Translation]:
        """Changes along the null of what a weight is contracted with."""
        here = name
        while len(self.following.readers.get(here, ())) == 1 and here not in self.program.finals:
            step = self.following.readers[here][0]
            if not isinstance(step, Einsum):
                return
            if len(step.operands) == 1:
                here = step.out
                continue
            if len(step.operands) == 2 and step.operands[0] != step.operands[1]:
                yield from self._null_of(name, here, step)
            return

    def _null_of(self, name: str, here: str, step: Einsum) -> Iterator[Translation]:
        k = step.operands.index(here)
        x = step.operands[1 - k]
        held = {label for axis in step.specs[k] for label in axis}
        kept = step.kept
        for axis, null in self.nulls.get(x, {}).items():
            label = alone(step.specs[1 - k][axis], step.sizes)
            summed = {y for a in (*step.specs[0], *step.specs[1]) for y in a} - kept
            if len(label) != 1 or label[0] not in held or label not in [alone(a, step.sizes) for a in step.specs[k]]:
                continue
            if null.mixed or (not null.vanishes and not summed <= held):
                continue
            labels = {y: each(step.sizes[y]) for y in held}
            labels[label[0]] = same(step.sizes[label[0]])
            mine = Wave(Kind.CONSTANT, regrouped(labels, step.specs[k], self.program.shapes[here], step.sizes))
            way = self.following.absorbers.way(here, mine)
            if way is None or way.weight != name:
                continue
            after: dict[str, Wave] = {}
            if not null.vanishes:
                wide = {y: c for y, c in labels.items() if y in kept}
                after[step.out] = Wave(
                    Kind.CONSTANT, regrouped(wide, step.result, self.program.shapes[step.out], step.sizes)
                )
            visits = self.following.follow(after, partial(self._circular, name, way.wave))
            if visits is not None:
                yield self._found(Translation(name, way.wave, visits, Nowhere(step, way, x, axis, null)))


def translations(program: Program, axes: Axes, expansion: Expansion) -> Sequence[Translation]:
    """All translations of a program."""
    return tuple(Search(program, axes, expansion).translations())
