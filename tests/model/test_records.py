"""Classes of `symlint.model.records` do what those of `dataclasses` do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import field
from types import SimpleNamespace
from typing import ClassVar

import pytest

from symlint.model import records


def made(dataclass, **options):
    """A class, one that extends it, and one that compares nothing."""

    @dataclass(**options)
    class Base:
        kind: ClassVar[str] = "base"
        a: int
        b: list = field(default_factory=list)
        c: str = field(default="c", kw_only=True)
        hidden: int = field(default=3, repr=False, compare=False)
        aside: dict = field(init=False, default_factory=dict, hash=False, compare=False)

        def __post_init__(self):
            self.aside["a"] = self.a

    @dataclass(**options)
    class More(Base):
        """With a word of its own."""

        b: tuple = ()
        d: float = 0.5

        def __repr__(self):
            return "more"

    @dataclass(**options)
    class Nothing:
        pass

    return SimpleNamespace(Base=Base, More=More, Nothing=Nothing)


def outcome(act):
    try:
        return act()
    except Exception as problem:
        return type(problem)


def told(classes):
    base, more = classes.Base, classes.More
    one, other, third = base(1), base(1, [], hidden=4), base(a=2, b=[1], c="d")
    cells = more(1, (2,), 7, 1.5, c="x"), more(1)
    return [
        [
            outcome(lambda x=x, y=y: x == y)
            for x in (one, other, third, *cells, 1)
            for y in (one, other, third, *cells, 1)
        ],
        [type(outcome(lambda x=x: hash(x))) for x in (one, third, *cells)],
        hash(cells[0]) == hash(more(1, (2,), 8, 1.5, c="x")) if base.__hash__ else None,
        [repr(x).replace("made.<locals>.", "") for x in (one, third, *cells, classes.Nothing())],
        [outcome(lambda: setattr(one, "a", 5)), outcome(lambda: delattr(base(2), "a")), one.aside],
        [
            outcome(base),
            outcome(lambda: base(1, [], 3, "c")),
            outcome(lambda: base(1, e=2)),
            isinstance(outcome(lambda: setattr(one, "e", 2)), type),  # an error of one kind or of another
        ],
        [dataclasses.asdict(x) for x in cells],
        repr(dataclasses.replace(third, a=9, c="z")).replace("made.<locals>.", ""),
        [(f.name, f.type, f.default, f.kw_only) for f in dataclasses.fields(more)],
        [list(inspect.signature(c).parameters) for c in (base, more, classes.Nothing)],
        [repr(copy.copy(x)).replace("made.<locals>.", "") for x in (third, *cells)],
        [copy.deepcopy(x).aside for x in (third, *cells)],
        [classes.Nothing() == classes.Nothing(), more.__match_args__, more.__doc__, base.kind],
        [hasattr(one, "__dict__"), base.__name__, base.__module__],
    ]


@pytest.mark.parametrize("eq", [True, False])
@pytest.mark.parametrize("slots", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_classes_do_what_those_of_the_standard_library_do(frozen, slots, eq):
    options = {"frozen": frozen, "slots": slots, "eq": eq}
    ours, theirs = (told(made(dataclass, **options)) for dataclass in (records.dataclass, dataclasses.dataclass))
    assert ours == theirs


@records.dataclass(frozen=True, slots=True)
class Pickled:
    a: int
    b: tuple[int, ...] = ()


def test_they_travel_between_processes():
    assert pickle.loads(pickle.dumps(Pickled(1, (2,)))) == Pickled(1, (2,))
