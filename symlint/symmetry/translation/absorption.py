"""Absorption: a weight that can take back a change where the two are added.

The search goes backwards from an operand of a sum to a weight through steps that lose nothing: sums, rearrangements,
cuts, lookups of something constant, and a contraction with the tensor in which the change is linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.steps import Affine, Einsum, Mix, Pointwise, Program, Slice, Step, rearranges
from symlint.symmetry.translation.null import layout
from symlint.symmetry.translation.wave import Kind, Partition, Wave, labelled, regrouped, same, varied


@dataclass(frozen=True, slots=True)
class Back:
    """One step of a way: by which operand, and with what change of the step's output."""

    step: Step
    operand: int
    wave: Wave
    bases: tuple[Einsum | Mix, ...] = ()
    """At the contraction with the base: what makes of it the tensor in which the change was linear, last first."""
    window: Mix | None = None
    """At a contraction with a window over the base: that window."""
    gains: tuple[str, ...] = ()
    """At a product: what weights make, by which the change is divided, so that there is none where that is zero."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a change is taken back: from the sum backwards, each step with the operand that is followed."""

    steps: tuple[Back, ...]
    weight: str
    wave: Wave
    """What happens to the weight."""

    @property
    def gained(self) -> bool:
        """Whether the change is divided by weights, so that there is none where these are zero."""
        return any(back.gains for back in self.steps)

    def reader(self, start: Step) -> Step:
        """The step that reads the weight, on the way from the sum `start`."""
        return self.steps[-1].step if self.steps else start


