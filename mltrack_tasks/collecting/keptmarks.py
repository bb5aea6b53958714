"""Kept marks: what each record needs, as an earlier collection read it, so that the next reads new ones only.

A record is known by its key, ETag, size and time of change, as they are listed: written again, whoever did
it, it is another one and is read. So a kept mark never says less than the record would. It is not believed
for longer than VALID_FOR, nor if another version of the library made it, which may have overlooked something.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import Any

from mltrack_tasks import events
from mltrack_tasks.collecting.keys import MARKS, is_marks_key, marks_key
from mltrack_tasks.errors import ArchivedError, FormatError, IntegrityError, NotFoundError
from mltrack_tasks.fields import format_time
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.provenance import UNKNOWN, current, library_version
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure, read_record
from mltrack_tasks.stores.base import Stat, Store

VALID_FOR = timedelta(days=30)
"""By the store's clock: each record is read at least so often."""
FEWEST = 100
"""Records that are worth an object of their own; fewer are read again."""
PART_NEEDS = 50_000
"""Digests of one part: 2.1 MB of them."""
READING = 1
"""Raise it with whatever makes a reader of records find needs that it did not find before."""
_ID, _DIGEST = 16, 32
"""[bytes]"""

Mark = tuple[bytes, bytes]
"""Which record, as ``identity`` says, and the raw digests that it needs, one after the other."""


def identity(stat: Stat | None) -> bytes | None:
    """What tells an object from any that was, or will be, under the same key; None where nothing does."""
    if stat is None or stat.etag is None:
        return None
    return short("\0".join((stat.key, stat.etag, str(stat.size), stat.modified.isoformat())))


def short(text: str) -> bytes:
    """A text in 16 bytes."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_ID).digest()


def kept_parts(store: Store, now: datetime, *, full: bool) -> tuple[list[str], list[str]]:
    """List what earlier collections kept -> keys of what is believed, and of what is not any more.

    ``now`` is the store's; with ``full`` nothing is believed.
    """
    stats = [stat for stat in store.list(MARKS) if is_marks_key(stat.key)]
    old = {stat.key for stat in stats if full or now - stat.modified > VALID_FOR}
    return [stat.key for stat in stats if stat.key not in old], sorted(old)


def marks_in(store: Store, keys: Sequence[str]) -> Iterator[Mark]:
    """Read kept marks. What is damaged, or was made by another version, is passed over."""
    if _made_by() is not None:
        for marks in map_ordered(partial(_read, store), keys, store.max_workers):
            yield from marks


def _read(store: Store, key: str) -> list[Mark]:
    try:
        record = read_record(store, key)
        if key != marks_key(record.content_digest):
            raise IntegrityError(f"{key} in {store.location} does not hold what its name says.")
        if record.content.get("made_by") != _made_by():
            return []
        return [_mark(row, key) for row in _rows(record, key)]
    except NotFoundError:
        return []  # another collection removed it as old
    except (ArchivedError, FormatError, IntegrityError) as error:
        events.logger.warning("its records are read again: %s", error)
        return []


def _rows(record: Record, key: str) -> list[Any]:
    rows = record.content.get("marks")
    if not isinstance(rows, list):
        raise IntegrityError(f"{key} lists no marks.")
    return rows


def _mark(row: Any, key: str) -> Mark:
    try:
        found, needs = (b64decode(text, validate=True) for text in row)
    except (TypeError, ValueError, binascii.Error):
        raise IntegrityError(f"{key} has a mark that cannot be read: {row!r:.80}.") from None
    if len(found) != _ID or len(needs) % _DIGEST:
        raise IntegrityError(f"{key} has a mark of the wrong length: {row!r:.80}.")
    return found, needs


class MarksWriter:
    """Keeps marks in parts of PART_NEEDS while records are read, so that one that is killed leaves them."""

    def __init__(self, store: Store, now: datetime) -> None:
        self._store, self._now = store, now
        self._rows: list[list[str]] = []
        self._needs = 0
        self.keys: set[str] = set()
        """Of the parts that were written."""

    def add(self, record: bytes, digests: Collection[bytes]) -> None:
        """Take what a record needs, known by its identity."""
        self._rows.append([_text(record), _text(b"".join(sorted(digests)))])
        self._needs += len(digests) + 1
        if self._needs >= PART_NEEDS:
            self._flush()

    def finish(self) -> None:
        """Write what is left, if it is worth an object."""
        if len(self._rows) >= FEWEST:
            self._flush()

    def _flush(self) -> None:
        if made_by := _made_by():
            # With the time, so that the same marks, once they are old, are another part.
            content = {"made_by": made_by, "at": format_time(self._now), "marks": self._rows}
            record = Record(content, current())
            key = marks_key(record.content_digest)
            ensure(self._store, key, record.to_bytes())
            self.keys.add(key)
        self._rows, self._needs = [], 0


def digests_of(needs: bytes) -> Iterator[bytes]:
    """The raw digests that a mark lists."""
    return (needs[at : at + _DIGEST] for at in range(0, len(needs), _DIGEST))


def _made_by() -> str | None:
    """Whose marks are believed; None where nothing tells one version of the library from the next."""
    version = library_version()
    return None if version == UNKNOWN else f"{version}/{READING}"


def _text(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")
