"""Batches and receipts: what a migration is about to send, and what the store confirmed of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mltrack_tasks import canonical, layout
from mltrack_tasks.digest import is_digest, sha256_hex
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.fields import Fields, is_size, is_spelling
from mltrack_tasks.filetree import Entry, to_row
from mltrack_tasks.paths import read_spelled, spell
from mltrack_tasks.records import Record

DEFER_ABOVE = 1024 * 1024
"""[bytes] Larger files are hashed while others are sent, unless their digest is known."""

_ID = re.compile(r"[0-9a-f]{32}")


def is_batch_id(text: str) -> bool:
    """Tell whether ``text`` has the form of a batch's id."""
    return _ID.fullmatch(text) is not None


def batch_id(files: Iterable[Entry], pack: bool) -> str:
    """Name a batch by what it is to send, so that the same work again finds its receipt."""
    return sha256_hex(canonical.dumps(batch_content(files, pack)))[:32]


def batch_content(files: Iterable[Entry], pack: bool) -> dict[str, Any]:
    """Content of the record of a batch.

    Without the digests of large files, whether they are known by now or not: the same work is the same batch.
    """
    rows = (entry if entry.size <= DEFER_ABOVE else entry._replace(digest="") for entry in files)
    return {"files": [to_row(entry) for entry in rows], "pack": pack}


class Place(NamedTuple):
    """Where the bytes of one file lie: in a blob of their own, or in a pack from ``offset`` [bytes]."""

    digest: str
    """Of the blob, or of the pack."""
    format: str
    size: int
    """[bytes] of the file."""
    offset: int | None = None
    """None: the blob is the file."""


@dataclass(frozen=True)
class Pack:
    """A blob that holds many small files, one after the other."""

    digest: str
    size: int
    members: Mapping[str, tuple[int, int]]
    """Digest of a file -> (offset, size) [bytes]."""


@dataclass(frozen=True)
class Receipt:
    """What the store confirmed of one batch."""

    batch: str
    blobs: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Digest -> (format, size [bytes]) of files that are blobs of their own."""
    packs: tuple[Pack, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    """Path -> digest of the files above DEFER_ABOVE, which the batch's record does not tell."""

    def __repr__(self) -> str:
        return f"<receipt {self.batch}: {len(self.blobs):,} blobs, {len(self.packs):,} packs>"

    def digests_held(self) -> set[str]:
        """The blobs and packs that it names."""
        return {*self.blobs, *(pack.digest for pack in self.packs)}

    def places(self) -> dict[str, Place]:
        """Where each file lies, by digest."""
        found = {digest: Place(digest, format, size) for digest, (format, size) in self.blobs.items()}
        for pack in self.packs:
            for digest, (offset, size) in pack.members.items():
                found.setdefault(digest, Place(pack.digest, "bin", size, offset))
        return found

    def to_content(self) -> dict[str, Any]:
        """Map onto the record's content, with a digest of its own: a flipped digit would be a wrong place."""
        content = {
            "batch": self.batch,
            "blobs": [[digest, *place] for digest, place in sorted(self.blobs.items())],
            "packs": [
                {"digest": p.digest, "size_bytes": p.size, "members": [[d, *m] for d, m in p.members.items()]}
                for p in self.packs
            ],
            "digests": [[spell(path), digest] for path, digest in self.digests.items()],
        }
        return {**content, "check": sha256_hex(canonical.dumps(content))}

    @classmethod
    def from_record(cls, record: Record, *, what: str) -> Receipt:
        """Parse a receipt; IntegrityError names what is not as it must be."""
        fields = Fields(record.content, what)
        content = {key: value for key, value in record.content.items() if key != "check"}
        if fields.text("check") != sha256_hex(canonical.dumps(content)):
            raise IntegrityError(f"{what} is damaged: it is not what its own digest says.")
        blobs = fields.rows("blobs", is_digest, _is_format, is_size)
        digests = fields.rows("digests", is_spelling, is_digest)
        return cls(
            batch=_own_id(fields, "batch", what),
            blobs={digest: (format, size) for digest, format, size in blobs},
            packs=tuple(_pack(raw, what) for raw in fields.items("packs")),
            digests={read_spelled(path, what): digest for path, digest in digests},
        )


def parse_places(fields: Fields, key: str) -> dict[str, Place]:
    """Parse where files lie out of a record: ``[digest, blob's digest, format, size, offset or null]``."""
    rows = fields.rows(key, is_digest, is_digest, _is_format, is_size, _is_offset)
    return {row[0]: Place(*row[1:]) for row in rows}


def _pack(raw: Any, what: str) -> Pack:
    fields = Fields(raw, f"{what}: packs")
    digest, size = fields.text("digest"), fields.size("size_bytes")
    rows = fields.rows("members", is_digest, is_size, is_size)
    if not is_digest(digest) or any(offset + length > size for _, offset, length in rows):
        raise IntegrityError(f"{what} has a pack whose members lie outside of it.")
    return Pack(digest, size, {member: (offset, length) for member, offset, length in rows})


def _own_id(fields: Fields, key: str, what: str) -> str:
    found = fields.text(key)
    if not is_batch_id(found):
        raise IntegrityError(f"{what}: {key} is {found!r:.80}, not the id of a batch.")
    return found


def _is_format(value: Any) -> bool:
    return value in layout.FORMATS


def _is_offset(value: Any) -> bool:
    return value is None or is_size(value)
