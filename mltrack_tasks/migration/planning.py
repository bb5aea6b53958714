"""What a migration is going to do: digests, what the store has by earlier ones, and batches of the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

from mltrack_tasks import records
from mltrack_tasks.digest import MiB
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.filetree import FILE, Entries, Entry, folders_above
from mltrack_tasks.localtree.scanning import UNREADABLE
from mltrack_tasks.migration.existing import list_existing
from mltrack_tasks.migration.groups import RunGroup, members, touched_by
from mltrack_tasks.migration.hashcache import HashCache
from mltrack_tasks.migration.hashing import Failed, hash_entries
from mltrack_tasks.migration.losses import find_lost, relied_on
from mltrack_tasks.migration.registries import files_of_models, has_all
from mltrack_tasks.migration.scan import Scan
from mltrack_tasks.migration.state import has_receipts, merged, places_in, read_receipts, read_standing
from mltrack_tasks.migrations import MigrationManifest
from mltrack_tasks.plan import Batch, batches_of, inlined, singles_of, to_send
from mltrack_tasks.receipts import Place
from mltrack_tasks.stores.base import Store
from mltrack_tasks.treeparts import read_tree, tree_refs

_PLACE = 168
"""[bytes] of what a run's manifest says of where one file lies: two digests, a format, and two numbers."""
_BESIDE = 8 * MiB
"""[bytes] for all else in a manifest: contents of small files, and what MLflow says."""


class Plan:
    """What is to be done, as a value. Not a dataclass, for Prefect would walk through all of it."""

    def __init__(
        self,
        scan: Scan,
        entries: Sequence[Entry],
        *,
        previous: MigrationManifest | None,
        batches: Sequence[Batch],
        places: Mapping[str, Place] = MappingProxyType({}),
        removed: frozenset[str] = frozenset(),
        failed: Sequence[Failed] = (),
        bodies: Mapping[str, bytes] = MappingProxyType({}),
        unchanged: bool = False,
        pending: Sequence[str] = (),
        lost: frozenset[str] = frozenset(),
    ) -> None:
        self.scan, self.entries, self.previous = scan, Entries(entries), previous
        self.batches, self.failed, self.unchanged = tuple(batches), tuple(failed), unchanged
        self.places = places
        """Digest -> where earlier migrations put it."""
        self.bodies = bodies
        """Digest -> bytes of small files that were read to hash them."""
        self.lost = lost
        """Digests of files that receipts name, and the store has lost: ``places`` lacks them."""
        self.pending = tuple(pending)
        """Keys of records of aliases that a call which did not finish was about to move."""
        self.removed = removed
        """Paths of what is stored and not to be read here: deleted after it was stored, or left out now."""

    @property
    def files(self) -> int:
        """How many files there are."""
        return sum(entry.kind == FILE for entry in self.entries)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    @property
    def new_files(self) -> int:
        """Files in batches: of contents that the migration's receipts do not name yet."""
        return sum(len(batch.files) for batch in self.batches)

    @property
    def new_bytes(self) -> int:
        """Bytes of the files in batches."""
        return sum(batch.size_bytes for batch in self.batches)

    def __repr__(self) -> str:
        new = (
            "nothing new" if self.unchanged else f"{self.new_files:,} to send in {len(self.batches)} batches"
        )
        return f"<plan for {self.scan.root}: {self.files:,} files, {new}>"


def plan_migration(
    store: Store,
    scan: Scan,
    *,
    pack_small_files: bool = True,
    hash_everything: bool = False,
    observe: Observe = log_event,
) -> Plan:
    """Compare what was found with what earlier migrations stored -> the plan.

    Reads the files whose digest no cache knows; large ones only with ``hash_everything``, as a migration
    hashes them while it sends others. Files that cannot be read are named in the plan's ``failed``; what was
    stored of them before stays what a restore gives. Writes nothing to the store.
    """
    with scan.origin.open() as tree, HashCache(tree.root) as cache:
        found = hash_entries(tree, cache, scan.entries, everything=hash_everything, observe=observe)
    entries, failed = found.entries, found.failed
    failed += [Failed(*item) for item in scan.left_out if item[1].startswith(UNREADABLE)]
    require_room(scan.groups, entries)
    previous, pending = read_standing(store, scan.migration)
    scan = scan.as_before(previous)
    known, lost = dict[str, Place](), frozenset[str]()
    read = entries
    if previous is not None:
        entries = _with_older(store, read, [*failed, *scan.left_out], previous)
        if not failed and not pending and _is_unchanged(store, scan, entries, previous):
            return Plan(scan, entries, previous=previous, batches=(), unchanged=True)
        known, lost = _stored(store, scan, entries, previous)
    present = {entry.path for entry in entries}
    absent = present - {entry.path for entry in read}
    removed = (_removed_paths(store, previous) - present) | absent
    unread = {failure.path for failure in failed}
    staying = touched_by(unread | removed, scan.groups)
    older = _contents(store, previous) if staying else frozenset()
    inside = set(_inside_manifests(entries, scan.groups, staying, older)) | unread | absent
    of_models = [e for e in files_of_models(entries, scan.registry.models) if e.path not in unread | absent]
    batches = _batches(entries, of_models, inside, known, pack_small_files)
    listing = list_existing(store, singles_of(batches))
    batches = [Batch(batch.files, batch.pack, listing.of(batch.files)) for batch in batches]
    return Plan(
        scan,
        entries,
        previous=previous,
        batches=batches,
        places=known,
        removed=removed,
        failed=failed,
        bodies=found.bodies,
        pending=pending,
        lost=lost,
    )


