"""Redundancy: parameters that a translation makes superfluous, for the rules that name the kinds of them.

How a rank below its bound is told, and the missing directions of a stream: what the rules on ranks share.

What a finding about units of a state costs at every step: numbers that are kept for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from symlint.evidence.context import Context
from symlint.evidence.products import Product
from symlint.evidence.ranks import Rank
from symlint.evidence.streams import End, streams
from symlint.lint.finding import Drop, Factor, Finding, Level, Spectrum
from symlint.lint.rule import Rule, by_share
from symlint.model.records import dataclass
from symlint.model.states import grows
from symlint.program.flow import Passage
from symlint.symmetry.spaces import Space, Symmetry
from symlint.symmetry.structure import Structure


@dataclass(frozen=True, slots=True)
class Redundancy:
    """What one translation says of the weight that it moves."""

    tensor: str
    directions: int
    free: bool
    """Whether any change of the weight, or of a part of an axis of it, is one."""
    absorbers: tuple[str, ...]
    """Weights that take the change back."""
    sinks: frozenset[str]
    """Normalisations that do not see it."""
    averaged: bool
    """Whether it goes through an average with probabilities as weights."""


def redundancies(context: Context) -> dict[str, list[Redundancy]]:
    """Space -> what its translations say."""
    program = context.structure.program
    found: dict[str, list[Redundancy]] = {}
    for action in context.structure.shifts:
        translation = action.translation
        absorbers = dict.fromkeys(program.weights[way.weight] for way in translation.absorbers)
        said = Redundancy(
            program.weights[translation.weight],
            translation.dimension,
            translation.free,
            tuple(absorbers),
            translation.sinks,
            translation.averaged,
        )
        found.setdefault(action.space, []).append(said)
    return found


def _counted(number: int) -> dict[str, str]:
    """The words of a message that follow a number."""
    if number == 1:
        return {"directions": "1 direction", "parameters": "1 parameter", "verb": "is", "shift": "shifts"}
    count = f"{number:,}"
    return {"directions": f"{count} directions", "parameters": f"{count} parameters", "verb": "are", "shift": "shift"}


def redundant(context: Context, rule: Rule, chosen: Callable[[Redundancy], bool], message: str) -> Iterator[Finding]:
    """One finding per space with redundancies of the kind that is `chosen`."""
    spaces = {space.id: space for space in context.symmetry.spaces}
    for space, all_of_it in redundancies(context).items():
        mine = [r for r in all_of_it if chosen(r)]
        if not mine:
            continue
        tensors = sorted({r.tensor for r in mine})
        absorbers = sorted({a for r in mine for a in r.absorbers})
        directions = sum(r.directions for r in mine)
        called = [_named(list(map(context.named.spoken, some))) for some in (tensors, absorbers)]
        text = message.format(tensors=called[0], absorbers=called[1], **_counted(directions))
        facts = {"directions": directions, "tensors": tensors, "absorbers": absorbers}
        yield Finding(
            rule.code,
            rule.name,
            rule.level,
            rule.evidence,
            text,
            space,
            (),
            context.tensors(spaces[space]),
            facts,
            saves=directions,
            repair=Drop(tuple(tensors)) if rule.repair else None,
        )


def _named(tensors: list[str]) -> str:
    return tensors[0] if len(tensors) == 1 else f"{tensors[0]} and {len(tensors) - 1} more" if tensors else "nothing"


def costed(findings: Iterable[Finding], symmetry: Symmetry, structure: Structure) -> list[Finding]:
    """The findings; the facts of those about a state say what it holds.

    ``carried`` has the ``inputs`` by which it comes back, and how many numbers ``of`` so many are ``used`` per
    ``token`` where the state grows, else per ``step``, and the ``bytes`` of the others; of heads, of those that the
    finding names.
    """
    spaces = {space.id: space for space in symmetry.spaces}
    return [
        replace(f, facts={**f.facts, "carried": _state(f, spaces[f.space], structure)})
        if f.space is not None and f.space in structure.carried
        else f
        for f in findings
    ]


def resting(findings: Sequence[Finding], rules: Iterable[Rule], context: Context) -> list[Finding]:
    """The findings; the facts of those that are true only since states begin with zeros say so, by ``start``."""
    held = any(not loop.flows for loop in context.structure.program.loops)
    said = {f.rule for f in findings if f.level > Level.NOTE} if held else set[str]()
    again = {_told(f) for rule in rules if rule.code in said for f in rule.findings(context.anyhow)}
    return [
        replace(f, facts={**f.facts, "start": "zero"}) if f.rule in said and _told(f) not in again else f
        for f in findings
    ]


def _told(finding: Finding) -> tuple[str, str | None, tuple[int, ...]]:
    return finding.rule, finding.space, finding.units


def _state(finding: Finding, space: Space, structure: Structure) -> dict[str, object]:
    inputs, program = structure.carried[space.id], structure.program
    growing = any(grows(loop.axes, program.shapes[loop.input]) for loop in program.loops if loop.input in inputs)
    used, total = _numbers(finding, space)
    wasted = (total - used) * width(program.model.dtypes.get(inputs[0], ""))
    per = "token" if growing else "step"
    return {"inputs": list(inputs), "used": used, "of": total, "per": per, "bytes": wasted}


def width(dtype: str) -> int:
    """Bytes of a number in a run; what is stored in fewer than 16 bits is computed in float32."""
    return {"float16": 2, "bfloat16": 2, "float64": 8}.get(dtype, 4)


def _numbers(finding: Finding, space: Space) -> tuple[int, int]:
    """How many numbers would do, of how many."""
    ranks = finding.facts.get("ranks")
    if isinstance(ranks, Sequence) and ranks:
        return sum(map(int, ranks)), len(ranks) * space.size
    total = space.size * space.copies
    return total - len(finding.units), total


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A space in words."""

    space: Space
    product: Product

    @property
    def ranks(self) -> str:
        """The ranks and what they could have been, such as ``1 of 16`` or ``1 to 5 of 16``."""
        low = self.product.low.values()
        return f"{_span(r.rank for r in low)} of {_span(r.bound for r in low)}"

    @property
    def vanished(self) -> bool:
        """Whether every product spoken of is zero."""
        return not any(r.rank for r in self.product.low.values())

    def some(self, one: str, many: str) -> str:
        """Which copies, under the name that a reader has for them."""
        low, copies = list(self.product.low), self.product.copies
        if copies == 1:
            return f"the {one}"
        return f"{one} {low[0]} of {copies}" if len(low) == 1 else f"{len(low)} of {copies} {many}"


