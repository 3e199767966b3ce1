"""Where a file is, as the tools of a repository name it."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from symlint.audit.addresses import elsewhere


def repository() -> Path:
    """The nearest folder at or above the working directory that holds a repository, else that directory itself."""
    folder = Path.cwd()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)


def relative(path: str, root: Path) -> str:
    """The path from the root, with forward slashes; a file outside it keeps its absolute one."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links out of the repository
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


def uri(path: str, root: Path) -> str:
    """The same as a URI."""
    if elsewhere(path):
        return quote(path, safe="/:")
    place = relative(path, root)
    return Path(place).as_uri() if Path(place).is_absolute() else quote(place)