def require_room(groups: Sequence[RunGroup], entries: Sequence[Entry]) -> None:
    """Raise InvalidInputError if a run has more files than its manifest can tell the places of."""
    room = (records.MAX_RECORD_SIZE - _BESIDE) // _PLACE
    if len(entries) <= room:
        return
    for group, run in zip(groups, members(entries, groups), strict=True):
        inside = inlined(run)
        files = {e.digest or e.path for e in run if e.kind == FILE and e.digest not in inside}
        if len(files) > room:
            folder = (*group.folders, "")[0] or "the root"
            raise InvalidInputError(
                f"The run {group.run_id!r} has {len(files):,} different files beside the small ones in its "
                f"manifest, which can tell the places of {room:,}. Put them into folders below {folder!r}, "
                "and migrate that folder (without run_id=): each folder on top becomes a run of its own."
            )


def _stored(
    store: Store, scan: Scan, entries: Sequence[Entry], previous: MigrationManifest
) -> tuple[dict[str, Place], frozenset[str]]:
    """Read where the last state says that files lie -> (those places, digests of what the store has lost)."""
    receipts = read_receipts(store, previous.migration, previous.receipts)
    places = places_in(receipts)
    lost = find_lost(store, receipts, places, relied_on(scan, entries, previous))
    return {digest: place for digest, place in places.items() if digest not in lost}, lost


def _batches(
    entries: Sequence[Entry],
    of_models: Sequence[Entry],
    inside: Collection[str],
    known: Mapping[str, Place],
    pack: bool,
) -> list[Batch]:
    """Cut what is to be sent into batches; what registered models consist of becomes blobs of its own."""
    blobs = {digest for digest, place in known.items() if place.offset is None}
    whole = list(to_send(of_models, (), blobs))
    paths, digests = {entry.path for entry in of_models}, {entry.digest for entry in whole if entry.digest}
    others = [entry for entry in entries if entry.path not in paths]
    rest = list(to_send(others, inside, {*known, *digests}))
    share = 2 if whole and rest else 1
    return batches_of(whole, False, share=share) + batches_of(rest, pack, share=share)


def _inside_manifests(
    entries: Sequence[Entry],
    groups: Sequence[RunGroup],
    staying: frozenset[str],
    older: frozenset[tuple[str, str]],
) -> Iterator[str]:
    """Name the files whose bytes are going to stand in manifests of runs, or stand there already.

    Of a run that is not written now, as one of the ``staying`` folders is its own, what is new is sent.
    """
    for group, run in zip(groups, members(entries, groups), strict=True):
        stays = not staying.isdisjoint(group.folders)
        chosen = inlined(run)
        for entry in run:
            if entry.digest in chosen and (not stays or (entry.path, entry.digest) in older):
                yield entry.path


def _contents(store: Store, previous: MigrationManifest | None) -> frozenset[tuple[str, str]]:
    """Paths and digests of the last tree: of all of that the store has the bytes."""
    if previous is None:
        return frozenset()
    tree = read_tree(store, previous.tree, f"the manifest of {previous.migration!r}")
    return frozenset((entry.path, entry.digest) for entry in tree)


def _is_unchanged(store: Store, scan: Scan, entries: Sequence[Entry], previous: MigrationManifest) -> bool:
    if not all(entry.digest for entry in entries if entry.kind == FILE):
        return False
    # Runs that are no longer in the folder are listed as well. What failed is listed as left out.
    known = {run.run_id for run in previous.runs}
    if not has_all(scan.registry, previous):
        return False
    if previous.left_out != scan.left_out or not known.issuperset(group.run_id for group in scan.groups):
        return False
    same = previous.tree == tree_refs(entries)
    return same and has_receipts(store, previous.migration, previous.receipts)


def _removed_paths(store: Store, previous: MigrationManifest | None) -> frozenset[str]:
    older = read_tree(store, previous.removed, "the files removed earlier") if previous else []
    return frozenset(entry.path for entry in older if entry.kind == FILE)


def _with_older(
    store: Store, entries: list[Entry], unread: Sequence[tuple[str, str]], previous: MigrationManifest
) -> list[Entry]:
    """Put back what the last manifest says of what cannot be read now, and of what is below it."""
    if not unread:
        return entries
    roots = {path for path, _ in unread}
    older = [
        entry
        for entry in read_tree(store, previous.tree, f"the manifest of {previous.migration!r}")
        if not roots.isdisjoint((entry.path, *folders_above(entry.path)))
    ]
    return merged(entries, older)
