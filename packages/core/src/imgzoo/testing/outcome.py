"""What a check is, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imgzoo.errors import MissingDependencyError


class SkipCheck(Exception):
    """Raised by a check that does not apply; the message says why."""


@dataclass(frozen=True)
class Check:
    """One named property. Calling it with a subject passes silently, raises `SkipCheck`, or raises what is wrong."""

    name: str
    tier: str
    fn: Callable[[Any], None]
    capability: str = ""
    """Run only where the model declares it."""

    def __call__(self, subject: Any) -> None:
        if self.capability and self.capability not in subject.spec.capabilities:
            raise SkipCheck(f"'{self.capability}' is not declared")
        try:
            self.fn(subject)
        except MissingDependencyError as error:
            raise SkipCheck(str(error)) from error


@dataclass(frozen=True)
class CheckResult:
    """What came of one check of one subject; `status` is passed, failed, skipped or expected."""

    name: str
    subject: str
    status: str
    message: str = ""
