"""What check_access found: rows of a table, and the permissions of a role one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mltrack_tasks.errors import AccessError, MLTrackError
from mltrack_tasks.stores.asking import Verdict
from mltrack_tasks.stores.probe import Capabilities

NOT_PROBED = "not probed"
"""How the detail begins of what could not be asked."""


@dataclass(frozen=True)
class AccessCheck:
    """One question and its answer. ``ok`` is None where it is only worth knowing, or could not be asked."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class PermissionCheck:
    """Whether one action on one resource (an ARN, as in the role's policy) is allowed, and why not."""

    action: str
    resource: str
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True)
class AccessReport:
    """What ``check_access`` found. ``ok`` when nothing failed; ``capabilities`` None if not probed.

    ``permissions`` are those of the ``role`` that was asked for, one by one.
    """

    location: str
    checks: tuple[AccessCheck, ...]
    capabilities: Capabilities | None = None
    role: str | None = None
    permissions: tuple[PermissionCheck, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok is not False for check in self.checks)

    @property
    def failed(self) -> tuple[AccessCheck, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if check.ok is False)

    def require_ok(self) -> None:
        """Raise AccessError with each failure and its fix: for a run that is to fail then."""
        if self.failed:
            told = "\n".join(f"  {each.name}: {each.detail}\n    {each.fix}" for each in self.failed)
            raise AccessError(f"{self}:\n{told}", details={"failed": [each.name for each in self.failed]})

    def __str__(self) -> str:
        silent = sum(each.ok is None and each.detail.startswith(NOT_PROBED) for each in self.checks)
        said = f"{len(self.failed)} of {len(self.checks)} checks failed" if self.failed else "nothing failed"
        asked = f" as {self.role}" if self.role else ""
        return f"{self.location}{asked}: {said}, {silent} could not be asked"

    def rows(self) -> list[dict[str, str]]:
        """The checks as table rows: check, result, detail, fix."""
        marks = {True: "ok", False: "FAILED", None: "-"}
        return [
            {"check": check.name, "result": marks[check.ok], "detail": check.detail, "fix": check.fix}
            for check in self.checks
        ]


def ask(name: str, question: Callable[[], str]) -> AccessCheck:
    """Ask one question: its answer, or the error with what to do."""
    try:
        return AccessCheck(name, True, question())
    except MLTrackError as error:
        return failed(name, error)


def failed(name: str, error: MLTrackError, ok: bool | None = False) -> AccessCheck:
    """A message ends with what to do; service errors say so in ``details`` too."""
    advice = error.details.get("fix") or str(error).rsplit(". ", 1)[-1]
    return AccessCheck(name, ok, str(error), str(advice))


def not_probed(name: str, why: str, fix: str = "") -> AccessCheck:
    """What could not be asked, and why: never a pass."""
    return AccessCheck(name, None, f"{NOT_PROBED}: {why}", fix)
