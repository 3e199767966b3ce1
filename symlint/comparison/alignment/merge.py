"""Merging: averages of networks that were aligned with one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from symlint.comparison.alignment.align import Alignment, align, proven
from symlint.model.errors import UsageProblem
from symlint.model.graph import Model
from symlint.model.saving import write
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.motion.teleport import Moved


def merged(
    first: Model,
    others: Sequence[Model],
    share: float | None,
    output: Path,
    renew: Callable[[Weights, str], None] | None = None,
) -> tuple[Alignment, ...]:
    """Align networks with the first, prove each, and save an average in the layout of the second file.

    Args:
        first: stands still.
        others: are moved; several have the same tensors.
        share: of the first in the average of two; None where all count alike.
        output: where the average is saved, once all proofs have held.
        renew: gives the average, in the layout of a file, the statistics of its batch normalisations on data.

    What has no counterpart, and what is not a floating-point number, is that of the second file. Of the average nothing
    is claimed. Raises UsageProblem where several files store other tensors than the second.
    """
    found: list[Alignment] = []
    for other in others:
        one = align(first, other)
        found.append(one if one.unrelated else proven(one, other))
        if found[-1].exit_code:
            return tuple(found)
    part = 1 / (len(others) + 1) if share is None else share
    weights = averaged(found, part)
    if renew is not None:
        renew(weights, others[0].path)
    write(others[0].path, Moved(weights, lifted=False), output)
    return tuple(found)


def averaged(found: Sequence[Alignment], part: float) -> Weights:
    """The weights of an average, of which a part is that of the first network, in the layout of the second file.

    Raises UsageProblem where several files store other tensors than the second.
    """
    base = found[0].pair
    assert base is not None
    sums = {}
    for stored, name in base.uses.items():
        if not base.structure.program.model.tensors[stored].floating:
            continue
        sums[stored] = part * base.target.get(name)
        for one in found:
            pair = one.pair
            assert pair is not None
            use = pair.uses.get(stored)
            if use is None or pair.current.get(use).shape != sums[stored].shape:
                raise UsageProblem(
                    f"{one.second}: stores no {stored!r} as {found[0].second} does; several are merged"
                    " only from files of one exporter"
                )
            sums[stored] = sums[stored] + (1 - part) / len(found) * pair.current.get(use)
    weights = Weights(base.structure, base.current.start)
    weights.now = {**base.current.now, **{name: np.asarray(values) for name, values in sums.items()}}
    return weights
