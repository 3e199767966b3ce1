"""What a configuration accepts: findings that somebody knows of, with a reason, and perhaps until a day."""

from __future__ import annotations

from fnmatch import fnmatchcase

from symlint.lint.finding import Finding
from symlint.model.records import dataclass


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One table ``[[accept]]``: a fingerprint, or a rule and perhaps a layer."""

    reason: str
    fingerprint: str = ""
    """With its number among equals or without; see `symlint.lint.fingerprint`."""
    rule: str = ""
    """A code, the beginning of one, or a name."""
    layer: str = ""
    """A pattern of layers' names; empty for every layer."""
    expires: str = ""
    """The last day on which it holds, as YYYY-MM-DD; empty for no end."""
    origin: str = ""
    """The file that it stands in."""

    def names(self, finding: Finding) -> bool:
        """Whether it speaks of a finding; a fingerprint names no more than one of its equals exactly."""
        if self.fingerprint:
            return self.fingerprint == finding.fingerprint
        layer = not self.layer or self.layer == finding.layer or fnmatchcase(finding.layer, self.layer)
        return layer and self.speaks_of(finding.rule, finding.name)

    def speaks_of(self, code: str, name: str) -> bool:
        """Whether its rule is that one."""
        return bool(self.rule) and (self.rule == name or code.startswith(self.rule.upper()))

    @property
    def place(self) -> str:
        """What it names, in words."""
        return self.fingerprint or (f"{self.rule} at {self.layer}" if self.layer else self.rule)

    def expired(self, today: str) -> bool:
        """Whether its last day has passed; both days are written YYYY-MM-DD, so that words compare as days do."""
        return bool(self.expires) and self.expires < today
