"""Following: a change of one tensor, step by step, to where nothing sees it or something takes it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from heapq import heappop, heappush

from symlint.model.records import dataclass
from symlint.program.steps import Concat, Einsum, Pointwise, Program, Step
from symlint.symmetry.translation.absorption import Absorbers, Way
from symlint.symmetry.translation.course import Nowhere, Visit
from symlint.symmetry.translation.null import Alike, Null, Nulls
from symlint.symmetry.translation.transition import Blocked, Transitions
from symlint.symmetry.translation.wave import Kind, Wave, beside, together

LONG = 24
"""Steps after which a change is taken to be on its way through many layers."""
Closed = Callable[[Way], bool]
Bending = Callable[[Step, tuple[int, ...], Mapping[str, Wave], Closed], Nowhere | None]
Reading = Callable[[Step, tuple[int, ...], Mapping[str, Wave]], bool]
"""Whether a step, which the change enters by some operands, reads it to its end, whatever it makes of it."""


@dataclass(slots=True)
class _Trail:
    """The way of a change by now."""

    bending: Bending | None = None
    reading: Reading | None = None
    barred: frozenset[str] = frozenset()
    """Weights that take nothing back."""
    visits: list[Visit] = field(default_factory=list)
    passed: list[tuple[object, int]] = field(default_factory=list)
    """Where it went through one step alone: what all that follows depends on, and how many visits came before."""
    own: int | None = None
    """How many visits are its own, where the rest was known."""
    ends: bool = True
    tried: bool = False
    """Whether the way of a looser change was tried, which all share."""
    taken: dict[str, list[tuple[Step, object]]] = field(default_factory=dict)
    """Weight that several steps read -> those in which it takes a change back, each with the change."""
    numbers: Alike | None = None
    sources: frozenset[str] = frozenset()
    """Where the change begins, at several tensors alike perhaps."""

    def alike(self, following: Following, waves: Mapping[str, Wave]) -> Alike:
        """Which changes are one and the same."""
        if self.numbers is None:
            self.numbers = Alike(following.program, following.transitions.average, waves, self.sources)
        return self.numbers


class _Front:
    """The steps that a change has yet to go through, in the order of the program."""

    def __init__(self, program: Program, start: int) -> None:
        self.program, self.start = program, start
        self.waiting: list[int] = []
        self.queued: set[int] = set()

    def push(self, name: str) -> bool:
        """Add the readers of a tensor; False where it is an output."""
        for k in self.program.readers.get(name, ()):
            if k not in self.queued and k >= self.start:
                self.queued.add(k)
                heappush(self.waiting, k)
        return name not in self.program.finals

    def pop(self) -> int:
        """The first step of all."""
        return heappop(self.waiting)


class Following:
    """The courses of changes through one program."""

    def __init__(self, program: Program, fixed: frozenset[str], nulls: Nulls) -> None:
        self.program, self.fixed = program, fixed
        self.reads = [step.operands for step in program.steps]
        self.distinct = [tuple(dict.fromkeys(read)) for read in self.reads]
        self.makers = program.producers
        self.readers = {name: [program.steps[k] for k in places] for name, places in program.readers.items()}
        self.transitions = Transitions(program, fixed, nulls)
        self.absorbers = Absorbers(program, fixed, self.makers, self.readers)
        self.known: dict[object, tuple[list[Visit], int, bool]] = {}
        """The way on from where only one step sees a change that nothing takes back, and whether it goes to an end."""
        self.refused = False
        """Whether what would take a change back was left out, as it is taken back by the change itself, or gained."""
        self.gains = False
        """Whether what takes a change back may be divided by weights."""
        self.postponed = False
        """Whether it would have been."""

    def follow(
        self,
        waves: Mapping[str, Wave],
        closed: Closed,
        start: int = 0,
        *,
        bending: Bending | None = None,
        reading: Reading | None = None,
    ) -> tuple[Visit, ...] | None:
        """The steps through which a change goes to its end; None where it comes out somewhere.

        `closed` says of what would take the change back that it is, in the end, taken back by the change itself;
        `bending` what at a contraction takes a change back, along the null of what is read there; `reading` of a step
        whether the change ends there, and raises Blocked where it may not go on.
        """
        barred = frozenset[str]()
        while True:
            trail = _Trail(bending, reading, barred, sources=frozenset(waves))
            found, uneven = self._followed(dict(waves), closed, start, trail)
            if not uneven:
                return found
            barred |= uneven

    def _followed(
        self, waves: dict[str, Wave], closed: Closed, start: int, trail: _Trail
    ) -> tuple[tuple[Visit, ...] | None, frozenset[str]]:
        """The same where barred weights take nothing back; and those that would in some of their uses alone."""
        front = _Front(self.program, start)
        if not all(front.push(name) for name in waves):
            return None, frozenset()
        self.refused = False
        alone = trail.bending is None and trail.reading is None
        while front.waiting and trail.ends:
            if alone and len(front.waiting) == 1 and self._ended(trail, front.waiting[0], waves, closed):
                break
            self._visit(trail, front, waves, closed)
        mine = trail.visits[: trail.own]  # what is known of the way on takes nothing back
        back = max((k + 1 for k, visit in enumerate(mine) if visit.ways), default=0)
        known = ((key, (trail.visits, n, trail.ends)) for key, n in trail.passed if n >= back)
        self.known.update(known if not self.refused else ())
        uneven = self._uneven(trail.taken) if trail.ends else frozenset[str]()
        return tuple(trail.visits) if trail.ends and not uneven else None, uneven

    def _visit(self, trail: _Trail, front: _Front, waves: dict[str, Wave], closed: Closed) -> None:
        """The next step, and what it makes of the change."""
        place = front.pop()
        step = self.program.steps[place]
        entering = tuple(k for k, n in enumerate(self.reads[place]) if n in waves)
        try:
            made = self._through(step, entering, waves, trail)
            read = trail.reading is not None and trail.reading(step, entering, made)
        except Blocked:
            trail.ends = False
            return
        if read:
            return
        if not trail.sources.isdisjoint(made):
            trail.ends = False
            return
        ways = self._ways(step, entering, made, closed, trail.barred)
        for k, way in ways:
            self._share(trail, step, entering, k, way, waves)
        # A product that a sum behind it makes an average of is left out on the way.
        behind = step.elementwise and made.keys().isdisjoint(step.results)
        average = self._average(step, entering, made, waves) if step.product or behind else None
        bent = trail.bending(step, entering, waves, closed) if trail.bending and made else None
        trail.visits.append(Visit(step, entering, made, ways, average, bent))
        for name, wave in trail.visits[-1].onward.items():
            waves[name] = wave
            trail.ends &= front.push(name)

    def _ended(self, trail: _Trail, place: int, waves: Mapping[str, Wave], closed: Closed) -> bool:
        """Whether the rest of the way is known, where the change goes through one step alone; it is added then."""
        key = self._frontier(place, waves)
        if key in self.known:
            tail, n, trail.ends = self.known[key]
            trail.own = len(trail.visits)
            trail.visits += tail[n:]
            return True
        if len(trail.visits) >= LONG and not trail.tried:
            # What is linear in which tensor matters to a weight nearby; the rest of the way is shared by all.
            trail.tried, before = True, self.refused
            entering = self._entering(place, waves)
            if (end := self.follow({n: w.loose() for n, w in entering.items()}, closed, place)) is not None:
                trail.visits += end
                return True
            self.refused |= before
            if not self.refused and not any(map(self._shared, entering.values())):
                trail.ends = False
                return True
        trail.passed.append((key, len(trail.visits)))
        return False

    def _share(
        self, trail: _Trail, step: Step, entering: tuple[int, ...], k: int, way: Way, waves: Mapping[str, Wave]
    ) -> None:
        """Remember what takes a change back where several steps read it, and which change that is.

        Its numbers are those of the source, or it depends on no input, or it is told by the tensors that bring it.
        """
        reader, operand = way.reader(step), step.operands[k]
        if len(self.readers[operand]) > 1 and not (way.wave.exact and operand == way.weight):
            told: object = self._entrance(step, k, entering)
            if isinstance(step, Pointwise) and all(waves[step.operands[j]].kind is Kind.CONSTANT for j in entering):
                told = trail.alike(self, waves).summed(step), step.known.sign(k)
            trail.taken.setdefault(operand, []).append((step, told))
        elif len(self.readers[way.weight]) > 1 and reader.elementwise:
            trail.taken.setdefault(way.weight, []).append((reader, way.wave.key))

    def _uneven(self, taken: Mapping[str, Sequence[tuple[Step, object]]]) -> frozenset[str]:
        """What takes the change back, but not in all steps that read it, or not alike."""
        return frozenset(
            name
            for name, found in taken.items()
            if len({told for _, told in found}) > 1
            or sorted(id(s) for s, _ in found) != sorted(map(id, self.readers[name]))
        )

    def _average(
        self, step: Step, entering: tuple[int, ...], made: Mapping[str, Wave], waves: Mapping[str, Wave]
    ) -> Null | None:
        """What a change is averaged by where it stays what it is: the same for all inputs, or linear in one tensor."""
        before = waves[step.operands[entering[0]]]
        if not made or before.kind is Kind.ANY or any(w.kind is not before.kind for w in made.values()):
            return None
        moving = [k for k, n in enumerate(step.operands) if k not in entering and n not in self.fixed]
        if isinstance(step, Einsum):
            return self.transitions.average(step, moving[0]) if moving else None
        return next(null for null in self.transitions.nulls[step.operands[moving[0]]].values() if null.plain)

    def _frontier(self, place: int, waves: Mapping[str, Wave]) -> object:
        """What all that follows depends on, where a change goes through one step alone."""
        return (place, *[(n, waves[n]) for n in self.distinct[place] if n in waves])

    def _shared(self, wave: Wave) -> bool:
        """Whether another weight reads that in which a change is linear, and so might take it back."""
        base = wave.base
        while len(self.readers.get(base, ())) == 1 and isinstance(maker := self.makers.get(base), Einsum):
            moving = [name for name in maker.operands if name not in self.fixed]
            if len(moving) != 1:
                return False
            (base,) = moving
        return len(self.readers.get(base, ())) != 1

    def _entering(self, place: int, waves: Mapping[str, Wave]) -> dict[str, Wave]:
        return {n: waves[n] for n in self.distinct[place] if n in waves}

    def _through(
        self, step: Step, entering: tuple[int, ...], waves: Mapping[str, Wave], trail: _Trail
    ) -> dict[str, Wave]:
        read = step.operands
        if len(entering) == 1:
            return self.transitions.step(step, entering[0], waves[read[entering[0]]])
        names = [read[k] for k in entering]
        if isinstance(step, Pointwise) and all(waves[n].kind is Kind.CONSTANT for n in names):
            met = self._met(step, entering, waves, trail)
            if met is not None:
                return met
        apart = step.known.sums or (step.known.chooses and 0 not in entering)
        if len(entering) > 1 and not apart and (step.product or step.elementwise):
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

    def _met(
        self, step: Pointwise, entering: tuple[int, ...], waves: Mapping[str, Wave], trail: _Trail
    ) -> dict[str, Wave] | None:
        """What an elementwise step makes of changes that are one and the same, or that cancel; None of any others."""
        if step.known.sums and not trail.alike(self, waves).balance(step):
            return {}
        whole = step.known.largest and len(entering) == len(step.operands)
        if whole and (_copied([waves[n] for n in step.operands]) or trail.alike(self, waves).equal(step.operands)):
            return {step.out: self.transitions.broadcast(step, 0, waves[step.operands[0]])}
        return None

    def _ways(
        self, step: Step, entering: tuple[int, ...], made: Mapping[str, Wave], closed: Closed, barred: frozenset[str]
    ) -> tuple[tuple[int, Way], ...]:
        """At a sum: another operand that takes the change back, one that divides by weights if there is no other."""
        wave = made.get(step.total)
        if wave is None or wave.kind is Kind.ANY:
            return ()
        last: tuple[tuple[int, Way], ...] = ()
        for k, name in enumerate(step.operands):
            if k in entering:
                continue
            narrow = self.absorbers.before(step, k, wave)
            if narrow is None:
                continue
            way = self.absorbers.way(name, narrow)
            if way is None or way.weight in self.program.statistics or not barred.isdisjoint((name, way.weight)):
                continue
            if closed(way):
                self.refused = True
            elif not way.gained:
                return ((k, way),)
            elif self.gains:
                last = last or ((k, way),)
            else:
                self.refused = self.postponed = True
        return last

    @staticmethod
    def _entrance(step: Step, k: int, entering: tuple[int, ...]) -> frozenset[tuple[str, int]]:
        """What operand `k` of a sum takes back there: the tensors that bring it, and whether they count as it does."""
        known = step.known
        return frozenset((step.operands[j], known.sign(j) * known.sign(k)) for j in entering)


def _copied(waves: Sequence[Wave]) -> bool:
    """Whether changes are the same numbers of one weight, along one axis."""
    first = waves[0]
    told = [p for p in first.partitions if not p.steady]
    return len(told) < 2 and all(w.exact and w.partitions == first.partitions for w in waves)
