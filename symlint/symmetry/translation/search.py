"""The search for translations: every weight, changed in every pattern that its axes suggest, followed to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import prod

from symlint.program.steps import Einsum, Program, Step
from symlint.symmetry.axes.terms import Expansion
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.translation.absorption import Way
from symlint.symmetry.translation.course import Nowhere, Translation, Visit
from symlint.symmetry.translation.following import Closed, Following
from symlint.symmetry.translation.null import alone, layout, nulls
from symlint.symmetry.translation.patterns import Patterns, anything
from symlint.symmetry.translation.wave import Kind, Wave, covers, each, overlap, regrouped, same

Follow = Callable[[str, Wave], "tuple[Visit, ...] | None"]


class Search:
    """All translations of a program."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program = program
        self.patterns = Patterns(program, axes, expansion)
        fixed = program.fixed
        self.nulls = nulls(program, fixed)
        self.shifts = self._shifts()
        self.following = Following(program, fixed, self.nulls)
        self.taken: dict[str, list[tuple[Wave, Way]]] = {}
        """Weight -> its changes found so far, and what takes each back."""
        self.found: dict[str, list[Wave]] = {}
        """The same but for those along a null, which is all that is asked of them, taken back or not."""

    def translations(self) -> Iterator[Translation]:
        """Every translation, weight by weight in the order in which they are read; at last those that gains divide."""
        order = [n for step in self.program.steps for n in step.operands if n in self.program.weights]
        gained = list[str]()
        for name in filter(self._movable, dict.fromkeys(order)):
            self.following.postponed = False
            least = self.patterns.least(name)
            hopeless = least is not None and self._followed(name, least) is None
            yield from self._new(name, self.patterns.of(name) if not hopeless else (), self._followed)
            yield from self._new(name, self.patterns.of(name) if name in self.shifts else (), self._bent)
            if not self._whole(name):
                yield from self._along_nulls(name)
            if self.following.postponed:
                gained.append(name)
        self.following.gains = True
        for name in sorted(gained, key=lambda name: prod(self.program.shapes[name])):
            yield from self._new(name, self.patterns.of(name), self._followed)

    def _movable(self, name: str) -> bool:
        tensor = self.program.model.tensors[self.program.weights[name]]
        still = name in self.program.detached or name in self.program.statistics
        return tensor.floating and bool(tensor.size) and not still

    def _whole(self, name: str) -> bool:
        """Whether any change of a weight has been found to be one."""
        return any(covers(wave, anything(self.program, name)) for wave in self.found.get(name, ()))

    def _new(self, name: str, waves: Iterable[Wave], follow: Follow) -> Iterator[Translation]:
        """The changes of a weight that can be followed, without those that are of one that was found before."""
        for wave in waves:
            if not any(covers(f, wave) for f in self.found.get(name, ())):
                visits = follow(name, wave)
                if visits is not None:
                    self.found.setdefault(name, []).append(wave)
                    yield self._found(Translation(name, wave, visits))

    def _followed(self, name: str, wave: Wave) -> tuple[Visit, ...] | None:
        return self.following.follow({name: wave}, partial(self._circular, name, wave))

    def _shifts(self) -> frozenset[str]:
        """The weights that move the sum of what has a null."""
        return self._made_of(n for axes in self.nulls.values() for null in axes.values() for n, *_ in null.shifts)

    def _made_of(self, names: Iterable[str]) -> frozenset[str]:
        """The weights of which tensors are made."""
        found = set(names)
        todo = list(found)
        while todo:
            maker = self.program.makers.get(todo.pop())
            todo += [n for n in (maker.operands if maker else ()) if n not in found]
            found.update(todo)
        return frozenset(found.intersection(self.program.weights))

    def _bent(self, name: str, wave: Wave) -> tuple[Visit, ...] | None:
        """How a change goes to its end where readers without a bias take it back by their own weights."""
        closed = partial(self._circular, name, wave)
        return self.following.follow({name: wave}, closed, bending=partial(self._bending, name))

    def _bending(
        self, source: str, step: Step, entering: tuple[int, ...], waves: Mapping[str, Wave], closed: Closed
    ) -> Nowhere | None:
        """The weight of a contraction that takes back what is the same along all axes but one with a null.

        What is read is ``x + c`` with ``n . (x + c) = t``: of the weight W goes ``(W c) n / t``.
        """
        if not isinstance(step, Einsum) or len(step.operands) != 2 or len(entering) != 1:
            return None
        (k,) = entering
        x, held = step.operands[k], step.operands[1 - k]
        wave = waves[x]
        if wave.kind is not Kind.CONSTANT or held not in self.program.fixed or x in self.program.fixed:
            return None
        for axis, null in self.nulls.get(x, {}).items():
            if (
                null.vanishes
                or null.mixed
                or not all(wave.same_along(a) for a in range(len(wave.partitions)) if a != axis)
            ):
                continue
            mine = self._along_null(held, step, 1 - k, axis)
            label = alone(step.specs[k][axis], step.sizes)
            summed = {y for spec in step.specs for place in spec for y in place if step.sizes[y] > 1} - step.kept
            way = self.following.absorbers.way(held, mine) if mine is not None and summed == set(label) else None
            if way is not None and way.weight not in {source, *self.program.statistics} and not closed(way):
                return Nowhere(step, way, x, axis, null)
        return None

    def _along_null(self, held: str, step: Einsum, k: int, axis: int) -> Wave | None:
        """Any change of operand `k` of a contraction along the null of an axis of the other one."""
        label = alone(step.specs[1 - k][axis], step.sizes)
        if len(label) != 1 or label not in [alone(a, step.sizes) for a in step.specs[k]]:
            return None
        labels = {y: each(step.sizes[y]) for place in step.specs[k] for y in place}
        labels[label[0]] = same(step.sizes[label[0]])
        return Wave(Kind.CONSTANT, regrouped(labels, step.specs[k], self.program.shapes[held], step.sizes))

    def _found(self, translation: Translation) -> Translation:
        for way in translation.absorbers:
            self.taken.setdefault(translation.weight, []).append((translation.wave, way))
        return translation

    def _circular(self, source: str, pattern: Wave, way: Way) -> bool:
        """Whether what takes the change back, or divides it, is itself taken back by the source in the end."""
        todo, seen = self._needed(way), set[int]()
        while todo:
            name, wave = todo.pop()
            if name == source and overlap(wave, pattern):
                return True
            for here, after in self.taken.get(name, ()):
                if id(after) not in seen and overlap(here, wave):
                    seen.add(id(after))
                    todo += self._needed(after)
        return False

    def _needed(self, way: Way) -> list[tuple[str, Wave]]:
        """The change of the weight at the end of a way, and any of what divides it."""
        divisors = self._made_of(name for back in way.steps for name in back.gains)
        return [(way.weight, way.wave), *((n, anything(self.program, n)) for n in divisors)]

    def _along_nulls(self, name: str) -> Iterator[Translation]:
        """Changes along the null of what a weight is contracted with, wherever it is."""
        here = name
        while here not in self.program.finals and (readers := self.following.readers.get(here, ())):
            steps = [step for step in readers if isinstance(step, Einsum)]
            if len(steps) < len(readers):
                return
            if len(steps) == 1 and len(steps[0].operands) == 1:
                here = steps[0].out
                continue
            if all(len(step.operands) == 2 and step.operands[0] != step.operands[1] for step in steps):
                yield from self._null_of(name, here, steps)
            return

    def _null_of(self, name: str, here: str, steps: Sequence[Einsum]) -> Iterator[Translation]:
        step, *others = steps
        k = step.operands.index(here)
        if any(layout(other) != layout(step) or other.operands.index(here) != k for other in others):
            return
        x = step.operands[1 - k]
        held = {label for axis in step.specs[k] for label in axis}
        kept = step.kept
        for axis, null in self.nulls.get(x, {}).items():
            summed = {y for a in (*step.specs[0], *step.specs[1]) for y in a} - kept
            mine = self._along_null(here, step, k, axis)
            if mine is None or null.mixed or (not null.vanishes and not summed <= held):
                continue
            way = self.following.absorbers.way(here, mine, everywhere=True)
            if way is None or way.weight != name:
                continue
            if any(self.nulls.get(other.operands[1 - k], {}).get(axis) != null for other in others):
                continue
            after: dict[str, Wave] = {}
            if not null.vanishes:
                wide = {y: each(step.sizes[y]) for y in held & kept}
                wave = Wave(Kind.CONSTANT, regrouped(wide, step.result, self.program.shapes[step.out], step.sizes))
                after = {use.out: wave for use in steps}
            visits = self.following.follow(after, partial(self._circular, name, way.wave))
            if visits is not None:
                yield self._found(Translation(name, way.wave, visits, Nowhere(step, way, x, axis, null, tuple(others))))
