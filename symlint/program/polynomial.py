"""Polynomials in the elements of a tensor and in its sums: what the arithmetic of a normalisation is made of.

A monomial is a word: ``x`` an element, ``a`` its absolute value, ``s`` the sum of the elements along some axes, ``q``
the sum of their squares, ``xx``, ``sx`` and ``ss`` products, the empty word a number.

Expressions: a polynomial times a function of a norm times other tensors, plus other tensors.

That is closed under what exporters do to a normalisation, gain and bias included, in whatever order they do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from symlint.model.records import dataclass

Polynomial = Mapping[str, float]
TOLERANCE = 1e-6
"""Relative; 1 / n is stored in float32."""
_PRODUCTS = {word: word for word in ("", "a", "q", "s", "ss", "sx", "x", "xx")} | {"aa": "xx"}
_SUMS = {"x": "s", "sx": "ss", "xx": "q"}


def near(a: float, b: float) -> bool:
    """Whether two numbers are one up to rounding."""
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def is_number(p: Polynomial) -> bool:
    """Whether it is a known number."""
    return not p.keys() - {""}


def collected(terms: Iterable[tuple[str, float]]) -> Polynomial:
    """The sum of monomials."""
    made: dict[str, float] = {}
    for word, c in terms:
        made[word] = made.get(word, 0.0) + c
    return {word: c for word, c in made.items() if c}


def plus(p: Polynomial, q: Polynomial) -> Polynomial:
    """The sum."""
    return collected([*p.items(), *q.items()])


def scaled(p: Polynomial, c: float) -> Polynomial:
    """The product with a number."""
    return collected((word, c * d) for word, d in p.items())


def times(p: Polynomial, q: Polynomial) -> Polynomial | None:
    """The product; None above the second degree."""
    terms = [(_PRODUCTS.get("".join(sorted(a + b))), c * d) for a, c in p.items() for b, d in q.items()]
    known = [(word, c) for word, c in terms if word is not None]
    return collected(known) if len(known) == len(terms) else None


def absolute(p: Polynomial) -> Polynomial | None:
    """The absolute value of a multiple of an element."""
    return {"a": abs(p["x"])} if p.keys() == {"x"} else None


def summed(p: Polynomial, count: int) -> Polynomial | None:
    """The sum along the axes of its sums, `count` elements; None where that is no polynomial."""
    if "a" in p:
        return None
    return collected((_SUMS.get(word, word), c * (1 if word in _SUMS else count)) for word, c in p.items())


def centred(p: Polynomial, count: int) -> bool | None:
    """Whether it is a multiple of the element less the mean of `count`; None where it is none of the element either."""
    x, s = p.get("x", 0.0), p.get("s", 0.0)
    if not x or p.keys() - {"x", "s"}:
        return None
    return True if near(s * count, -x) else None if s else False


def spread(p: Polynomial, count: int) -> str | None:
    """Of what it is a function: ``rms`` of a mean square of `count`, ``l2`` of a sum, ``standardise`` of a variance."""
    q, ss = p.get("q", 0.0), p.get("ss", 0.0)
    if not q or p.keys() - {"", "q", "ss"}:
        return None
    if near(ss * count, -q):
        return "standardise"
    return None if ss else "rms" if near(q * count, 1.0) else "l2"


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
