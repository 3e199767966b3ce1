"""Storage: repaired files keep beside them what the original keeps beside it, and take its place in one step."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import onnx_ir as ir


def outside(file: ir.Model) -> dict[str, int]:
    """The files in which a model keeps tensors, and the bytes of the smallest tensor in each."""
    found: dict[str, int] = {}
    for graph in file.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                name = str(tensor.location)
                found[name] = min(found.get(name, tensor.nbytes), tensor.nbytes)
    return found


def save(file: ir.Model, out: Path, least: int | None, data: str = "") -> None:
    """Write a model.

    Args:
        file: the model.
        out: where to.
        least: tensors of so many bytes are stored beside it; None for none.
        data: the name of the file that they are stored in.
    """
    if least is None:
        ir.save(file, out)
    else:
        ir.save(file, out, external_data=data or f"{out.name}.data", size_threshold_bytes=max(0, least - 1))


def deliver(source: Path, target: Path, original: Path) -> None:
    """Put a repaired file, or the original itself, in its place.

    A copy of the original is the same to the byte, and finds its data. Otherwise they get a name that the original does
    not use, since it, or what it was, is still there.
    """
    part = target.with_name(f".{target.name}.part")
    kept = outside(ir.load(original))
    if source == original:
        for name in kept if target.absolute().parent != original.absolute().parent else ():
            beside = target.parent / name
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original.parent / name, beside)
        if target.absolute() != original.absolute():
            shutil.copyfile(original, part)
            part.replace(target)
        return
    file = ir.load(source)
    if outside(file):
        taken = {(original.parent / name).resolve() for name in kept}
        names = (f"{target.name}{f'.{k}' if k else ''}.data" for k in count())
        free = next(name for name in names if (target.parent / name).resolve() not in taken)
        save(file, part, min(kept.values(), default=0), free)
    else:
        shutil.copyfile(source, part)
    part.replace(target)
