"""How symlint starts Python for its child processes: with its own import path, less the working folder.

``python -m`` puts the folder that it runs in before everything else, so that a script beside a model, called like a
module (``onnxruntime.py``, ``numbers.py``), would be executed. ``-I`` would lose what is installed for the user or by
PYTHONPATH, and ``-P`` is not known to Python 3.10: so the child is told its whole path, before it imports anything.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Only built-in modules may be imported before the path is set; `-c` has put the working folder first.
_START = (
    "import sys; n = int(sys.argv[1]) + 2; sys.path[:] = sys.argv[2:n]; "
    "from importlib import import_module; import_module(sys.argv[n]).main(*sys.argv[n + 1:])"
)


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a child that calls ``module.main(*arguments)``."""
    path = import_path()
    return [sys.executable, "-c", _START, str(len(path)), *path, module, *arguments]


def environment() -> dict[str, str]:
    """The environment of a child: an empty or relative entry of PYTHONPATH, too, may be the working folder."""
    found = dict(os.environ)
    if named := found.get("PYTHONPATH"):
        found["PYTHONPATH"] = os.pathsep.join(entry for entry in named.split(os.pathsep) if not _working(entry))
    return found


def import_path() -> list[str]:
    """Where this process imports from, less the working folder unless what it runs already has come from there."""
    homes = [_home(sys.modules[name].__file__, name) for name in ("os", "numpy", "symlint") if name in sys.modules]
    kept = [entry for entry in sys.path if not _working(entry) or any(_same(entry, home) for home in homes)]
    # What is no folder is a mark that an editable installation left for its own hook.
    return [os.path.realpath(entry) if Path(entry).exists() else entry for entry in kept]


def _home(file: str | None, name: str) -> str:
    path = Path(file or os.devnull).resolve()
    return str(path.parent if name == "os" else path.parent.parent)


def _working(entry: str) -> bool:
    return _same(entry or os.curdir, os.curdir)


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
