"""What was done to a bucket: a record of each change, written before it is made, and of what was applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mltrack_tasks.bucket.naming import APPLIED, CHANGES
from mltrack_tasks.bucket.settings import BucketSettings
from mltrack_tasks.errors import ConflictError, IntegrityError, NotFoundError
from mltrack_tasks.fields import Fields
from mltrack_tasks.modelkeys import numbered_key
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.registry.numbered import create_number, list_numbered, read_number
from mltrack_tasks.stores.base import Store


@dataclass(frozen=True)
class Change:
    """One document before and after. ``undoes`` is the number of the change that this one takes back."""

    number: int
    bucket: str
    document: str
    before: Any
    after: Any
    why: str
    undoes: int | None = None

    def to_content(self) -> dict[str, Any]:
        """Map onto the record's content."""
        return dict(self.__dict__)

    @classmethod
    def from_record(cls, record: Record, number: int, what: str) -> Change:
        """Parse a change; IntegrityError for anything else."""
        fields = Fields(record.content, what)
        before, after = (_document(record.content.get(key), f"{what}: {key}") for key in ("before", "after"))
        undoes = fields.size("undoes") if record.content.get("undoes") is not None else None
        return cls(
            number=number,
            bucket=fields.text("bucket"),
            document=fields.text("document"),
            before=before,
            after=after,
            why=fields.text("why"),
            undoes=undoes,
        )


def _document(value: Any, what: str) -> Any:
    if value is None or isinstance(value, (str, dict)):
        return value
    raise IntegrityError(f"{what} is no document, but {type(value).__name__}.")


@dataclass(frozen=True)
class Applied:
    """The wish that was applied last, and what of ours each document said from then on."""

    number: int
    bucket: str
    settings: BucketSettings
    documents: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[int, ...] = ()

    def to_content(self) -> dict[str, Any]:
        """Map onto the record's content."""
        return {
            "number": self.number,
            "bucket": self.bucket,
            "settings": self.settings.to_content(),
            "documents": dict(self.documents),
            "changes": list(self.changes),
        }

    @classmethod
    def from_record(cls, record: Record, number: int, what: str) -> Applied:
        """Parse what was applied; IntegrityError for anything else."""
        fields = Fields(record.content, what)
        try:
            settings = BucketSettings.model_validate(fields.objects("settings"))
        except ValidationError as error:
            raise IntegrityError(f"{what}: settings are none: {error.error_count()} errors.") from error
        return cls(
            number=number,
            bucket=fields.text("bucket"),
            settings=settings,
            documents=fields.objects("documents"),
            changes=fields.sizes("changes") or (),
        )


def last_applied(store: Store, bucket: str) -> tuple[Applied | None, int]:
    """Read what was applied last -> (it, or None if there is none of this bucket; how many there are)."""
    count = len(list_numbered(store, APPLIED))
    if not count:
        return None, 0
    found = read_number(store, APPLIED, Applied.from_record, count)
    return (found if found.bucket == bucket else None), count  # a copied store brings another bucket's


def write_applied(store: Store, applied: Applied) -> None:
    """Keep what was applied. Raises ConflictError if another call has applied something meanwhile."""
    what = f"what was applied to {applied.bucket}"
    if create_number(store, APPLIED, applied.number, applied.to_content(), what=what) is None:
        raise ConflictError(
            f"Another call has applied settings to {applied.bucket} at the same time. Look at the bucket "
            "with provision_bucket() and decide."
        )


def write_change(store: Store, change: Change) -> Change:
    """Keep a change before it is made -> it, with the number that it has."""
    number = len(list_numbered(store, CHANGES))
    while True:
        number += 1
        numbered = Change(**{**change.__dict__, "number": number})
        what = f"change {number} of {change.bucket}"
        if create_number(store, CHANGES, number, numbered.to_content(), what=what) is not None:
            return numbered


def read_change(store: Store, number: int) -> Change:
    """Read a change; NotFoundError if there is none of this number."""
    key = numbered_key(CHANGES, number)
    try:
        record = read_record(store, key)
    except NotFoundError as error:
        raise NotFoundError(
            f"There is no change {number} in {store.location}; provision_bucket reports the numbers.",
            details=error.details,
        ) from error
    return Change.from_record(record, number, f"{key} in {store.location}")
