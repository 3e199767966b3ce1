"""The engine of `symlint profile`: the measures of each space, and what became of them from file to file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from symlint.audit.engine import judged
from symlint.audit.outcome import Report
from symlint.comparison.course import counterparts
from symlint.comparison.matching import match
from symlint.comparison.measures import Measures, measures
from symlint.comparison.weights import Weights
from symlint.evidence.context import Context
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.symmetry.inference import examine


@dataclass(frozen=True, slots=True)
class Portrait:
    """One file: its audit and its spaces."""

    report: Report
    spaces: tuple[Measures, ...]
    series: tuple[int, ...]
    """For each space the number of the series to which it belongs; equal where `symlint diff` matches two spaces."""

    @property
    def path(self) -> str:
        """As given by the caller."""
        return self.report.path


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Files of one network in the order in which they were given; of a single one a series has one member."""

    portraits: tuple[Portrait, ...]

    @property
    def series(self) -> int:
        """How many series there are."""
        return 1 + max((number for p in self.portraits for number in p.series), default=-1)

    def course(self, number: int) -> tuple[Measures | None, ...]:
        """One series: what it is in each file, None where it was not found."""
        each = (dict(zip(p.series, p.spaces, strict=True)) for p in self.portraits)
        return tuple(found.get(number) for found in each)


def trajectory(paths: Sequence[str], rules: Sequence[Rule], settings: Sequence[Settings]) -> Trajectory:
    """The measures of every space of every file; spaces are matched from each file to the next.

    Args:
        paths: the files, of which two at a time are held in memory.
        rules: the installed rules.
        settings: of each file.

    Raises `UnreadableModel` where one of them cannot be read.
    """
    follower = Follower(rules)
    for path, asked in zip(paths, settings, strict=True):
        follower.follow(path, asked)
    return Trajectory(tuple(follower.portraits))


class Follower:
    """Portraits of files of one network, one after another; spaces of each are matched with those of the one before."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.portraits: list[Portrait] = []
        self._rules = rules
        self._before: Context | None = None
        self._count = 0

    def follow(self, path: str, asked: Settings, name: str | None = None) -> Context:
        """Add a file, under its path or a name, and give what is read again for the next one.

        Raises `UnreadableModel` where it cannot be read.
        """
        model = asked.with_states(load(path))
        context = Context(*examine(model), asked.asked(self._rules))
        report = judged(path, context, asked.chosen(self._rules), asked)
        found = measures(context, report)
        known: dict[str, int] = {}
        if self._before is not None:
            pairs = counterparts([self._before, context], match(Weights(self._before), Weights(context)))
            last = self.portraits[-1]
            numbers = dict(zip((one.state.id for one in last.spaces), last.series, strict=True))
            known = {new: numbers[old] for old, new in pairs.items() if old in numbers}
        series = []
        for one in found:
            number = known.get(one.state.id, self._count)
            self._count += number == self._count
            series.append(number)
        self.portraits.append(Portrait(report if name is None else replace(report, path=name), found, tuple(series)))
        self._before = context
        return context
