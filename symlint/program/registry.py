"""Rules of operators: how families of them are entered, and how one is applied to a node."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from symlint.model.graph import Array, Node
from symlint.model.operators import Operator, op, shape
from symlint.program.functions import Course, Function, Parity, enter, standard
from symlint.program.lower import Ref, Tracer, Unsupported


def pointwise(
    degree: Fraction | int | None,
    *names: str,
    parity: Parity,
    course: Course | None,
    exact: bool = False,
    passes: bool = False,
    negates: bool = False,
    undone: Callable[[Array], Array] | None = None,
) -> None:
    """Enter elementwise functions of one input, homogeneous of `degree` for positive factors."""

    def rule(t: Tracer, x: Ref) -> Ref:
        return t.apply(x, degree, t.node.op)

    op(*names, exact=exact)(rule)
    # An elementwise function has the shape of what it gets, in whatever domain; ONNX's and onnxruntime's are told.
    foreign = [name for name in names if "." in name and standard(name) == name]
    shape(*foreign)(lambda call: call.like("Identity", (0,)))
    enter(names, Function(parity, course, passes=passes, negates=negates, undone=undone))


def call(operator: Operator, tracer: Tracer, node: Node, inputs: tuple[Ref | None, ...]) -> tuple[Ref | None, ...]:
    """Apply the rule of an operator, which has one, to a node.

    Raises:
        Unsupported: The rule does not know what the node asks for, or an attribute that is a number is none here.
    """
    assert operator.rule
    bound: list[Ref | None] = list(inputs)
    if operator.inputs >= 0:
        bound = [*bound[: operator.inputs], *[None] * (operator.inputs - len(bound))]
    attributes: dict[str, Any] = {k: v for k, v in node.attributes.items() if k in operator.attributes}
    usual = getattr(operator.rule, "__kwdefaults__", None) or {}
    for name, value in attributes.items():
        if isinstance(usual.get(name), int | float) and not isinstance(value, int | float):
            raise Unsupported(f"its attribute {name} is no number")
    made = operator.rule(tracer, *bound, **attributes)
    return made if isinstance(made, tuple) else (made,)
