"""What to restore: the files of migrations and runs, each with where its bytes lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mltrack_tasks import layout
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ConflictError, IntegrityError, NotFoundError
from mltrack_tasks.filetree import FILE, FOLDER, Entry, folders_above, in_order
from mltrack_tasks.migrated import of_run
from mltrack_tasks.migration.groups import members
from mltrack_tasks.migration.restoring import Portion
from mltrack_tasks.migration.state import latest_manifest, merged, places_in, read_receipts
from mltrack_tasks.migrations import MigratedRun, MigrationManifest
from mltrack_tasks.plan import BATCH_BYTES, cut
from mltrack_tasks.receipts import Place
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store
from mltrack_tasks.treeparts import read_tree

MANIFEST_FILE = "manifest.json"
BATCH_FILES, MAX_BATCHES = 5_000, 50
"""Entries of one batch, and how many batches there are of so many or of so many bytes."""
_MODE = 0o644
"""Permissions of what was never a file on a disk."""


def read_state(store: Store, name: str) -> MigrationManifest:
    """Read the last finished state of a migration. NotFoundError if there is none."""
    manifest = latest_manifest(store, name)
    if manifest is None:
        raise NotFoundError(f"There is no migration {name!r} in {store.location}.", details={"name": name})
    return manifest


def portions_of_migration(store: Store, manifest: MigrationManifest) -> list[Portion]:
    """All that a state of a migration lists: what was in its folder, or was deleted from there."""
    name = manifest.migration
    what = f"the manifest of {name!r}"
    entries = merged(read_tree(store, manifest.tree, what), read_tree(store, manifest.removed, what))
    places = places_in(read_receipts(store, name, manifest.receipts))
    inside = [entry for entry in entries if entry.kind == FILE and entry.digest not in places]
    owned = members(inside, manifest.runs)
    if sum(map(len, owned)) != len(inside):
        raise IntegrityError(f"{what} lists files whose bytes neither a receipt nor a run of it has.")
    skipped = {entry.path for entry in inside}
    sent = [entry for entry in entries if entry.path not in skipped]
    runs = zip(_with_those_around(manifest.runs), owned, strict=True)
    return [Portion(sent, places), *(Portion(files, runs=those) for those, files in runs if files)]


def _with_those_around(runs: Sequence[MigratedRun]) -> Iterator[list[MigratedRun]]:
    """Give for each run those whose manifests may have its files: itself, then others from the inside out.

    Which folders are runs may change between two migrations, and a run that is none any more stays.
    """
    owners: dict[str, list[MigratedRun]] = {}
    for run in runs:
        for folder in run.folders:
            owners.setdefault(folder, []).append(run)
    for run in runs:
        folders = [above for folder in run.folders for above in (folder, *folders_above(folder), "")]
        yield [run, *(other for folder in folders for other in owners.get(folder, ()) if other is not run)]


def portion_of_run(store: Store, manifest: RunManifest) -> Portion:
    """The files of one run: where they lay if it was migrated, else ``<run id>/<name>.<format>``."""
    what = f"The manifest of {manifest.run_id!r} in {store.location}"
    migrated = of_run(manifest, what=what)
    if migrated is None:
        return _of_values(store, manifest)
    entries = migrated.files or read_tree(store, migrated.parts, what)
    return Portion(entries, migrated.places, bodies=migrated.contents)


def check_together(portions: Iterable[Portion]) -> list[Entry]:
    """Check that portions can lie in one folder -> their entries; ConflictError names what cannot."""
    known: dict[str, Entry] = {}
    for portion in portions:
        for entry in portion.entries:
            other = known.setdefault(entry.path, entry)
            if (other.kind, other.digest, other.target) != (entry.kind, entry.digest, entry.target):
                raise ConflictError(
                    f"{entry.path!r} has different contents in what is to be restored together. Restore into "
                    "two folders: choose one with migration=... or run_ids=...",
                    existing=other,
                    offered=entry,
                )
    leaves = {path for path, entry in known.items() if entry.kind != FOLDER}
    for path in known:
        above = path.rpartition("/")[0]
        while above:
            if above in leaves:
                raise ConflictError(
                    f"{path!r} lies below {above!r}, which is a file in what is to be restored."
                )
            above = above.rpartition("/")[0]
    return in_order(known.values())


def _of_values(store: Store, manifest: RunManifest) -> Portion:
    """The data of a run that was stored by tasks, and its manifest as it is in the store."""
    folder = layout.encode_segment(manifest.run_id)
    when = int(manifest.stored_at.timestamp() * 1_000_000) * 1_000
    body = store.get(layout.manifest_key(manifest.run_id, manifest.revision))
    digest = sha256_hex(body)
    entries = [Entry(f"{folder}/{MANIFEST_FILE}", FILE, _MODE, len(body), when, digest=digest)]
    places: dict[str, Place] = {}
    for path, ref in _named(manifest):
        entries.append(Entry(f"{folder}/{path}", FILE, _MODE, ref.size_bytes, when, digest=ref.hash))
        places[ref.hash] = Place(ref.hash, ref.format, ref.size_bytes)
    return Portion(entries, places, bodies={digest: body})


def _named(manifest: RunManifest) -> Iterator[tuple[str, DataRef]]:
    """Give each ref of a run its file name; one that two groups use gets the group before it."""
    taken = {MANIFEST_FILE}
    for group in ("data", "inputs", "outputs"):
        for name, ref in getattr(manifest, group).items():
            file = layout.encode_segment(name)
            file = file if file.endswith(f".{ref.format}") else f"{file}.{ref.format}"
            path = f"{group}~{file}" if file in taken else file
            taken.add(path)
            yield path, ref


def in_batches(portions: Iterable[Portion]) -> list[list[Portion]]:
    """Cut portions into batches of BATCH_FILES or BATCH_BYTES, or more if there would be too many."""
    listed = list(portions)
    total = sum(len(portion.entries) for portion in listed)
    size = sum(entry.size for portion in listed for entry in portion.entries)
    most, largest = max(BATCH_FILES, -(-total // MAX_BATCHES)), max(BATCH_BYTES, -(-size // MAX_BATCHES))
    batches: list[list[Portion]] = []
    entries = held = 0
    for piece in (piece for portion in listed for piece in _pieces(portion, most, largest)):
        weight = sum(entry.size for entry in piece.entries)
        if not batches or entries + len(piece.entries) > most or held + weight > largest:
            batches.append([])
            entries = held = 0
        batches[-1].append(piece)
        entries, held = entries + len(piece.entries), held + weight
    return batches


def _pieces(portion: Portion, most: int, largest: int) -> Iterator[Portion]:
    """Cut one large portion where packs change, so that each pack is fetched for one batch only."""
    if len(portion.entries) <= most and sum(entry.size for entry in portion.entries) <= largest:
        yield portion
        return
    by_pack: dict[str, list[Entry]] = {}
    for entry in portion.entries:
        place = portion.places.get(entry.digest)
        by_pack.setdefault(place.digest if place and place.offset is not None else "", []).append(entry)
    for piece in (piece for entries in by_pack.values() for piece in cut(entries, most, largest)):
        places = {e.digest: portion.places[e.digest] for e in piece if e.digest in portion.places}
        bodies = {e.digest: portion.bodies[e.digest] for e in piece if e.digest in portion.bodies}
        yield Portion(piece, places, bodies=bodies, runs=portion.runs)
