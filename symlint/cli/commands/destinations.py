"""Where the results of a fix go: one file, a folder, the place of the model itself, or nowhere."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from symlint.model.errors import UsageProblem


@dataclass(frozen=True, slots=True)
class Destination:
    """What a call says of where its results go."""

    output: str | None
    folder: str | None
    in_place: bool
    dry_run: bool

    def of(self, models: Sequence[str], paths: Sequence[str]) -> Mapping[str, Path | None]:
        """Each model's file to write, None for none.

        Args:
            models: files.
            paths: the files, and the folders below which they were found; what lies below one keeps its place there.

        Raises UsageProblem where that cannot be followed.
        """
        self._alone(models)
        if self.dry_run:
            return dict.fromkeys(models)
        if self.folder is None:
            return {model: _one(model, self.output, in_place=self.in_place) for model in models}
        found: dict[str, Path | None] = {}
        for model in models:
            target = Path(self.folder, _place(model, paths))
            if (other := next((m for m, t in found.items() if t == target), None)) is not None:
                raise UsageProblem(f"{other} and {model} would both be written to {target}: fix them one by one")
            if target.resolve() == Path(model).resolve():
                raise UsageProblem(f"{target} is the model itself: name another folder, or ask for --in-place")
            found[model] = target
        return found

    def _alone(self, models: Sequence[str]) -> None:
        asked = {"-o OUT": self.output, "--out-dir DIR": self.folder, "--in-place": self.in_place or None}
        ways = [name for name, value in asked.items() if value is not None]
        if len(ways) > 1:
            raise UsageProblem(f"choose one of {' and '.join(ways)}")
        if not ways and not self.dry_run:
            raise UsageProblem(
                "name where to write the result with -o OUT (or --out-dir DIR), or ask for --in-place or --dry-run"
            )
        if self.output is not None and len(models) > 1:
            raise UsageProblem(f"-o takes the result of one model, and there are {len(models)}: use --out-dir DIR")
        if self.folder is not None and Path(self.folder).exists() and not Path(self.folder).is_dir():
            raise UsageProblem(f"{self.folder} is no folder")


def _place(model: str, paths: Sequence[str]) -> Path:
    """The path of a model below the folder that it was found in, or its name."""
    roots = [Path(path) for path in paths if Path(path).is_dir()]
    return next((Path(model).relative_to(r) for r in roots if Path(model).is_relative_to(r)), Path(Path(model).name))


def _one(model: str, output: str | None, *, in_place: bool) -> Path:
    target = Path(output or model)
    if not in_place and target.resolve() == Path(model).resolve():
        raise UsageProblem(f"{target} is the model itself: name another file, or ask for --in-place")
    if target.exists() and not target.is_file():
        raise UsageProblem(f"{target} is no regular file: name another one for the result")
    if not target.absolute().parent.is_dir():
        raise UsageProblem(f"{target}: its folder does not exist")
    return target


def write_config(text: str, target: Path, *, replaces: bool) -> Path:
    """Put what a runtime is to know of a result beside it, and say where.

    Args:
        text: of the file.
        target: the result.
        replaces: whether it may take the place of one that is there; else it is called after the result.
    """
    from symlint.model.states.sidecar import NAME

    file = target.parent / NAME
    if file.exists() and not replaces:
        file = target.parent / f"{target.stem}.{NAME}"
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageProblem(f"{file}: cannot be written: {error.strerror or error}") from error
    return file


def write(source: Path, model: Path, target: Path, *, keep: bool) -> None:
    """Put the result where it is wanted, in one step, with what is stored beside it; kept is what stood there."""
    from symlint.repair.storage import deliver, outside

    if target.resolve() in {(model.parent / name).resolve() for name in outside(model)}:
        raise UsageProblem(f"{target} holds weights of the model itself: name another file")
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        if keep and source != model:
            names = (f"{model}.bak{k or ''}" for k in count())
            shutil.copy2(model, next(name for name in names if not Path(name).exists()))
        deliver(source, target, model)
    except OSError as error:
        raise UsageProblem(f"{target}: cannot be written: {error.strerror or error}") from error
