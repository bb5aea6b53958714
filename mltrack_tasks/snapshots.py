"""Snapshots of the run catalogue: numbered records that list Parquet parts, each made from the one before.

A snapshot's number is what concurrent compactions race for: the loser begins again from the winner's. Parts
have names of their own that nobody writes twice, so that removing old ones can never hit a new one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ConflictError, IntegrityError, TransientError
from mltrack_tasks.fields import Fields
from mltrack_tasks.parallel import run_all
from mltrack_tasks.recordstore import create_record, read_record
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.tables import runparts

SNAPSHOTS = f"{layout.CATALOG}snapshots/"
PARTS = f"{layout.CATALOG}parts/"
MAX_PART = 1024**3
"""[bytes] that a part may take: far above any that is written, and small enough to be read at once."""
_SNAPSHOT_KEY = re.compile(re.escape(SNAPSHOTS) + r"([0-9]{8,100})\.json")
_PART_KEY = re.compile(re.escape(PARTS) + r"([0-9a-f]{64})~[0-9a-f]{16}\.parquet")


@dataclass(frozen=True)
class Part:
    """One Parquet file of rows: its key (which names the digest), rows, and bytes."""

    key: str
    rows: int
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Map onto plain JSON."""
        return {"key": self.key, "rows": self.rows, "size_bytes": self.size_bytes}


@dataclass(frozen=True)
class Snapshot:
    """What the catalogue held after one compaction; number 0 with no parts is the state before the first."""

    number: int = 0
    parts: tuple[Part, ...] = ()


def latest_snapshot(store: Store) -> Snapshot:
    """Read the newest snapshot; number 0 if there is none. IntegrityError or FormatError if it is unreadable.

    One LIST and one GET. NotFoundError, TransientError: it was removed between the two; look again.
    """
    numbers = snapshot_numbers(store)
    return _read_snapshot(store, max(numbers)) if numbers else Snapshot()


def snapshot_numbers(store: Store) -> dict[int, Stat]:
    """List the snapshots that are there, by number."""
    found = ((_SNAPSHOT_KEY.fullmatch(stat.key), stat) for stat in store.list(SNAPSHOTS))
    numbers = {int(match[1]): stat for match, stat in found if match}
    return {number: stat for number, stat in numbers.items() if snapshot_key(number) == stat.key}


def commit(store: Store, number: int, parts: Sequence[Part]) -> bool:
    """Create the snapshot ``number``: True if these parts are it now, False if another compaction took it."""
    content = {"number": number, "parts": [part.to_json() for part in parts]}
    try:
        create_record(store, snapshot_key(number), content, what=f"Snapshot {number} of the run catalogue")
    except ConflictError:
        return False
    return True


def snapshot_key(number: int) -> str:
    """Key of a snapshot."""
    return f"{SNAPSHOTS}{number:08d}.json"


def write_part(store: Store, table: Any) -> Part:
    """Write rows -> a part under a name that was never used before."""
    body = runparts.encode_rows(table)
    key = f"{PARTS}{sha256_hex(body)}~{secrets.token_hex(8)}.parquet"
    if not store.create(key, body) and store.head(key) is None:
        raise TransientError(f"{key} was refused by {store.location} and is not there. Try again.")
    return Part(key, len(table), len(body))


def read_parts(store: Store, parts: Sequence[Part]) -> list[Any]:
    """Read parts -> their tables, in parallel. IntegrityError if one is not what its name says."""
    return run_all([partial(_read_part, store, part) for part in parts], store.max_workers)


def old_parts(store: Store, before: datetime, kept: Sequence[int]) -> Iterator[str]:
    """Keys of parts from before ``before`` that none of the snapshots ``kept`` lists."""
    stats = [stat for stat in store.list(PARTS) if _PART_KEY.fullmatch(stat.key) and stat.modified < before]
    if not stats:
        return
    snapshots = run_all([partial(_read_snapshot, store, number) for number in kept], store.max_workers)
    used = {part.key for snapshot in snapshots for part in snapshot.parts}
    yield from (stat.key for stat in stats if stat.key not in used)


def _read_snapshot(store: Store, number: int) -> Snapshot:
    key = snapshot_key(number)
    what = f"{key} in {store.location}"
    fields = Fields(read_record(store, key).content, what)
    if fields.size("number") != number:
        raise IntegrityError(f"{what} says that it is another snapshot; it was not written there by us.")
    return Snapshot(number, tuple(_parse_part(raw, what) for raw in fields.items("parts")))


def _parse_part(raw: Any, what: str) -> Part:
    fields = Fields(raw, what)
    key = fields.text("key")
    if not _PART_KEY.fullmatch(key):
        raise IntegrityError(f"{what} lists {key!r:.120}, which is not a part of the catalogue.")
    size = fields.size("size_bytes")
    if size > MAX_PART:
        raise IntegrityError(f"{what} lists a part of {size:,} bytes; none above {MAX_PART:,} is written.")
    return Part(key, fields.size("rows"), size)


def _read_part(store: Store, part: Part) -> Any:
    match = _PART_KEY.fullmatch(part.key)
    body = store.get_range(part.key, 0, part.size_bytes + 1)
    if match is None or sha256_hex(body) != match[1]:
        raise IntegrityError(f"{part.key} in {store.location} is damaged: its bytes do not hash to its name.")
    return runparts.decode_rows(body, f"{part.key} in {store.location}")
