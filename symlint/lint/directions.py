"""How the missing directions of a stream are told: what the rules on streams share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from symlint.evidence.context import Context
from symlint.evidence.streams.directions import End, streams
from symlint.lint.finding import Finding
from symlint.lint.low_rank import spectra, told
from symlint.lint.rule import Rule
from symlint.lint.severity import by_share


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
