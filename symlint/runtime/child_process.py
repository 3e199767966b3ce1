"""How symlint starts Python, for itself and its child processes: with its own import path, less the working folder.

``python -m`` puts the folder that it runs in before everything else, so that a script beside a model, called like a
module (``onnxruntime.py``, ``numbers.py``), would be executed. ``-I`` would lose what is installed for the user or by
PYTHONPATH, and ``-P`` is not known to Python 3.10: so the child is told its whole path, before it imports anything.

onnx imports the narrow types of ml_dtypes, most of which no model has. To tell numpy how all of them combine takes that
package longer than a small audit, so a process of symlint waits with them until one is asked for; and with what
protobuf has to write messages as text, which hardly anybody asks for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from pathlib import Path

# Only built-in modules may be imported before the path is set; `-c` has put the working folder first.
_START = (
    "import sys; n = int(sys.argv[1]) + 2; sys.path[:] = sys.argv[2:n]; "
    "from importlib import import_module; import_module('symlint.runtime.child_process').wait_with_types(); "
    "import_module(sys.argv[n]).main(*sys.argv[n + 1:])"
)


class _Later:
    """Finds modules that are executed when something of them is asked for."""

    MODULES = ("ml_dtypes", "onnx._mapping", "google.protobuf.json_format", "google.protobuf.text_format")

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None, _target: object = None) -> ModuleSpec | None:
        """What `sys.meta_path` asks."""
        spec = PathFinder.find_spec(name, path) if name in cls.MODULES else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def wait_with_types() -> None:
    """Have ml_dtypes imported where it is used, in a process that is symlint's own."""
    if _Later not in sys.meta_path:
        sys.meta_path.insert(0, _Later)


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
