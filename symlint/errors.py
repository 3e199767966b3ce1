"""What can go wrong, as a tree.

SymlintError            anything symlint says in one line instead of a traceback
├── UsageProblem        the call or its configuration cannot be followed (exit 2)
└── UnreadableModel     a file that cannot be audited (exit 4); carries the SYM00x code that says why
    └── MissingModel    there is no such file (exit 3)
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
    """A path at which there is no file."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "no such file")


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
