"""How a rank below its bound is told, and the missing directions of a stream: what the rules on ranks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from symlint.evidence.context import Context
from symlint.evidence.ranks.products import Product
from symlint.evidence.ranks.spectrum import Rank
from symlint.evidence.streams import End, streams
from symlint.lint.finding import Finding, Level, Spectrum
from symlint.lint.repairs import Factor
from symlint.lint.rule import Rule, by_share
from symlint.lint.state_cost import width
from symlint.model.records import dataclass
from symlint.program.flow import Passage
from symlint.symmetry.spaces import Space


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
