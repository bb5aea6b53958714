"""Migrations in a store: their keys, and the record of a finished state.

A *migration* is what one folder on one machine is to a store, however often it is migrated; each time that it
had changed gives a further numbered manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mltrack_tasks import layout
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.fields import Fields, is_count, is_list, is_name, is_size, is_spelling
from mltrack_tasks.modelkeys import check_alias, is_version
from mltrack_tasks.paths import read_spelled, spell
from mltrack_tasks.receipts import is_batch_id
from mltrack_tasks.records import Record

MIGRATIONS = "migrations/"
SOURCES = ("directory", "mlflow")

_NUMBERED = re.compile(r"(?P<number>[0-9]{8})\.json")


def folder_of(migration: str) -> str:
    """Folder of all records of a migration, ending in ``/``."""
    return f"{MIGRATIONS}{layout.encode_segment(migration, what='The name of the migration')}/"


def manifests_folder(migration: str) -> str:
    """Folder of a migration's manifests, ending in ``/``."""
    return f"{folder_of(migration)}manifests/"


def manifest_key(migration: str, number: int) -> str:
    """Key of a migration's manifest of one finished state."""
    if not 1 <= number <= 99_999_999:
        raise InvalidInputError(f"{number} is not the number of a migration's manifest (1 to 99,999,999).")
    return f"{manifests_folder(migration)}{number:08d}.json"


def parse_manifest_key(key: str) -> tuple[str, int] | None:
    """Read a key -> (migration, number), or None if it is not that of a migration's manifest."""
    parts = key.split("/")
    match = _NUMBERED.fullmatch(parts[-1])
    if len(parts) != 4 or f"{parts[0]}/" != MIGRATIONS or parts[2] != "manifests" or match is None:
        return None
    try:
        found = layout.decode_segment(parts[1]), int(match["number"])
    except IntegrityError:
        return None
    return found if found[1] >= 1 else None


def batch_key(migration: str, batch: str) -> str:
    """Key of the record that says what a batch is about to send."""
    return f"{folder_of(migration)}plans/{_checked_id(batch)}.json"


def parse_plan_key(key: str) -> str | None:
    """Read a key -> the batch's id, or None."""
    return _parse_batch(key, "plans")


def receipts_folder(migration: str) -> str:
    """Folder of a migration's receipts, ending in ``/``."""
    return f"{folder_of(migration)}receipts/"


def receipt_key(migration: str, batch: str) -> str:
    """Key of the record that says what the store confirmed of a batch."""
    return f"{receipts_folder(migration)}{_checked_id(batch)}.json"


def parse_receipt_key(key: str) -> str | None:
    """Read a key -> the batch's id, or None."""
    return _parse_batch(key, "receipts")


def moves_key(migration: str, number: int, moves: str) -> str:
    """Key of the record that says which aliases are about to be moved on the way to a state."""
    return f"{manifest_key(migration, number).removesuffix('.json')}~{_checked_id(moves)}.json"


def parse_moves_key(key: str) -> tuple[str, int, str] | None:
    """Read a key -> (migration, number of the state, id), or None."""
    place, _, last = key.removesuffix(".json").rpartition("~")
    found = parse_manifest_key(f"{place}.json")
    return (*found, last) if found and is_batch_id(last) and key.endswith(f"~{last}.json") else None


def parse_moves(record: Record, *, what: str) -> list[tuple[str, str, MigratedAlias | None]]:
    """Parse what a call was about to move -> (model, alias, to what; None: to nothing)."""
    rows = Fields(record.content, what).rows("aliases", is_name, _is_alias, _is_number, _is_version)
    return [
        (model, alias, None if number is None else MigratedAlias(model, alias, number, version))
        for model, alias, number, version in rows
    ]


class PartRef(NamedTuple):
    """A list of entries as a blob of format ``bin``."""

    digest: str
    size: int
    """[bytes] of the list."""
    entries: int


class MigratedRun(NamedTuple):
    """A run of a migration: its manifest's revision, and what tells that it has changed."""

    run_id: str
    revision: int
    signature: str
    folders: tuple[str, ...]


class MigratedVersion(NamedTuple):
    """A version of a registered model of MLflow's, and which version here it is."""

    model: str
    number: int
    """MLflow's."""
    version: str | None
    """None: its files are not in the folder, or no version here can have them; ``note`` says why."""
    signature: str
    """What tells that MLflow says something else of it."""
    note: str | None = None


class MigratedAlias(NamedTuple):
    """An alias (or stage) of MLflow's, and which version it was given to here."""

    model: str
    alias: str
    number: int
    """MLflow's, of the version that it stands for there."""
    version: str | None
    """None: the alias here was left alone; ``note`` says why."""
    note: str | None = None


class TakenRegistry(NamedTuple):
    """Which of several registries of a folder a registered model was taken from."""

    model: str
    place: str
    """Of the database or the file store in the folder."""
    changed_ms: int | None
    """[ms since 1970] When MLflow had changed the model last."""


