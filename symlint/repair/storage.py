"""Storage: repaired files keep beside them what the original keeps beside it, and take its place in one step."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from itertools import count
from pathlib import Path

import onnx_ir as ir

from symlint.model.file import saving


def outside(path: Path) -> dict[str, int]:
    """The files in which a model file keeps tensors, and the bytes of the smallest tensor in each."""
    return saving.outside(saving.opened(path))


def save(file: ir.Model, out: Path, least: int | None, data: str = "") -> None:
    """Write a model.

    Args:
        file: the model.
        out: where to.
        least: tensors of so many bytes are stored beside it; None for none.
        data: the name of the file that they are stored in.
    """
    for graph in file.graphs():
        for value in graph.initializers.values():
            if value not in graph.inputs:  # a stored tensor tells its type itself
                value.type = value.shape = None
    if least is None:
        saving.save(file, out)
    else:
        saving.save(file, out, data=data or f"{out.name}.data", least=least)


def deliver(source: Path, target: Path, original: Path) -> None:
    """Put a repaired file, or the original itself, in its place.

    A copy of the original is the same to the byte, and finds its data. Where files of their names are in the way, and
    of repaired files always, the data get a name that nothing else has.
    """
    if source == original and target.absolute() == original.absolute():
        return
    part = target.with_name(f".{target.name}.part")
    try:
        kept = outside(original)
        apart = target.absolute().parent != original.absolute().parent
        blocked = apart and any((target.parent / name).exists() for name in kept)
        if source == original and not blocked:
            for name in kept if apart else ():
                (target.parent / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(original.parent / name, target.parent / name)
            shutil.copyfile(original, part)
        elif outside(source):
            mine = outside(target) if target.is_file() and target.absolute() != original.absolute() else {}
            names = (f"{target.name}{f'.{k}' if k else ''}.data" for k in count())
            used = {(original.parent / name).resolve() for name in kept}
            free = next(n for n in names if _free(target.parent / n, used, mine))
            save(saving.opened(source), part, min(kept.values(), default=0), free)
        else:
            shutil.copyfile(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _free(path: Path, used: Collection[Path], mine: Collection[str]) -> bool:
    """Whether a file of data may be written: it is not there, or belongs to what is replaced, and nothing reads it."""
    return path.resolve() not in used and (path.name in mine or not path.exists())
