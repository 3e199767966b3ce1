"""Storage: tensors that a file need not hold leave it, and a repaired file takes its place in one step."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Sequence
from itertools import count
from pathlib import Path

import onnx_ir as ir

from symlint.lint.finding import Discard, Share, Storing
from symlint.model import saving
from symlint.model.saving import rewrite


def shared(path: Path, asked: Storing) -> ir.Model:
    """The file without the tensors that it can do without."""
    file = rewrite(path, {})
    match asked:
        case Discard(spare):
            _discard(file, spare)
        case Share(groups):
            for group in groups:
                _share(file, group)
    return file


def _discard(file: ir.Model, names: Iterable[str]) -> None:
    for name in names:
        _taken_out(_holder(file, name))


def _share(file: ir.Model, group: Sequence[str]) -> None:
    """Let all that reads tensors of a group read one; bodies of control flow see what the outermost graph stores.

    The values of a file have a name each, so that nothing in a body hides it.
    """
    stays = next((name for name in group if name in file.graph.initializers), None)
    if stays is None:
        stays = group[0]
        old = _holder(file, stays)
        made = ir.Value(name=stays, const_value=_numbers(old))
        ir.convenience.replace_all_uses_with(old, made)
        _taken_out(old)
        file.graph.register_initializer(made)
    for name in group:
        if name != stays:
            old = _holder(file, name)
            ir.convenience.replace_all_uses_with(old, file.graph.initializers[stays])
            _taken_out(old)


def _holder(file: ir.Model, name: str) -> ir.Value:
    """The value of a stored tensor: an initializer, or what a Constant node makes."""
    for graph in file.graphs():
        if name in graph.initializers:
            return graph.initializers[name]
    return next(o for node in file.graph.all_nodes() for o in node.outputs if o.name == name)


def _numbers(value: ir.Value) -> ir.TensorProtocol | None:
    node = value.producer()
    return value.const_value if node is None else node.attributes["value"].as_tensor()


def _taken_out(value: ir.Value) -> None:
    node = value.producer()
    graph = value.graph if node is None else node.graph
    assert graph is not None
    if node is not None:
        graph.remove(node, safe=True)
    elif value.name is not None:
        del graph.initializers[value.name]


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
