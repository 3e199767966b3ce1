"""Plug-in of pytest: ``pytest --symlint 'models/*.onnx'`` audits models as tests.

Each model is a test that its audit is complete, and each rule that fails it is a failing test beside it. The settings
are those of the configuration nearest to the model, as for `symlint check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from symlint.lint.finding import Finding


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of the command line."""
    group = parser.getgroup("symlint", "audits of ONNX models")
    group.addoption("--symlint", action="append", default=[], metavar="GLOB", help="Audit the models of this pattern.")


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by -k
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests of the models."""
    for pattern in config.getoption("--symlint"):
        files = sorted(glob(str(config.invocation_params.dir / pattern), recursive=True))  # noqa: PTH207 - may be absolute
        if not files:
            raise pytest.UsageError(f"--symlint {pattern}: no such file")
        for file in files:
            items.extend(session.genitems(Audit.from_parent(session, path=Path(file))))


class Audit(pytest.File):
    """One model."""

    def collect(self) -> Iterator[pytest.Item]:
        """The test of the audit, and one for each rule that fails it."""
        # Imported here, since pytest loads this module whether or not it is asked for models.
        from symlint import check

        report = check(self.path)
        yield Verdict.from_parent(self, name="audit", incomplete=report.incomplete)
        failing: dict[str, list[Finding]] = {}
        for finding in report.run.failing(report.run.reports[0]) if not report.incomplete else ():
            failing.setdefault(f"{finding.rule} {finding.name}", []).append(finding)
        for rule, findings in failing.items():
            yield Failing.from_parent(self, name=rule, lines=report.lines(findings))


class Failed(Exception):
    """A model did not pass."""


class _Told(pytest.Item):
    """A test that tells its failure in its own words."""

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """The words alone, without a traceback."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where it is."""
        return self.path, None, f"{self.path.name}: {self.name}"


class Verdict(_Told):
    """That a model could be audited."""

    def __init__(self, *, incomplete: str, **given: object) -> None:
        super().__init__(**given)  # type: ignore[arg-type]  # pytest's own
        self.incomplete = incomplete

    def runtest(self) -> None:
        """Fails where the audit is incomplete."""
        if self.incomplete:
            raise Failed(f"audit incomplete: {self.incomplete}")


class Failing(_Told):
    """That a rule finds nothing, which it does."""

    def __init__(self, *, lines: list[str], **given: object) -> None:
        super().__init__(**given)  # type: ignore[arg-type]  # pytest's own
        self.lines = lines

    def runtest(self) -> None:
        """Fails with what was found."""
        raise Failed("\n".join(self.lines))
