"""What migrations hold: the blobs, packs and lists that their newest manifests name."""

from __future__ import annotations

from collections.abc import Iterator

from mltrack_tasks import layout
from mltrack_tasks.migration.state import latest_manifest, list_migrations, read_receipts
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store


def held_by_migrations(store: Store) -> Iterator[DataRef]:
    """Name every blob that the newest manifest of a migration needs, each once for each migration.

    ``name`` is ``migration <name>``. Older states, of which only the lists of files are extra, are not looked
    at: pins hold those. Damaged manifests and receipts are passed over with a warning in the log.
    """
    for migration in list_migrations(store):
        manifest = latest_manifest(store, migration)
        if manifest is None:
            continue
        blobs = {part.digest: ("bin", part.size) for part in (*manifest.tree, *manifest.removed)}
        for receipt in read_receipts(store, migration, manifest.receipts):
            blobs |= receipt.blobs
            blobs |= {pack.digest: ("bin", pack.size) for pack in receipt.packs}
        for digest, (format, size) in sorted(blobs.items()):
            yield DataRef(
                hash=digest,
                format=format,
                size_bytes=size,
                storage_path=layout.blob_key(digest, format),
                name=f"migration {migration}",
            )
