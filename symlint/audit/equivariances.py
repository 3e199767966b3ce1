"""Equivariances: what is declared of a network's outputs, tried where the user lets the network run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from symlint.evidence.options import Equivariance, Tried

if TYPE_CHECKING:
    from symlint.model.graph import Model


def trial(model: Model) -> Callable[[Equivariance], tuple[Tried, ...]]:
    """What tries a declared equivariance of a model in onnxruntime, output by output.

    Raises UsageProblem where it names an axis or an output that the model does not have.
    """

    def tried(declared: Equivariance) -> tuple[Tried, ...]:
        # Imported here, since few audits run a network.
        from symlint.runtime.equivariance.measure import Wanted, measure

        wanted = Wanted((declared.name,), declared.input, declared.axis, declared.output, declared.action or None)
        table = measure(model, wanted)
        if table.failure:
            return (Tried("", None, "not tried", reason=f"it does not run: {table.failure}"),)
        rows = []
        for row in table.rows:
            within = row.outcome == "broken" and row.error is not None and row.error <= declared.tolerance
            outcome = "held" if within else row.outcome
            rows.append(Tried(row.output, row.axis, outcome, row.action or "", row.error, row.noise, row.reason))
        return tuple(rows)

    return tried