@dataclass(frozen=True)
class Absorbers:
    """The search over one program."""

    program: Program
    fixed: frozenset[str]
    makers: Mapping[str, Step]
    """The step that makes each tensor."""
    readers: Mapping[str, Sequence[Step]]

    def way(self, name: str, wave: Wave, *, everywhere: bool = False) -> Way | None:
        """How the tensor `name` can be made to change by `wave`, and nothing else; `everywhere` it is read, if so.

        One that divides by weights is the last choice.
        """

        def free(here: str, path: Sequence[Back]) -> bool:
            return not path and (everywhere or self.summed(here))

        todo: list[tuple[str, Wave, tuple[Back, ...]]] = [(name, wave, ())]
        last: Way | None = None
        while todo:
            here, wave, path = todo.pop()
            if here in self.program.weights:
                apart = self._alone(here, wave) or self._shared(here, wave)
                if (apart or free(here, path)) and wave.kind is Kind.CONSTANT and self._free(here):
                    found = Way(path, here, wave)
                    if not found.gained:
                        return found
                    last = last or found
                continue
            if not (self._alone(here, wave) or free(here, path)):
                continue
            step = self.makers.get(here)
            if step is None:
                continue
            for k in reversed(range(len(step.operands))):
                back, seen = self._rebased(step, k, wave)
                before = self.before(step, k, seen)
                if before is not None:
                    todo.append((step.operands[k], before, (*path, back)))
        return last

    def _shared(self, name: str, wave: Wave) -> bool:
        """Whether several sums read a weight, so that it may take back the very same change at all of them."""
        readers = self.readers.get(name, ())
        added = all(r.known.copies and r.operands.count(name) == 1 for r in readers)
        return added and wave.exact and len(readers) > 1 and name not in self.program.finals

    def summed(self, name: str) -> bool:
        """Whether several sums read a tensor, and nothing else, so that it may take back what enters all of them."""
        readers = self.readers.get(name, ())
        added = all(isinstance(r, Pointwise) and r.known.sums and r.operands.count(name) == 1 for r in readers)
        return added and len(readers) > 1 and name not in self.program.finals

    def _free(self, name: str) -> bool:
        tensor = self.program.model.tensors[self.program.weights[name]]
        return tensor.floating and name not in self.program.detached

    def _alone(self, name: str, wave: Wave) -> bool:
        """Whether only the way that was come by sees the change; other cuts of the tensor do not."""
        readers = self.readers.get(name, ())
        if name in self.program.finals:
            return False
        if len(readers) == 1:
            return readers[0].operands.count(name) == 1
        cuts = [r for r in readers if isinstance(r, Slice)]
        seen = [r for r in cuts if (wave.partitions[r.axis].values[r.start : r.stop] >= 0).any()]
        return len(cuts) == len(readers) and len({(r.axis, r.start, r.stop) for r in seen}) == len(seen) == 1

    @dispatched
    def before(self, step: Step, k: int, wave: Wave) -> Wave | None:
        """The change of operand `k` that makes the output of a step change by `wave`; None where there is none."""
        return None

    @before.register
    def _(self, step: Pointwise, k: int, wave: Wave) -> Wave | None:
        return self.operand(step, k, wave)

    @before.register
    def _(self, step: Einsum, k: int, wave: Wave) -> Wave | None:
        if not step.product:
            return self._rearranged(step, wave)
        return self._coefficients(step, k, wave) if wave.kind is Kind.LINEAR else None

    @before.register
    def _(self, step: Slice, k: int, wave: Wave) -> Wave | None:
        pieces = list(wave.partitions)
        whole = np.full(self.program.shapes[step.x][step.axis], -1)
        whole[step.start : step.stop] = pieces[step.axis].values
        pieces[step.axis] = Partition(whole)
        moving = wave.where and wave.where[step.axis] is not None
        return None if moving else wave._replace(partitions=tuple(pieces))

    @before.register
    def _(self, step: Mix, k: int, wave: Wave) -> Wave | None:
        if wave.kind is not Kind.CONSTANT or not step.linear or not step.steady:
            return None
        if any(a is None and not p.steady for a, p in zip(step.keep, wave.partitions, strict=True)):
            return None
        shape = self.program.shapes[step.x]
        seats = dict(zip(step.keep, wave.partitions, strict=True))
        return wave._replace(partitions=tuple(seats.get(a, same(n)) for a, n in enumerate(shape)))

    @before.register
    def _(self, step: Affine, k: int, wave: Wave) -> Wave | None:
        return wave if k == 1 and wave.kind is Kind.CONSTANT else None

    def operand(self, step: Pointwise, k: int, wave: Wave) -> Wave | None:
        """The change of operand `k` of an elementwise function that changes its output by `wave`."""
        power, others = step.known.factor, [n for j, n in enumerate(step.operands) if j != k]
        if not (step.linear or ((power > 0 or (power and not k)) and self.fixed.issuperset(others))):
            return None
        if not step.linear:
            if any(n in self.program.tables and not self.program.tables[n].all() for n in others):
                return None
            wave = varied(wave, [self.program.shapes[n] for n in others])
        exact = wave.exact and step.known.copies
        shape = self.program.shapes[step.operands[k]]
        if shape == self.program.shapes[step.out]:
            return wave if exact == wave.exact else wave._replace(exact=exact)
        lead = len(wave.partitions) - len(shape)
        narrow = [a for a in range(len(wave.partitions)) if a < lead or shape[a - lead] != len(wave.partitions[a])]
        if any(not wave.same_along(a) for a in narrow):
            return None
        partitions = tuple(same(n) if a + lead in narrow else wave.partitions[a + lead] for a, n in enumerate(shape))
        return wave._replace(partitions=partitions, where=wave.where[lead:], exact=exact)

    def _rearranged(self, step: Einsum, wave: Wave) -> Wave | None:
        (spec,) = step.specs
        held = {x for axis in spec for x in axis}
        labels = labelled(wave, step.result, step.sizes)
        made = step.kept
        if held - made or any(not labels[x].steady for x in made - held):
            return None
        shape = self.program.shapes[step.operands[0]]
        partitions = regrouped(labels, spec, shape, step.sizes)
        if wave.kind is not Kind.LINEAR:
            return wave._replace(partitions=partitions)
        based = {x: wave.where[a] for a, axis in enumerate(step.result) for x in axis if wave.where[a] is not None}
        if made - held & set(based) or any(len(axis) > 1 and set(axis) & set(based) for axis in (*spec, *step.result)):
            return None
        return wave._replace(partitions=partitions, where=tuple(based.get(axis[0]) if axis else None for axis in spec))

    def _rebased(self, step: Step, k: int, wave: Wave) -> tuple[Back, Wave]:
        """A change that is linear in what a contraction reads, if it is linear in what is linear in that."""
        start, bases = wave, list[Einsum | Mix]()
        if not step.product or len(step.operands) != 2 or wave.kind is not Kind.LINEAR:
            beside = (n for j, n in enumerate(step.operands) if j != k and step.known.factor > 0)
            return Back(step, k, start, gains=tuple(n for n in beside if n not in self.program.tables)), start
        target = step.operands[1 - k]
        window = self.makers.get(target)
        while not self._one(wave.base, target):
            if isinstance(window, Mix) and window.centre and wave.base == self._seen(window):
                return Back(step, k, start, tuple(bases), window), centred(window, wave)
            maker = self.makers.get(wave.base)
            below = None
            if isinstance(maker, Einsum | Mix):
                below = rebase(maker, wave, self.fixed) if isinstance(maker, Einsum) else self._narrow(maker, wave)
            if below is None or not isinstance(maker, Einsum | Mix):
                return Back(step, k, start), start
            wave = below
            bases.append(maker)
        return Back(step, k, start, tuple(bases)), wave._replace(base=target)

    def _one(self, name: str, other: str) -> bool:
        """Whether two tensors are one, rearranged or seen through windows alike: each reader has its own of these."""
        while name != other:
            one, two = self.makers.get(name), self.makers.get(other)
            if one is None or two is None:
                return False
            seen = one.windows == two.windows and self.program.shapes[name] == self.program.shapes[other]
            taps = seen and bool(one.windows) and all(window.kernel is not None for window in one.windows)
            if not taps and (not rearranges(one) or not rearranges(two) or layout(one) != layout(two)):
                return False
            (name,), (other,) = one.operands, two.operands
        return True

    def _narrow(self, window: Mix, wave: Wave) -> Wave | None:
        """A change that is linear in windows of one place as one that is linear in what they see."""
        shape = self.program.shapes[window.out]
        if not window.centre or any(shape[middle.kernel] != 1 for middle in window.centre):
            return None
        seats = sources(window)
        where = tuple(None if a is None else seats.get(a) for a in wave.where)
        return wave._replace(
            base=self._seen(window), where=where, taken=frozenset(seats[a] for a in wave.taken if a in seats)
        )

    def _seen(self, window: Mix) -> str:
        """What a window sees in its middle: the tensor that it reads, or a name for every so manieth of its places."""
        read, made = self.program.shapes[window.x], self.program.shapes[window.out]
        if all(middle.stride == 1 and read[middle.source] == made[middle.place] for middle in window.centre):
            return window.x
        return f"{window.x}, {[(middle.stride, made[middle.place]) for middle in window.centre]}"

    def _coefficients(self, step: Einsum, k: int, wave: Wave) -> Wave | None:
        """The weight of a contraction with the tensor in which the change is linear."""
        if len(step.operands) != 2 or step.operands[k] not in self.fixed:
            return None
        other = step.operands[1 - k]
        seats = {axis[0]: a for a, axis in enumerate(step.specs[1 - k]) if len(axis) == 1}
        if other != wave.base or any(len(axis) > 1 for axis in (*step.specs[1 - k], *step.result)):
            return None
        mine = {x for axis in step.specs[k] for x in axis}
        made = [axis[0] if axis else None for axis in step.result]
        where = tuple(seats.get(x) if x is not None else None for x in made)
        summed = {a for x, a in seats.items() if x not in made}
        # Where an axis goes along with one that is summed over here, the weight changes on its diagonal.
        turned = [(x, a) for x, a, b in zip(made, wave.where, where, strict=True) if a is not None and b is None]
        if any(x not in mine or self.program.shapes[other][a] != step.sizes[x] for x, a in turned):
            return None
        kept = tuple(b if b is not None or a not in summed else a for a, b in zip(wave.where, where, strict=True))
        along = wave.taken.union(a for _, a in turned)
        if kept != wave.where or summed != along or any(x not in mine for x, a in seats.items() if a in summed):
            return None
        if any(x not in mine and not p.steady for x, p in zip(made, wave.partitions, strict=True)):
            return None
        labels = {x: p for x, p in zip(made, wave.partitions, strict=True) if x is not None}
        labels.update({x: same(step.sizes[x]).spread for x in mine if x not in labels})
        for x, a in seats.items():
            if (index := dict(wave.at).get(a)) is not None:
                labels[x] = Partition(np.where(np.arange(step.sizes[x]) == index, 0, -1))
        shape = self.program.shapes[step.operands[k]]
        return Wave(Kind.CONSTANT, regrouped(labels, step.specs[k], shape, step.sizes))


