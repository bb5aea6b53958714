"""Needs: the blobs that one record names, whatever kind of record it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from mltrack_tasks import layout
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.fields import Fields, is_size
from mltrack_tasks.filetree import FILE
from mltrack_tasks.migrated import of_run
from mltrack_tasks.migrations import MigrationManifest, PartRef
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.receipts import Receipt
from mltrack_tasks.records import Record, RunManifest
from mltrack_tasks.refs import DataRef, refs_from_json


class Need(NamedTuple):
    """One blob that a record names."""

    digest: str
    format: str | None
    """None: the record does not say; it means whichever format there is."""
    size: int | None = None
    """[bytes]; None: the record does not say."""
    planned: bool = False
    """Whether the blob may be still to come: it is to be kept, and not missed."""


def of_refs(refs: Iterable[DataRef]) -> tuple[Need, ...]:
    """What refs name, each blob once for each size that is claimed of it."""
    return _each_once(Need(ref.hash, ref.format, ref.size_bytes) for ref in refs)


def of_manifest(manifest: RunManifest, *, what: str) -> tuple[Need, ...]:
    """What a run needs: its refs, and of a migrated one its lists of files, its files and their packs."""
    return _each_once([*of_refs(manifest.all_refs), *_of_migrated(manifest, what)])


def of_version(version: ModelVersion) -> tuple[Need, ...]:
    """What a version of a model needs: its files, and its training data."""
    files = (Need(file.digest, file.format, file.size_bytes) for file in version.files)
    return _each_once([*files, *of_refs(version.training_data.values())])


def of_registration(record: Record, *, what: str) -> tuple[Need, ...]:
    """What a later registration of a version needs: the training data that was named then."""
    raw = Fields(record.content, what).named("training_data")
    return of_refs(refs_from_json(raw, what=f"{what}: training_data").values())


def of_migration(manifest: MigrationManifest) -> tuple[Need, ...]:
    """What a finished state of a migration needs beside its receipts and runs: its lists of files."""
    return _each_once(_of_parts([*manifest.tree, *manifest.removed]))


def of_receipt(receipt: Receipt) -> tuple[Need, ...]:
    """What a batch was confirmed to have: blobs and packs."""
    blobs = (Need(digest, format, size) for digest, (format, size) in receipt.blobs.items())
    return _each_once([*blobs, *(Need(pack.digest, "bin", pack.size) for pack in receipt.packs)])


def of_plan(record: Record, *, what: str) -> tuple[Need, ...]:
    """What a batch is about to send, as far as it was hashed; pins hold the rest, and packs."""
    return _each_once(_planned(record, what))


def _of_migrated(manifest: RunManifest, what: str) -> Iterator[Need]:
    migrated = of_run(manifest, what=what)
    if migrated is None:
        return
    yield from _of_parts(migrated.parts)
    for place in migrated.places.values():
        in_pack = place.offset is not None  # whose size only the receipt tells
        yield Need(place.digest, place.format, None if in_pack else place.size)


def _of_parts(parts: Iterable[PartRef]) -> Iterator[Need]:
    return (Need(part.digest, "bin", part.size) for part in parts)


def _planned(record: Record, what: str) -> Iterator[Need]:
    for row in Fields(record.content, what).items("files"):
        if not isinstance(row, list) or len(row) != 6 or row[1] != FILE or not is_size(row[3]):
            raise IntegrityError(f"{what} lists something that is no file: {row!r:.80}.")
        if _is_known(row[5], what):
            yield Need(row[5], None, row[3], planned=True)


def _is_known(digest: Any, what: str) -> bool:
    """Whether a plan tells the digest of a file; it leaves out those of large ones."""
    if digest != "" and not is_digest(digest):
        raise IntegrityError(f"{what} names {digest!r:.80}, which is no digest.")
    return bool(digest)


def _each_once(needs: Iterable[Need]) -> tuple[Need, ...]:
    return tuple(dict.fromkeys(needs))


def formats_of(need: Need) -> tuple[str, ...]:
    """The formats in which a need may be met."""
    return layout.FORMATS if need.format is None else (need.format,)
