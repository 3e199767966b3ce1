"""Operator rules, one module a family; each rule lowers its operator to the primitives of `symlint.program`.

It may import `symlint.program` and what stands before it. A package that brings operators of its own imports from here
what it needs to enter them; see `symlint.model.operators`.
"""

from symlint.model.operators import known, op, resize, shape
from symlint.program.functions import Dipping, Parity, Rising, Within
from symlint.program.lower import Ref, Tracer, Unsupported, pointwise

__all__ = [
    "Dipping",
    "Parity",
    "Ref",
    "Rising",
    "Tracer",
    "Unsupported",
    "Within",
    "known",
    "op",
    "pointwise",
    "resize",
    "shape",
]