def sources(window: Mix) -> dict[int, int]:
    """The axes of a window that are axes of what it reads, in its middle."""
    kept = {k: a for k, a in enumerate(window.keep) if a is not None}
    return {**kept, **{middle.place: middle.source for middle in window.centre}}


def centred(window: Mix, wave: Wave) -> Wave:
    """A change that is linear in what a window reads as one that is linear in the window, in its middle alone."""
    seats = {a: k for k, a in sources(window).items()}
    where = tuple(None if a is None else seats[a] for a in wave.where)
    taken = {seats[a] for a in wave.taken}.union(middle.kernel for middle in window.centre)
    at = tuple((middle.kernel, middle.at) for middle in window.centre)
    return wave._replace(base=window.out, where=where, taken=frozenset(taken), at=at)


def rebase(maker: Einsum, wave: Wave, fixed: frozenset[str]) -> Wave | None:
    """A change that is linear in what `maker` makes, as one that is linear in the operand that depends on the input."""
    moving = [j for j, n in enumerate(maker.operands) if n not in fixed]
    if len(moving) != 1 or any(len(axis) > 1 for axis in (*maker.specs[moving[0]], *maker.result)):
        return None
    seats = {axis[0]: a for a, axis in enumerate(maker.specs[moving[0]]) if axis}
    made = [axis[0] if axis else None for axis in maker.result]
    coefficients = {x for j, spec in enumerate(maker.specs) if j not in moving for axis in spec for x in axis}
    where: list[int | None] = []
    partitions = list(wave.partitions)
    for k, a in enumerate(wave.where):
        label = made[a] if a is not None else None
        where.append(seats.get(label) if label is not None else None)
        if label in coefficients:
            partitions[k] = partitions[k].spread
    taken = {a for label, a in seats.items() if label not in made}
    taken |= {seats[x] for a in wave.taken if (x := made[a]) is not None and x in seats}
    return Wave(Kind.LINEAR, tuple(partitions), maker.operands[moving[0]], tuple(where), frozenset(taken))
