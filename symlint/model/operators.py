"""Operators: all that is known of one, in one record, filled by its rule and by what finds shapes and resizes it.

A package that brings operators of its own names its module, or its package of modules, in an entry point of the group
``symlint.operators``; each decorator there enters what it decorates. Names are those of nodes: ``MatMul`` for ONNX's
own, ``com.acme.ScaledGather`` for those of other domains.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import walk_packages
from types import ModuleType
from typing import Any, TypeVar

from symlint.model.records import dataclass

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Quantised:
    """Which inputs of an operator are quantised weights, which are their scales and zero points, and how many it packs.

    Of packed weights, either attributes name the rows of each matrix, which `K` numbers long they are, or the bits of
    a number in a byte; the shape of a layout of a processor's own is an input.
    """

    weights: tuple[int, ...]
    levels: tuple[int, ...] = ()
    rows: tuple[str, ...] = ()
    bits: tuple[str, ...] = ()
    shape: int = 0


@dataclass(frozen=True, slots=True)
class Operator:
    """What is known of an operator; a field that nobody has entered says that nothing is known."""

    rule: Callable[..., Any] | None = None
    """What lowers it to primitives: of a tracer, the inputs in order, and attributes as keywords."""
    inputs: int = 0
    """Number of inputs that the rule names; -1 where it takes them all."""
    attributes: frozenset[str] = frozenset()
    """The attributes that the rule names."""
    exact: bool = False
    """Whether what it is lowered to computes what it does, number by number, and not only with its symmetries."""
    shape: Callable[..., Any] | None = None
    """Of a `Call`: the element types and shapes of its outputs; None where onnx's own inference tells them."""
    resize: Callable[..., None] | None = None
    """Tells a node under surgery, a `Site`, its new sizes, or raises; None where nothing has to be told."""
    broadcasts: bool = False
    """Whether its operands have the sizes of the result, or 1."""
    recurrent: bool = False
    """Whether it goes through places in their order with a state: its inputs 1 to 3 are weights and biases."""
    measures: bool = False
    """Whether it sees sizes of its input, and no number in it."""
    averages: bool = False
    """Whether it divides by the number of what it adds up."""
    quantised: Quantised | None = None
    """What of it is quantised, if anything is."""
    layout: bool = False
    """Whether it hands on numbers of its first input, in another order or shape."""
    scatters: bool = False
    """Whether it writes results over places of its first input."""
    told: bool = False
    """Whether what it reads behind the first input are numbers that decide what it does."""
    statistics: tuple[int, ...] = ()
    """Which inputs are running means and variances."""
    casts: bool = False
    """Whether it changes nothing but the type of numbers."""


NOTHING = Operator()
_TABLE: dict[str, Operator] = {}


def enter(names: tuple[str, ...], **facts: Any) -> None:
    """Enter facts, fields of `Operator`, for the operators called `names`."""
    for name in names:
        _TABLE[name] = replace(_TABLE.get(name, NOTHING), **facts)


def op(*names: str, exact: bool = False, broadcasts: bool = False) -> Callable[[Function], Function]:
    """Enter the decorated function as the rule of operators; for the other arguments see `Operator`.

    Its parameters are a tracer, the operator's inputs (absent ones are None), then keyword-only attributes with the
    defaults of the specification. It returns the tensor or tensors that the operator makes.
    """

    def register(rule: Function) -> Function:
        parameters = list(inspect.signature(rule).parameters.values())[1:]
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        keywords = frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        inputs = -1 if variadic else len(positional)
        enter(names, rule=rule, inputs=inputs, attributes=keywords, exact=exact, broadcasts=broadcasts)
        return rule

    return register


def shape(*names: str) -> Callable[[Function], Function]:
    """Enter the decorated function as what tells the shapes of operators: see `symlint.model.shapes.known.Call`.

    It returns element type and shape of every output, a size of None where it is unknown, or another call that has the
    same; it raises `LookupError` where a shape that it asks for is unknown.
    """

    def register(rule: Function) -> Function:
        enter(names, shape=rule)
        return rule

    return register


def resize(*names: str) -> Callable[[Function], Function]:
    """Enter the decorated function as what tells operators their new sizes: see `symlint.repair.narrowing.Site`."""

    def register(rule: Function) -> Function:
        enter(names, resize=rule)
        return rule

    return register


@cache
def operators() -> Mapping[str, Operator]:
    """Every operator that has a rule, by its name: symlint's own, and those that installed packages bring."""
    _load(import_module("symlint.operators"))
    for entry in sorted(entry_points(group="symlint.operators"), key=lambda entry: entry.value):
        _load(entry.load())
    return {name: operator for name, operator in _TABLE.items() if operator.rule}


def known(name: str) -> Operator:
    """What is known of an operator by now; nothing, where nobody has entered it."""
    operators()
    return _TABLE.get(name, NOTHING)


def _load(package: ModuleType) -> None:
    for module in walk_packages(getattr(package, "__path__", ()), f"{package.__name__}."):
        import_module(module.name)
