"""A store, or some runs of it, as a store in a directory: for the same tasks without the bucket."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mltrack_tasks import events, layout, modelkeys
from mltrack_tasks.errors import ConflictError, NotFoundError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.manifests import latest_revision, read_manifest
from mltrack_tasks.migrated import of_run
from mltrack_tasks.migration.restoring import Portion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.receipts import Place
from mltrack_tasks.records import RunManifest
from mltrack_tasks.registry.reading import read_version
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.views import rebuild_views

RECORDS = (layout.NAMES, "models/", "migrations/", layout.MANIFESTS, layout.PINS)
"""Where records are, and the pins that hold blobs for them. Views are made anew; a copy needs neither the
catalogue nor the log, and no collector's plans."""
_MODE = 0o644
_Blob = tuple[str, str, int]


def everything(store: Store) -> tuple[list[Portion], list[str]]:
    """All blobs of a store as files under their keys, and the keys of its records."""
    # Records first: of one that is written meanwhile the blobs may be listed, and it is not.
    listed = [stat.key for prefix in RECORDS for stat in store.list(prefix)]
    records = [key for key in listed if not modelkeys.is_file_of_version(key)]
    blobs: list[_Blob] = []
    beside: list[str] = []
    for stat in store.list(layout.BLOBS):
        place = layout.parse_blob_key(stat.key)
        if place is not None:
            blobs.append((*place, stat.size))
        else:
            beside.append(stat.key)
    return [*_portions(blobs), *_model_folders(store, records)], [*beside, *records]


def of_runs(store: Store, runs: Sequence[RunManifest]) -> tuple[list[Portion], list[str]]:
    """The blobs of some runs, with all their revisions, and the keys of their records.

    Names and models stay behind: they are of the store, not of a run. ``copy_model`` copies a version.
    """
    answers = map_ordered(partial(_of_run, store), runs, store.max_workers)
    blobs: dict[tuple[str, str], int] = {}
    records: list[str] = []
    for held, keys in answers:
        blobs.update({(digest, format): size for digest, format, size in held})
        records += keys
    beside = [key for digest, _ in blobs for key in _beside(digest)]
    return _portions((*blob, size) for blob, size in blobs.items()), [*beside, *records]


def copy_records(store: Store, keys: Iterable[str], local_path: str | Path, observe: Observe) -> None:
    """Copy records into the store in a directory, then make its views. What is there already stays.

    Raises ConflictError if a record there is another.
    """
    target = GuardedStore(DirectoryStore(local_path))
    os.sync()  # the blobs, which were written as files: a record must not survive a power cut without them
    wanted = list(keys)
    for number, _ in enumerate(
        map_ordered(partial(_copy, store, target), wanted, store.max_workers), start=1
    ):
        details = {"done": number, "total": len(wanted), "unit": "records"}
        observe(Event(events.PROGRESS, "copying records", details))
    rebuild_views(target, observe=observe)


def _model_folders(store: Store, records: Iterable[str]) -> list[Portion]:
    """The real files of the versions whose folder is complete, as the marks among the records say."""
    known = set(records)
    places = [place for key in known if (place := modelkeys.parse_version_key(key))]
    folders = [
        (place, folder(*place))
        for place in sorted(places)
        for mark, folder in (
            (modelkeys.materialized_key, modelkeys.development_folder),
            (modelkeys.promoted_key, modelkeys.promoted_folder),
        )
        if mark(*place) in known
    ]
    return list(map_ordered(lambda found: _model_folder(store, *found), folders, store.max_workers))


def _model_folder(store: Store, place: tuple[str, str], folder: str) -> Portion:
    files = read_version(store, *place).files
    entries = [Entry(folder + file.path, FILE, _MODE, file.size_bytes, digest=file.digest) for file in files]
    return Portion(entries, {file.digest: Place(file.digest, file.format, file.size_bytes) for file in files})


def _portions(blobs: Iterable[_Blob]) -> list[Portion]:
    entries, places = [], {}
    for digest, format, size in sorted(blobs):
        key = layout.blob_key(digest, format)
        entries.append(Entry(key, FILE, _MODE, size, digest=digest))
        places[digest] = Place(digest, format, size)
    return [Portion(entries, places)] if entries else []


def _of_run(store: Store, run: RunManifest) -> tuple[list[_Blob], list[str]]:
    blobs: list[_Blob] = []
    keys: list[str] = []
    for revision in range(1, latest_revision(store, run.run_id) + 1):
        manifest = read_manifest(store, run.run_id, revision)
        keys.append(layout.manifest_key(run.run_id, revision))
        for ref in manifest.all_refs:
            blobs.append((ref.hash, ref.format, ref.size_bytes))
            keys.append(layout.run_pin_key(ref.hash, run.run_id))
        blobs += _migrated(store, manifest)
    return blobs, keys


def _migrated(store: Store, manifest: RunManifest) -> Iterator[_Blob]:
    """The blobs and packs that hold a migrated run's files, and the lists of them."""
    files = of_run(manifest, what=f"The manifest of {manifest.run_id!r} in {store.location}")
    if files is None:
        return
    for part in files.parts:
        yield part.digest, "bin", part.size
    for place in files.places.values():
        if place.offset is None:
            yield place.digest, place.format, place.size
        else:
            stat = store.head(layout.blob_key(place.digest, place.format))
            if stat is None:
                raise NotFoundError(
                    f"The pack {place.digest} of {manifest.run_id!r} is not in {store.location}."
                )
            yield place.digest, place.format, stat.size


def _beside(digest: str) -> tuple[str, str]:
    return layout.blob_metadata_key(digest), layout.blob_parts_key(digest)


def _copy(store: Store, target: Store, key: str) -> None:
    try:
        body = store.get(key)
    except NotFoundError:
        if key.startswith(layout.BLOBS):
            return  # not every blob has a description, or was sent in parts
        raise
    if not target.create(key, body) and target.get(key) != body:
        raise ConflictError(
            f"{target.location} holds another {key} than {store.location}. Copy into an empty directory.",
            details={"key": key},
        )
