"""What the manifest of a migrated run says beside what every run's does: its files, as they lay on disk.

It stands in the manifest's field ``migration``, which only migrations write.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mltrack_tasks import canonical
from mltrack_tasks.digest import is_digest, sha256_hex
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.fields import Fields
from mltrack_tasks.filetree import Entry, check_tree, from_row, to_row
from mltrack_tasks.migrations import PartRef, parse_parts
from mltrack_tasks.paths import read_spelled, spell
from mltrack_tasks.receipts import Place, parse_places
from mltrack_tasks.records import RunManifest

FIELD = "migration"
MAX_ROWS = 1_000
"""Entries that stand in the manifest itself; of more, the list is kept in parts as blobs."""


@dataclass(frozen=True)
class MigratedFiles:
    """The entries of one run, and the contents of the small files among them."""

    kind: str
    """``mlflow`` or ``directory``."""
    folders: tuple[str, ...]
    """Folders of the tree that belong to the run; ``""`` is the whole tree."""
    migration: str | None = None
    """Of a plain folder: which migration it is of. MLflow's run ids are their own wherever they are found."""
    files: tuple[Entry, ...] = ()
    parts: tuple[PartRef, ...] = ()
    """Instead of ``files``, where there are many."""
    contents: Mapping[str, bytes] = field(default_factory=dict)
    """Digest -> bytes."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Digest -> where the bytes lie that are not in ``contents``."""
    mlflow: Mapping[str, Any] = field(default_factory=dict)
    """What MLflow says beyond params, metrics, tags, status and times."""

    def to_json(self) -> dict[str, Any]:
        """Map onto plain JSON."""
        return {
            "kind": self.kind,
            "folders": [spell(folder) for folder in self.folders],
            "name": self.migration,
            "files": [to_row(entry) for entry in self.files],
            "parts": [list(part) for part in self.parts],
            "contents": {digest: _to_text(body) for digest, body in self.contents.items()},
            "places": [[digest, *place] for digest, place in sorted(self.places.items())],
            "mlflow": canonical.escape(dict(self.mlflow), what="mlflow"),
        }


def of_run(manifest: RunManifest, *, what: str) -> MigratedFiles | None:
    """Parse what a migration wrote, or None if the run was not migrated.

    IntegrityError if it is not what a migration writes: a content that is not its digest's, entries that are
    no tree.
    """
    raw = manifest.extra.get(FIELD)
    if raw is None:
        return None
    fields = Fields(raw, f"{what}: {FIELD}")
    entries = tuple(from_row(row, what) for row in fields.items("files"))
    check_tree(entries, what)
    return MigratedFiles(
        kind=fields.text("kind"),
        folders=tuple(read_spelled(folder, what) for folder in fields.items("folders")),
        migration=fields.optional_text("name"),
        files=entries,
        parts=parse_parts(fields, "parts"),
        contents=_contents(fields.objects("contents"), what),
        places=parse_places(fields, "places"),
        mlflow=fields.values("mlflow"),
    )


def signature(entries: Sequence[Entry], facts: Any) -> str:
    """What changes when a run does: the digest of its entries and of what is known about it."""
    return sha256_hex(canonical.dumps([[to_row(entry) for entry in entries], facts]))


def _contents(raw: Mapping[str, Any], what: str) -> dict[str, bytes]:
    contents = {digest: _from_text(text, what) for digest, text in raw.items()}
    for digest, body in contents.items():
        if not is_digest(digest) or sha256_hex(body) != digest:
            raise IntegrityError(f"{what} holds bytes that do not hash to their name {digest!r:.80}.")
    return contents


def _to_text(body: bytes) -> Any:
    """Text where it is UTF-8, so that people can read it; else base64."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


def _from_text(raw: Any, what: str) -> bytes:
    if isinstance(raw, str):
        return raw.encode("utf-8")
    try:
        return base64.b64decode(Fields(raw, what).text("base64"), validate=True)
    except ValueError as error:
        raise IntegrityError(f"{what} holds bytes that are not base64: {error}.") from error
