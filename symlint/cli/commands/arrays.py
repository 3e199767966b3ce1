"""Arrays that a user gives for the inputs of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from symlint.model.errors import UsageProblem

if TYPE_CHECKING:
    from symlint.model.graph import Array


def named_arrays(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """The values of an option, each ``NAME:FILE.npy``, as input -> file."""
    found = {}
    for value in values:
        name, colon, file = value.rpartition(":")
        if not colon or not name or not Path(file).is_file():
            raise click.BadParameter(f"{value!r} is not NAME:FILE.npy with a file that exists")
        found[name] = Path(file)
    return found


def read_array(file: Path) -> Array:
    """The array of a file. Raises UsageProblem where it holds none that could be tried."""
    import numpy as np

    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageProblem(f"{file}: is no array saved by numpy: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
        raise UsageProblem(f"{file}: expected one array of numbers, as numpy.save writes it")
    if not found.size or not np.isfinite(found).all():
        raise UsageProblem(f"{file}: proves nothing: it is empty, or not all of its numbers are finite")
    return found