def shortfalls(
    rule: Rule, context: Context, passage: Passage, say: Callable[[Shortfall], str], *, numbered: bool
) -> Iterator[Finding]:
    """One finding per space of this passage whose product is low in rank.

    Args:
        rule: that reports it.
        context: the model.
        passage: of the units on their way.
        say: the message.
        numbered: whether a space with one copy gives the number of that copy as well.
    """
    for space, product in context.products:
        if product.passage != passage:
            continue
        low = product.low
        lost = sum(r.bound - r.rank for r in low.values())
        saves = sum((product.width - r.rank) * product.parameters[k] for k, r in low.items())
        shortfall = Shortfall(space, product)
        whole = shortfall.vanished and len(low) == product.copies
        yield Finding(
            rule.code,
            rule.name,
            Level.NOTE if whole else by_share(context, rule, lost, product.total, saves),
            rule.evidence,
            say(shortfall),
            space.id,
            tuple(low) if numbered or product.copies > 1 else (),
            context.tensors(space),
            {**told(low, product.width, product.copies), **_cache(context, shortfall)},
            saves=saves,
            repair=Factor(),
            spectra=spectra(low),
        )


def told(low: Mapping[int, Rank], width: int, copies: int) -> dict[str, object]:
    """The facts of ranks below their bounds, copy by copy."""
    return {
        "ranks": [r.rank for r in low.values()],
        "bounds": [r.bound for r in low.values()],
        "width": width,
        "copies": copies,
        "kept": [short(r.kept) for r in low.values()],
        "dropped": [short(r.dropped) for r in low.values()],
        "tolerance": [short(r.tolerance) for r in low.values()],
    }


def spectra(low: Mapping[int, Rank]) -> tuple[Spectrum, ...]:
    """What there is to draw of ranks below their bounds."""
    return tuple(Spectrum(k, r.rank, r.bound, short(r.tolerance), r.values) for k, r in low.items() if r.values)


def _cache(context: Context, shortfall: Shortfall) -> dict[str, object]:
    """What a decoder that keeps the keys or values of all tokens holds of all heads, in bytes per token."""
    product, what = shortfall.product, {"scores": "keys", "values": "values"}.get(shortfall.product.passage)
    if what is None:
        return {}
    each = width(context.symmetry.model.tensors[context.tensors(shortfall.space)[0]].dtype)
    wanted = sum(product.ranks[k] if k in product.low else product.width for k in range(product.copies))
    held = product.width * product.copies
    return {"cache": {"of": what, "bytes": held * each, "used": wanted * each, "per": "token"}}


def _span(numbers: Iterator[int]) -> str:
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def short(value: float) -> float:
    """Two digits: the rest is the noise of the gauge."""
    return float(f"{value:.1e}")


def missing(
    rule: Rule, context: Context, end: End, say: Callable[[str, str], str], *, saves: bool
) -> Iterator[Finding]:
    """One finding per stream that lacks directions at one end.

    Args:
        rule: that reports it.
        context: the model.
        end: which directions count.
        say: the message, given how many directions are missing and the name of the stream.
        saves: whether the stream could do without them.
    """
    owner = {generator.id: generator.space for generator in context.symmetry.generators}
    spaces = {space.id: space for space in context.symmetry.spaces}
    for stream in streams(context.structure, end):
        space, low = spaces[owner[stream.generator]], stream.low
        lost, bound = sum(r.bound - r.rank for r in low.values()), sum(r.bound for r in low.values())
        where = f"{len(low)} of {stream.copies} copies of {space.name}" if stream.copies > 1 else space.name
        yield Finding(
            rule.code,
            rule.name,
            by_share(context, rule, lost, bound),
            rule.evidence,
            say(f"{lost} of {bound} directions", where),
            space.id,
            tuple(low) if stream.copies > 1 else (),
            context.tensors(space),
            told(low, stream.width, stream.copies),
            saves=lost * context.weight(space) if saves else 0,
            spectra=spectra(low),
        )
