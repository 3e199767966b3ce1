"""What can go wrong, as a tree.

SymlintError            anything symlint says in one line instead of a traceback
├── UsageProblem        the call or its configuration cannot be followed (exit 2)
└── UnreadableModel     a file that cannot be audited (exit 4); carries the SYM00x code that says why
    └── MissingModel    there is no model at that path (exit 3)
"""

from __future__ import annotations

from collections.abc import Iterable


class SymlintError(Exception):
    """A problem that is told to the user in one line."""


class UsageProblem(SymlintError):
    """The command line or the configuration asks for something that does not exist."""


class UnreadableModel(SymlintError):
    """A model file that could not be audited: what was read, what was expected, the way out.

    ``code`` is SYM001 (unreadable), SYM002 (Git LFS pointer) or SYM003 (missing external data).
    """

    def __init__(self, path: str, reason: str, code: str = "SYM001") -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.code = code


class MissingModel(UnreadableModel):
    """A path at which there is no file, or a folder."""

    def __init__(self, path: str, reason: str = "") -> None:
        here = "no such file here, and of the commands `symlint check` alone fetches models"
        super().__init__(path, reason or (here if "://" in path else "no such file"))


def exit_code(problem: SymlintError) -> int:
    """The exit code of a command that a problem ends."""
    if isinstance(problem, MissingModel):
        return 3
    return 4 if isinstance(problem, UnreadableModel) else 2


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'check'?`` for the nearest known word, else nothing."""
    import difflib  # only for one who has mistyped

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def raised(error: BaseException, home: object = None) -> str:
    """An exception with the line that raised it: ``TypeError: no numbers (acme/wobble.py, line 12)``.

    Args:
        error: with its traceback.
        home: a function; of the lines the innermost is told that stands in its file, so that a package is shown its
            own one and not that of a library which it calls.
    """
    import traceback
    from pathlib import Path

    lines = traceback.extract_tb(error.__traceback__)
    file = getattr(getattr(home, "__code__", None), "co_filename", None)
    line = next((line for line in reversed(lines) if line.filename == file), lines[-1] if lines else None)
    where = "" if line is None else f" ({'/'.join(Path(line.filename).parts[-2:])}, line {line.lineno})"
    return f"{type(error).__name__}{': ' if str(error) else ''}{error}{where}"
