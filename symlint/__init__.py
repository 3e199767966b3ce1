"""symlint: a linter for trained ONNX models.

`check`, `inspect`, `profile`, `fix`, `equivariance`, `diff`, `align`, `trace` and `fingerprint` are the commands of
these names as functions. They, what they answer, and `Finding`, `Level`, `Rule`, `Settings`, `Model` and `Symmetry` can
be taken from here. They are imported when first asked for, so that ``import symlint`` costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symlint.api.calls import align as align
    from symlint.api.calls import check as check
    from symlint.api.calls import diff as diff
    from symlint.api.calls import equivariance as equivariance
    from symlint.api.calls import fingerprint as fingerprint
    from symlint.api.calls import fix as fix
    from symlint.api.calls import inspect as inspect
    from symlint.api.calls import profile as profile
    from symlint.api.calls import trace as trace
    from symlint.api.reports import Equivariance as Equivariance
    from symlint.api.reports import Profile as Profile
    from symlint.api.reports import Repairs as Repairs
    from symlint.api.reports import Report as Report
    from symlint.comparison.alignment.align import Alignment as Alignment
    from symlint.comparison.compare import Comparison as Comparison
    from symlint.comparison.lineage.sketch import Lineage as Lineage
    from symlint.comparison.lineage.sketch import Sketch as Sketch
    from symlint.lint.finding import Finding as Finding
    from symlint.lint.finding import Level as Level
    from symlint.lint.rule import Rule as Rule
    from symlint.lint.settings import Settings as Settings
    from symlint.model.errors import UnreadableModel as UnreadableModel
    from symlint.model.errors import UsageProblem as UsageProblem
    from symlint.model.graph import Model as Model
    from symlint.symmetry.spaces import Symmetry as Symmetry

__version__ = "0.1.0"

_HOMES = {
    "align": "symlint.api.calls",
    "check": "symlint.api.calls",
    "diff": "symlint.api.calls",
    "fingerprint": "symlint.api.calls",
    "fix": "symlint.api.calls",
    "equivariance": "symlint.api.calls",
    "inspect": "symlint.api.calls",
    "profile": "symlint.api.calls",
    "trace": "symlint.api.calls",
    "Alignment": "symlint.comparison.alignment.align",
    "Comparison": "symlint.comparison.compare",
    "Lineage": "symlint.comparison.lineage.sketch",
    "Profile": "symlint.api.reports",
    "Repairs": "symlint.api.reports",
    "Report": "symlint.api.reports",
    "Equivariance": "symlint.api.reports",
    "Finding": "symlint.lint.finding",
    "Level": "symlint.lint.finding",
    "Model": "symlint.model.graph",
    "Rule": "symlint.lint.rule",
    "Settings": "symlint.lint.settings",
    "Sketch": "symlint.comparison.lineage.sketch",
    "Symmetry": "symlint.symmetry.spaces",
    "UnreadableModel": "symlint.model.errors",
    "UsageProblem": "symlint.model.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


_RENAMED = {
    "symlint.asked": "symlint.evidence.options",
    "symlint.bounded": "symlint.evidence.dead",
    "symlint.chance": "symlint.evidence.estimates",
    "symlint.collapse": "symlint.evidence.estimates",
    "symlint.directions": "symlint.lint.redundancy",
    "symlint.endings": "symlint.evidence.ends",
    "symlint.entries": "symlint.evidence.ends",
    "symlint.errors": "symlint.model.errors",
    "symlint.estimates": "symlint.evidence.estimates",
    "symlint.evidence.level": "symlint.evidence.options",
    "symlint.experts": "symlint.evidence.twins",
    "symlint.finding": "symlint.lint.finding",
    "symlint.graph": "symlint.model.graph",
    "symlint.idle": "symlint.evidence.dead",
    "symlint.initial": "symlint.evidence.initial",
    "symlint.invariant": "symlint.evidence.products",
    "symlint.lost": "symlint.evidence.dead",
    "symlint.low_rank": "symlint.lint.redundancy",
    "symlint.mirror": "symlint.evidence.mirror",
    "symlint.redundancy": "symlint.lint.redundancy",
    "symlint.rule": "symlint.lint.rule",
    "symlint.settings": "symlint.lint.settings",
    "symlint.severity": "symlint.lint.rule",
    "symlint.structure": "symlint.symmetry.structure",
    "symlint.twins": "symlint.evidence.twins",
}


class _Renamed(MetaPathFinder, Loader):
    """Finds modules under the names by which packages of rules import them."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in _RENAMED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(_RENAMED[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Importing under another name has put that name's specification in the place of the module's own.
        assert module.__spec__
        module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_Renamed())
