"""Errors, grouped by what a handler does about them.

A message says what failed, on which value, and what to do next. Every class survives pickling with its
attributes, because task runners send exceptions between processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any


class MLTrackError(Exception):
    """Base of everything this library raises on purpose.

    ``details`` holds the values behind the message (key, bucket, digest, ...), for code that handles the
    error. It never holds a secret.
    """

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[MLTrackError], args: tuple[Any, ...], state: dict[str, Any]) -> MLTrackError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class TransientError(MLTrackError):
    """Try again: a timeout, a 5xx, SlowDown, a competing write. The only class that Prefect retries."""


class AccessError(MLTrackError):
    """Fix credentials, policy, bucket, region or endpoint; the message names the missing IAM action."""


class NotFoundError(MLTrackError, LookupError):
    """There is no such blob, run, model, version, alias or name."""


class ConflictError(MLTrackError):
    """The name already holds other content. ``existing`` and ``offered`` show both; re-read and decide."""

    def __init__(
        self,
        message: str,
        *,
        existing: Any = None,
        offered: Any = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, details=details)
        self.existing = existing
        self.offered = offered


class IntegrityError(MLTrackError):
    """Bytes do not hash to their name, or a record does not say what its place says."""


class SourceChangedError(IntegrityError):
    """A file changed while it was read. Nothing was stored under a false digest; run the call again."""


class ArchivedError(MLTrackError):
    """The object lies in an archive storage class and must be restored before it can be read.

    ``storage_class`` is where it lies, ``restoring`` whether that is under way, ``prices`` what each tier of
    restoring costs [dollars], ``how`` the call that begins it; empty where S3 has not been asked.
    """

    def __init__(
        self,
        message: str,
        *,
        storage_class: str | None = None,
        restoring: bool = False,
        prices: Mapping[str, Decimal] | None = None,
        how: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, details=details)
        self.storage_class = storage_class
        self.restoring = restoring
        self.prices: dict[str, Decimal] = dict(prices or {})
        self.how = how


class FormatError(MLTrackError):
    """Written by a newer version, or not in a format that this library knows: upgrade mltrack_tasks."""


class InvalidInputError(MLTrackError, ValueError):
    """A digest, name, dtype or parameter that cannot be accepted.

    Nothing was written, or at most blobs that nothing refers to.
    """


class GateError(InvalidInputError):
    """A gate refused a version; the alias is as it was. ``details["gates"]`` has the report of every gate."""


class PartialTransferError(MLTrackError):
    """Part of a batch failed. ``done`` and ``failed`` list both; run the same call again to finish it."""

    def __init__(
        self,
        message: str,
        *,
        done: Sequence[Any] = (),
        failed: Sequence[Any] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, details=details)
        self.done = tuple(done)
        self.failed = tuple(failed)