@dataclass(frozen=True)
class MigrationManifest:
    """One finished state of a migration: everything that is needed to restore it."""

    migration: str
    number: int
    source: str
    tree: tuple[PartRef, ...] = ()
    """What was in the folder."""
    removed: tuple[PartRef, ...] = ()
    """What a migration has removed from the folder, or was about to: part of a restore all the same."""
    runs: tuple[MigratedRun, ...] = ()
    receipts: tuple[str, ...] = ()
    files: int = 0
    size_bytes: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what could not be kept, such as sockets."""
    versions: tuple[MigratedVersion, ...] = ()
    """Of MLflow's registered models."""
    aliases: tuple[MigratedAlias, ...] = ()
    registries: tuple[TakenRegistry, ...] = ()
    """Where each registered model was taken from."""
    moves: tuple[str, ...] = ()
    """Ids of what was written down before aliases were moved on the way to this state."""

    def __repr__(self) -> str:
        return (
            f"<manifest {self.number} of {self.migration!r}: {self.files:,} files, {self.size_bytes:,} bytes>"
        )

    def to_content(self) -> dict[str, Any]:
        """Map onto the record's content."""
        return {
            "migration": self.migration,
            "number": self.number,
            "source": self.source,
            "tree": [list(part) for part in self.tree],
            "removed": [list(part) for part in self.removed],
            "runs": [[*run[:3], [spell(folder) for folder in run.folders]] for run in self.runs],
            "receipts": list(self.receipts),
            "files": self.files,
            "size_bytes": self.size_bytes,
            "left_out": [[spell(path), spell(reason)] for path, reason in self.left_out],
            "versions": [list(row) for row in self.versions],
            "aliases": [list(row) for row in self.aliases],
            "registries": [[row.model, spell(row.place), row.changed_ms] for row in self.registries],
            "moves": list(self.moves),
        }

    @classmethod
    def from_record(cls, record: Record, *, what: str) -> MigrationManifest:
        """Parse a migration's manifest; IntegrityError names what is not as it must be."""
        fields = Fields(record.content, what)
        runs = fields.rows("runs", is_name, is_count, is_digest, is_list)
        left_out = fields.rows("left_out", is_spelling, is_spelling)
        return cls(
            migration=fields.name("migration"),
            number=fields.size("number"),
            source=fields.choice(fields.text("source"), SOURCES, "kind of source"),
            tree=parse_parts(fields, "tree"),
            removed=parse_parts(fields, "removed"),
            runs=tuple(_run(row, what) for row in runs),
            receipts=_ids(fields, "receipts", what),
            files=fields.size("files"),
            size_bytes=fields.size("size_bytes"),
            left_out=tuple((read_spelled(a, what), read_spelled(b, what)) for a, b in left_out),
            versions=tuple(MigratedVersion(*row) for row in _rows(record, fields, "versions", *_VERSION)),
            aliases=tuple(MigratedAlias(*row) for row in _rows(record, fields, "aliases", *_ALIAS)),
            registries=tuple(
                TakenRegistry(model, read_spelled(place, what), changed)
                for model, place, changed in _rows(record, fields, "registries", *_REGISTRY)
            ),
            moves=_ids(fields, "moves", what) if "moves" in record.content else (),
        )


def _ids(fields: Fields, key: str, what: str) -> tuple[str, ...]:
    found = fields.texts(key) or ()
    if not all(map(is_batch_id, found)):
        raise IntegrityError(f"{what} names {key} that are none.")
    return found


def parse_parts(fields: Fields, key: str) -> tuple[PartRef, ...]:
    """Parse references of parts out of a record."""
    return tuple(PartRef(*row) for row in fields.rows(key, is_digest, is_size, is_size))


def _rows(record: Record, fields: Fields, key: str, *valid: Callable[[Any], bool]) -> list[list[Any]]:
    """Parse a table; empty in a manifest of before there were any."""
    return fields.rows(key, *valid) if key in record.content else []


def _is_version(value: Any) -> bool:
    return value is None or is_version(value)


def _is_alias(value: Any) -> bool:
    try:
        check_alias(value)
    except InvalidInputError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return value is None or is_size(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_note(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _run(row: Sequence[Any], what: str) -> MigratedRun:
    run_id, revision, signature, folders = row
    return MigratedRun(run_id, revision, signature, tuple(read_spelled(folder, what) for folder in folders))


def _parse_batch(key: str, folder: str) -> str | None:
    last = key.rpartition("/")[2].removesuffix(".json")
    return last if is_batch_id(last) and key.endswith(f"/{folder}/{last}.json") else None


def _checked_id(batch: str) -> str:
    if not is_batch_id(batch):
        raise InvalidInputError(f"{batch!r:.80} is not the id of a batch.")
    return batch


_VERSION = (is_name, is_size, _is_version, _is_text, _is_note)
_ALIAS = (is_name, _is_alias, is_size, _is_version, _is_note)
_REGISTRY = (is_name, is_spelling, _is_number)
