"""What receipts name and the store has lost: asked before new records rely on it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from mltrack_tasks import events
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.migration.changes import around_runs, signed_runs, version_signature
from mltrack_tasks.migration.existing import find_missing
from mltrack_tasks.migration.registries import files_of_models
from mltrack_tasks.migration.registrychoice import ListedModel
from mltrack_tasks.migration.scan import Scan
from mltrack_tasks.migrations import MigrationManifest
from mltrack_tasks.receipts import Place, Receipt
from mltrack_tasks.stores.base import Store


def relied_on(scan: Scan, entries: Sequence[Entry], previous: MigrationManifest) -> set[str]:
    """Name the files, by digest, of runs and versions of models that are to be written anew.

    What stays as it is was proven when it was written; ``verify_store`` looks at it again.
    """
    models = list(_changed_models(scan.registry.models, previous))
    files = [*_of_changed_runs(scan, entries, previous), *files_of_models(entries, models)]
    return {entry.digest for entry in files if entry.kind == FILE and entry.digest}


def find_lost(
    store: Store, receipts: Sequence[Receipt], places: Mapping[str, Place], wanted: Collection[str]
) -> frozenset[str]:
    """Ask the store for the blobs in which files lie -> digests of all files of those that are gone.

    By one LIST or by HEADs, as those are fewer. A blob of another size than its receipt says is gone, too.
    """
    sizes = {pack.digest: pack.size for receipt in receipts for pack in receipt.packs}
    asked: dict[tuple[str, str], int] = {}
    for place in (places[digest] for digest in wanted if digest in places):
        asked[place.digest, place.format] = place.size if place.offset is None else sizes[place.digest]
    gone = find_missing(store, asked) if asked else set()
    lost = frozenset(digest for digest, place in places.items() if (place.digest, place.format) in gone)
    if lost:
        events.logger.warning(
            "%s has lost %s blobs of %s files that receipts name; those that are here are sent again",
            *(store.location, f"{len(gone):,}", f"{len(lost):,}"),
        )
    return lost


def _of_changed_runs(scan: Scan, entries: Sequence[Entry], previous: MigrationManifest) -> Iterator[Entry]:
    known = {run.run_id: run.signature for run in previous.runs}
    for group, files, sign in signed_runs(scan.groups, entries, around_runs(scan.groups, entries)):
        if known.get(group.run_id) != sign:
            yield from files


def _changed_models(models: Sequence[ListedModel], previous: MigrationManifest) -> Iterator[ListedModel]:
    """The models, with those of their versions that are not registered here, or of which MLflow says more."""
    known = {(row.model, row.number): row.signature for row in previous.versions if row.version}
    for model in models:
        versions = (each for each in model.versions if each.folder)
        news = [v for v in versions if known.get((model.name, v.facts.version)) != version_signature(v.facts)]
        if news:
            yield ListedModel(model.facts, tuple(news))
