"""A version into another store: another region, account or server; the same files under the same id."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mltrack_tasks import events, layout, modelkeys
from mltrack_tasks.blobs import write_blob
from mltrack_tasks.deletions import hold
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.refs import DataRef
from mltrack_tasks.registry.identity import adopt_version
from mltrack_tasks.registry.materialising import check_places, materialise
from mltrack_tasks.registry.reading import read_named, registrations_of, with_standing
from mltrack_tasks.registry.registering import MATERIALISED_UP_TO, pin_key
from mltrack_tasks.registry.removals import TRIES, outlast_removal, removed_meanwhile, was_removed_since
from mltrack_tasks.registry.versionrecords import create_version, stored_version
from mltrack_tasks.storedblob import StoredBlob
from mltrack_tasks.stores.base import Store


def copy_model(
    store: Store,
    model_name: str,
    version: str,
    target_store: Store,
    *,
    observe: Observe = log_event,
) -> ModelVersion:
    """Copy a version into another store -> the version there, under the same id.

    ``version`` is a version id, an alias or ``latest``. Only the blobs that are missing there are sent, each
    proven; the record keeps who registered it and when, and what was said when it was registered again comes
    too. Neither aliases nor deprecations are copied: what is in use is each store's own affair. Nor are the
    runs and training data that the record names. The same call again finishes what was interrupted. Raises
    ConflictError if the target has other bytes under the id, or the same bytes under another.
    """
    found = read_named(store, model_name, version)
    check_places(target_store, found.model, found.version, [file.path for file in found.files])
    adopt_version(target_store, found.model, found.tree_digest, found.version)
    writers = [partial(_write, store, target_store, file) for file in found.files]
    refs = hold(target_store, writers, partial(pin_key, found.model), observe=observe)
    stored = _written(target_store, found, registrations_of(store, found), observe)
    sent = [ref for ref in refs if ref.created]
    details = {
        **{"model": found.model, "version": found.version, "target": target_store.location},
        **{"files": len(refs), "sent": len(sent), "bytes_sent": sum(ref.size_bytes for ref in sent)},
    }
    observe(Event(events.MODEL_COPIED, f"model.{found.model}", details))
    return replace(with_standing(target_store, stored), created=stored.created)


def _written(target: Store, found: ModelVersion, said: list[Record], observe: Observe) -> ModelVersion:
    """Write folder, record and registrations, again if the version was removed meanwhile."""
    for _ in range(TRIES):
        removals = outlast_removal(target, found.model, found.version)
        if found.size_bytes <= MATERIALISED_UP_TO:
            materialise(target, found, observe=observe)
        stored = stored_version(target, found)
        if stored is None:
            stored = create_version(target, found, found.provenance)
        for record in said:
            key = modelkeys.registration_key(found.model, found.version, record.content_digest)
            ensure(target, key, record.to_bytes())
        if not was_removed_since(target, found.model, found.version, removals):
            return stored
    raise removed_meanwhile(target, found)


def _write(store: Store, target: Store, file: ModelFile, observe: Observe) -> DataRef:
    source = StoredBlob(store, file.digest, file.format, file.size_bytes)
    created = write_blob(target, source, file.format, observe=observe, ask=True)
    place = layout.blob_key(file.digest, file.format)
    return DataRef(file.digest, file.format, file.size_bytes, place, file.shown_path, created=created)
