"""Patterns that a configuration names files with: ``old/*.onnx``, relative to the folder of the configuration."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path, PurePath


def named(path: str | Path, pattern: str, root: Path) -> bool:
    """Whether a pattern names a file, by its name, by its path below the root, or by one of the folders above it.

    ``*`` stands for any characters, slashes included; ``a/`` and ``a`` name the folder with all that is in it.
    """
    try:
        below = Path(os.path.relpath(path, root))
    except ValueError:  # another drive
        below = Path(path)
    pattern = pattern.rstrip("/").removeprefix("./")
    heads: list[PurePath] = [below, *below.parents]
    return any(fnmatchcase(words, pattern) for head in heads for words in (head.as_posix(), head.name) if words != ".")
