"""The table of operator rules: ``@op("Gemm")`` on a function, or a word in a family.

A rule's parameters are the operator's inputs (absent ones are None), then keyword-only attributes with the defaults
of the specification. It returns the tensor or tensors that the operator makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, TypeVar

from symlint.model.graph import Node
from symlint.program.lower import Ref, Tracer

Made = Ref | tuple[Ref | None, ...]
Operator = Callable[..., Made]
Rule = TypeVar("Rule", bound=Operator)


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule and how a node is bound to it."""

    rule: Operator
    inputs: int
    """Number of named inputs; -1 where the rule takes them all."""
    attributes: frozenset[str]


TABLE: dict[str, Entry] = {}


def op(*names: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of the operators called `names`."""

    def register(rule: Rule) -> Rule:
        parameters = list(inspect.signature(rule).parameters.values())[1:]
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        keywords = frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        for name in names:
            TABLE[name] = Entry(rule, -1 if variadic else len(positional), keywords)
        return rule

    return register


def pointwise(degree: Fraction | int | None, *names: str) -> None:
    """Register elementwise functions of one input, homogeneous of `degree` for positive factors."""

    def rule(t: Tracer, x: Ref) -> Ref:
        return t.apply(x, degree, t.node.op)

    op(*names)(rule)


@cache
def operators() -> Mapping[str, Entry]:
    """Every operator rule by the operator's name."""
    package = import_module("symlint.operators")
    for module in walk_packages(package.__path__, "symlint.operators."):
        import_module(module.name)
    return TABLE


def call(entry: Entry, tracer: Tracer, node: Node, inputs: tuple[Ref | None, ...]) -> tuple[Ref | None, ...]:
    """Apply a rule to a node."""
    bound: list[Ref | None] = list(inputs)
    if entry.inputs >= 0:
        bound = [*bound[: entry.inputs], *[None] * (entry.inputs - len(bound))]
    attributes: dict[str, Any] = {k: v for k, v in node.attributes.items() if k in entry.attributes}
    made = entry.rule(tracer, *bound, **attributes)
    return made if isinstance(made, tuple) else (made,)
