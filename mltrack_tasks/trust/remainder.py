"""The remainder: what is neither a blob nor a model. Listings say all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from mltrack_tasks import layout, migrations, modelkeys
from mltrack_tasks.errors import AccessError
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.registry.aliases import current_promotion
from mltrack_tasks.registry.removals import removals_of
from mltrack_tasks.removals import REMOVED_RUNS
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.findings import (
    DANGLING_ALIAS,
    DANGLING_VIEW,
    FOREIGN,
    MISSING_VIEW,
    UNFINISHED,
    Finding,
)
from mltrack_tasks.trust.journal import AUDITS
from mltrack_tasks.trust.knownkeys import BUCKET, GC, is_known, is_other_record
from mltrack_tasks.trust.readers import Holder
from mltrack_tasks.trust.references import References
from mltrack_tasks.trust.structure import fault_of_record, judge_views
from mltrack_tasks.trust.walk import foreign
from mltrack_tasks.views import MODES, entries_of_run

_RUNS = "runs/"
_ELSEWHERE = (layout.BLOBS, "models/", _RUNS, ".probe/")
"""What is looked at in other ways; of trial objects, whose maker is at work, nothing is asked."""
_LISTED = (layout.MANIFESTS, layout.NAMES, migrations.MIGRATIONS, layout.CATALOG, GC, AUDITS, BUCKET)
_SAID = {
    MISSING_VIEW: "follows from the run's manifest, and is not there; rebuild_views makes it",
    DANGLING_VIEW: "does not follow from the run's manifest; rebuild_views removes it",
}


def remainder(
    store: Store, references: References, old: Callable[[datetime], bool], left_out: list[str]
) -> Iterator[Finding]:
    """Find what is wrong beside blobs and models; what could not be asked is said in ``left_out``."""
    yield from references.noted()
    for holder, version, record in references.dangling_aliases():
        if store.head(record) is not None:
            continue  # promoted since
        if _is_history(store, holder, version):
            continue
        said = f"stands, or stood, for {version}, which has no complete folder in the registry"
        yield Finding(DANGLING_ALIAS, holder.key, said, None, (f"{holder.kind} {holder.name}",), 1)
    yield from _views(store, references)
    yield from _others(store)
    try:
        for stat in store.unfinished():
            if old(stat.modified):
                yield Finding(UNFINISHED, stat.key, f"was begun at {stat.modified:%Y-%m-%d %H:%M}, and left")
    except AccessError as error:
        left_out.append(f"Unfinished uploads: {error}")


def _is_history(store: Store, holder: Holder, version: str) -> bool:
    """Whether a version was removed, and the alias that stood for it stands for something else by now."""
    place = modelkeys.parse_alias_folder(holder.key)
    if place is None or not removals_of(store, place[0], version):
        return False
    current = current_promotion(store, *place)
    return current is None or current.version != version


def _views(store: Store, references: References) -> Iterator[Finding]:
    for mode in MODES:
        aside: list[Finding] = []
        folder = f"{_RUNS}{mode}/"
        expected = (key for key in references.views() if key.startswith(folder))
        doubts = judge_views(store.list(folder), expected, mode, aside.append)
        for finding in map_ordered(partial(_standing, store), doubts, store.max_workers):
            if finding is not None:
                yield finding
        yield from aside


def _standing(store: Store, doubt: tuple[str, str, str]) -> Finding | None:
    """Look again at an entry of a view: its run may have been written, or revised, since."""
    kind, key, run_id = doubt
    justified = entries_of_run(store, run_id)
    if justified is None:
        return None  # its manifest cannot be read, which is a finding of its own
    wanted = key in justified
    if wanted != (kind == MISSING_VIEW) or (store.head(key) is not None) == wanted:
        return None
    return Finding(kind, key, _SAID[kind], None, (f"run {run_id}",), 1)


def _others(store: Store) -> Iterator[Finding]:
    """Foreign objects, and records that cannot be read though nothing needs a blob for them."""
    objects, folders = store.level("")
    yield from (foreign(stat) for stat in objects if not is_known(stat.key))
    for folder in (f"{name}/" for name in folders):
        if folder in _LISTED:
            yield from _listed(store, folder)
        elif folder not in _ELSEWHERE:
            yield _foreign_folder(folder)
    objects, folders = store.level(_RUNS)
    yield from map(foreign, objects)
    for folder in (f"{_RUNS}{name}/" for name in folders):
        if folder in (layout.RUN_LOG, REMOVED_RUNS):
            yield from _listed(store, folder)
        elif folder != layout.PINS and folder.split("/")[1] not in MODES:
            yield _foreign_folder(folder)


def _listed(store: Store, folder: str) -> Iterator[Finding]:
    found = map_ordered(partial(_judge, store), store.list(folder), store.max_workers)
    return (finding for finding in found if finding is not None)


def _judge(store: Store, stat: Stat) -> Finding | None:
    if not is_known(stat.key):
        return foreign(stat)
    return fault_of_record(store, stat.key) if is_other_record(stat.key) else None


def _foreign_folder(folder: str) -> Finding:
    return Finding(
        FOREIGN, folder, "is a folder that this library did not write; nothing in it was looked at"
    )
