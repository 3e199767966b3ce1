"""Expressions: a polynomial times a function of a norm times other tensors, plus other tensors.

That is closed under what exporters do to a normalisation, gain and bias included, in whatever order they do it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from symlint.model.records import dataclass
from symlint.program.rewriting.polynomial import Polynomial, absolute, centred, is_number, plus, scaled, times

ONE: Polynomial = {"": 1.0}


@dataclass(frozen=True, slots=True)
class Norm:
    """A function of the sum of squares alone, or of the variance."""

    function: str
    """The normalisation that divides by it: ``rms``, ``l2`` or ``standardise``."""
    degree: Fraction | None
    """Its homogeneity in the source; None where an epsilon breaks that."""
    key: str
    """Which function it is: equal keys are equal functions."""

    def __mul__(self, other: Norm) -> Norm | None:
        """The product; None where the two are of different kinds."""
        if len({f == "standardise" for f in (self.function, other.function)}) > 1:
            return None
        degree = None if self.degree is None or other.degree is None else self.degree + other.degree
        return Norm(self.function, degree, f"{self.key} {other.key}")


@dataclass(frozen=True, slots=True)
class Expression:
    """``polynomial * norm * factors + rest``."""

    polynomial: Polynomial
    norm: Norm | None = None
    factors: tuple[str, ...] = ()
    """Other tensors that multiply it."""
    rest: tuple[tuple[int, str], ...] = ()
    """Other tensors that are added, with their signs."""

    @property
    def plain(self) -> bool:
        """Whether it is the polynomial alone."""
        return self.norm is None and not self.factors and not self.rest

    @property
    def number(self) -> bool:
        """Whether it is a known number."""
        return self.plain and is_number(self.polynomial)

    def normalised(self, count: int) -> bool:
        """Whether it is a normalisation along axes of `count` elements."""
        if self.norm is None:
            return False
        return centred(self.polynomial, count) is (self.norm.function == "standardise")


def _product(a: Expression, b: Expression) -> Expression | None:
    polynomial = times(a.polynomial, b.polynomial)
    norm = a.norm * b.norm if a.norm and b.norm else a.norm or b.norm
    if polynomial is None or a.rest or b.rest or (norm is None and (a.norm or b.norm)):
        return None
    return Expression(polynomial, norm, tuple(sorted(a.factors + b.factors)))


def _quotient(a: Expression, b: Expression) -> Expression | None:
    if not b.polynomial or not is_number(b.polynomial) or b.factors or b.rest:
        return None
    norm = b.norm and Norm(b.norm.function, None if b.norm.degree is None else -b.norm.degree, f"1/({b.norm.key})")
    return _product(a, Expression({"": 1 / b.polynomial[""]}, norm))


def _negated(a: Expression) -> Expression:
    return replace(a, polynomial=scaled(a.polynomial, -1.0), rest=tuple((-sign, name) for sign, name in a.rest))


def _sum(a: Expression, b: Expression) -> Expression | None:
    if not a.polynomial:
        a, b = b, a
    if b.polynomial and (a.norm, a.factors) != (b.norm, b.factors):
        return None
    return replace(a, polynomial=plus(a.polynomial, b.polynomial), rest=a.rest + b.rest)


def _power(a: Expression, b: Expression) -> Expression | None:
    exponent = b.polynomial.get("") if b.number else None
    return {1.0: a, 2.0: square(a)}.get(exponent) if exponent is not None else None


def _absolute(a: Expression) -> Expression | None:
    made = absolute(a.polynomial) if a.plain else None
    return None if made is None else Expression(made)


def square(a: Expression) -> Expression | None:
    """The square of a polynomial."""
    made = times(a.polynomial, a.polynomial) if a.plain else None
    return None if made is None else Expression(made)


def combined(function: str, expressions: Sequence[Expression]) -> Expression | None:
    """What an elementwise function makes of expressions; None where that is no expression."""
    rule = _ARITHMETIC.get(function)
    if rule is None or len(expressions) < 2:
        return rule and rule(*expressions)
    made: Expression | None = expressions[0]
    for other in expressions[1:]:
        made = made and rule(made, other)
    return made


def stranger(name: str, function: str, k: int) -> Expression | None:
    """Any tensor as operand `k` of a product or sum; None in other functions."""
    if function == "Mul" or (function == "Div" and k == 0):
        return Expression(ONE, factors=(name,))
    return Expression({}, rest=((1, name),)) if function in ("Add", "Sub") else None


_ARITHMETIC: Mapping[str, Callable[..., Expression | None]] = {
    "Abs": _absolute,
    "Add": _sum,
    "Div": _quotient,
    "Identity": lambda a: a,
    "Mul": _product,
    "Neg": _negated,
    "Pow": _power,
    "Sub": lambda a, b: _sum(a, _negated(b)),
    "Sum": _sum,
}
