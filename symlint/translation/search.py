"""The search for translations: every weight, changed in every pattern that its axes suggest, followed to its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from heapq import heappop, heappush

import numpy as np

from symlint.axes import Axes
from symlint.numbers import SUMMING, makers
from symlint.program import Affine, Concat, Einsum, Pointwise, Program, Step, operands, results
from symlint.terms import Expansion
from symlint.translation.absorption import Absorbers, Way
from symlint.translation.course import Nowhere, Translation, Visit
from symlint.translation.null import alone, nulls
from symlint.translation.patterns import anything, patterns
from symlint.translation.transition import Blocked, Transitions
from symlint.translation.wave import Kind, Wave, beside, covers, overlap, regrouped, same, together


class Search:
    """All translations of a program."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program, self.axes, self.expansion = program, axes, expansion
        self.place = {id(step): k for k, step in enumerate(program.steps)}
        self.makers = {name: step for step in program.steps for name in results(step)}
        self.readers: dict[str, list[Step]] = {}
        for step in program.steps:
            for name in dict.fromkeys(operands(step)):
                self.readers.setdefault(name, []).append(step)
        fixed = frozenset({*program.weights, *program.tables, *makers(program)})
        self.nulls = nulls(program, fixed)
        self.transitions = Transitions(program, fixed, self.nulls)
        self.absorbers = Absorbers(program, fixed, self.makers, self.readers)
        self.fixed = fixed
        self.taken: dict[str, list[tuple[Wave, Way]]] = {}
        """Weight -> its changes found so far, and what takes each back."""
        self.known: dict[object, tuple[Visit, ...] | None] = {}
        """The way on from where only one step sees a change of unknown coefficients; None where it comes out."""

    @cached_property
    def statistics(self) -> frozenset[str]:
        """Running means and variances: they are no parameters."""
        return frozenset(n for s in self.program.steps if isinstance(s, Affine) for n in (s.mean, s.var))

    def translations(self) -> Iterator[Translation]:
        """Every translation, weight by weight in the order in which they are read."""
        order = [n for step in self.program.steps for n in operands(step) if n in self.program.weights]
        for name in dict.fromkeys(order):
            tensor = self.program.model.tensors[self.program.weights[name]]
            if not tensor.floating or not tensor.size or name in self.program.detached or name in self.statistics:
                continue
            found: list[Wave] = []
            for wave in patterns(self.program, self.axes, self.expansion, name):
                if any(covers(f, wave) for f in found):
                    continue
                visits = self._follow({name: wave}, name, wave)
                if visits is not None:
                    found.append(wave)
                    yield self._found(Translation(name, wave, visits))
            if not any(covers(f, anything(self.program, name)) for f in found):
                yield from self._along_nulls(name)

    def _found(self, translation: Translation) -> Translation:
        for way in translation.absorbers:
            self.taken.setdefault(translation.weight, []).append((translation.wave, way))
        return translation

    def _follow(self, waves: dict[str, Wave], source: str, pattern: Wave) -> tuple[Visit, ...] | None:
        """The steps through which a change goes to its end; None where it comes out somewhere."""
        waiting: list[int] = []
        queued: set[int] = set()

        def push(name: str) -> None:
            for step in self.readers.get(name, ()):
                if (k := self.place[id(step)]) not in queued:
                    queued.add(k)
                    heappush(waiting, k)

        for name in waves:
            if name in self.program.outputs:
                return None
            push(name)
        visits: list[Visit] = []
        passed: list[tuple[object, int]] = []
        ends = True
        while waiting:
            if len(waiting) == 1 and len(waves) and (key := self._frontier(waiting[0], waves)) is not None:
                if key in self.known:
                    ends = self.known[key] is not None
                    visits.extend(self.known[key] or ())
                    break
                passed.append((key, len(visits)))
            step = self.program.steps[heappop(waiting)]
            entering = tuple(k for k, n in enumerate(operands(step)) if n in waves)
            try:
                made = self._through(step, entering, waves)
            except Blocked:
                ends = False
                break
            ways = self._ways(step, entering, made, source, pattern)
            visits.append(Visit(step, entering, made, ways, self._averages(step, entering, made)))
            for name, wave in made.items() if not ways else ():
                if name in self.program.outputs:
                    ends = False
                waves[name] = wave
                push(name)
            if not ends:
                break
        self.known.update((key, tuple(visits[n:]) if ends else None) for key, n in passed)
        return tuple(visits) if ends and self._even(visits) else None

    def _even(self, visits: Sequence[Visit]) -> bool:
        """Whether a weight that takes the change back where several steps read it does so in all of them alike."""
        taken: dict[str, list[tuple[Step, object]]] = {}
        for visit in visits:
            for _, way in visit.ways:
                reader = way.reader(visit.step)
                if len(self.readers[way.weight]) > 1 and isinstance(reader, Pointwise):
                    taken.setdefault(way.weight, []).append((reader, way.wave.key))
        return all(
            len({key for _, key in found}) == 1 and {id(s) for s, _ in found} == set(map(id, self.readers[name]))
            for name, found in taken.items()
        )

    def _averages(self, step: Step, entering: tuple[int, ...], made: Mapping[str, Wave]) -> bool:
        others = [n for k, n in enumerate(operands(step)) if k not in entering and n not in self.fixed]
        return isinstance(step, Einsum) and bool(others) and any(w.kind is Kind.CONSTANT for w in made.values())

    def _frontier(self, place: int, waves: Mapping[str, Wave]) -> object | None:
        """What all that follows depends on, where a change of unknown coefficients goes through one step alone."""
        step = self.program.steps[place]
        mine = [(n, waves[n]) for n in operands(step) if n in waves]
        if any(w.kind is not Kind.ANY for _, w in mine):
            return None
        return (place, *((n, w.key) for n, w in mine))

    def _through(self, step: Step, entering: tuple[int, ...], waves: Mapping[str, Wave]) -> dict[str, Wave]:
        names = [operands(step)[k] for k in entering]
        apart = isinstance(step, Pointwise) and (
            step.function in SUMMING or (step.function == "Where" and 0 not in entering)
        )
        if len(entering) > 1 and not apart and isinstance(step, (Einsum, Pointwise)):
            raise Blocked
        if isinstance(step, Concat) and len(entering) == len(step.operands):
            whole = beside([waves[n] for n in names], step.axis)
            if whole is not None:
                return {step.out: whole}
        found: dict[str, list[Wave]] = {}
        for k, name in zip(entering, names, strict=True):
            for out, wave in self.transitions.step(step, k, waves[name]).items():
                found.setdefault(out, []).append(wave)
        return {out: together(several) for out, several in found.items()}

    def _ways(
        self, step: Step, entering: tuple[int, ...], made: Mapping[str, Wave], source: str, pattern: Wave
    ) -> tuple[tuple[int, Way], ...]:
        """At a sum: another operand that takes the change back."""
        if not isinstance(step, Pointwise) or step.function not in SUMMING or step.out not in made:
            return ()
        wave = made[step.out]
        if wave.kind is Kind.ANY:
            return ()
        for k, name in enumerate(step.operands):
            if k in entering:
                continue
            narrow = self.absorbers.operand(step, k, wave)
            if narrow is None:
                continue
            way = self.absorbers.way(name, narrow)
            if way is not None and way.weight not in self.statistics and not self._circular(source, pattern, way):
                return ((k, way),)
        return ()

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
        while len(self.readers.get(here, ())) == 1 and here not in self.program.outputs:
            step = self.readers[here][0]
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
        kept = {label for axis in step.result for label in axis}
        for axis, null in self.nulls.get(x, {}).items():
            label = alone(step.specs[1 - k][axis], step.sizes)
            summed = {y for a in (*step.specs[0], *step.specs[1]) for y in a} - kept
            if len(label) != 1 or label[0] not in held or label not in [alone(a, step.sizes) for a in step.specs[k]]:
                continue
            if not null.vanishes and not summed <= held:
                continue
            labels = {y: np.arange(step.sizes[y]) for y in held}
            labels[label[0]] = same(step.sizes[label[0]])
            mine = Wave(Kind.CONSTANT, regrouped(labels, step.specs[k], self.program.shapes[here], step.sizes))
            way = self.absorbers.way(here, mine)
            if way is None or way.weight != name:
                continue
            after: dict[str, Wave] = {}
            if not null.vanishes:
                wide = {y: c for y, c in labels.items() if y in kept}
                after[step.out] = Wave(
                    Kind.CONSTANT, regrouped(wide, step.result, self.program.shapes[step.out], step.sizes)
                )
            visits = self._follow(after, name, way.wave)
            if visits is not None:
                yield self._found(Translation(name, way.wave, visits, Nowhere(step, way, x, axis, null)))


def translations(program: Program, axes: Axes, expansion: Expansion) -> Sequence[Translation]:
    """All translations of a program."""
    return tuple(Search(program, axes, expansion).translations())
