"""Polynomials in the elements of a tensor and in its sums: what the arithmetic of a normalisation is made of.

A monomial is a word: ``x`` an element, ``a`` its absolute value, ``s`` the sum of the elements along some axes, ``q``
the sum of their squares, ``xx``, ``sx`` and ``ss`` products, the empty word a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
