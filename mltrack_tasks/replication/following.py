"""Copying what follows the blobs: records, the folders of models, and promotions last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby

from mltrack_tasks import events, layout, modelkeys
from mltrack_tasks.errors import ConflictError, MLTrackError, NotFoundError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.replication.blobs import OF_ONE_OBJECT
from mltrack_tasks.replication.missing import Missing
from mltrack_tasks.replication.order import NUMBERED, Step, is_entry, model_of, predecessor
from mltrack_tasks.replication.records import (
    copy_folder_of_registered,
    copy_promoted,
    copy_record,
    copy_version,
)
from mltrack_tasks.replication.report import Tally
from mltrack_tasks.stores.base import Store
from mltrack_tasks.trust.roots import Unreadable, roots

_OF_ONE_RECORD = (*OF_ONE_OBJECT, ConflictError)
_REPORT_EVERY = 1_000
_WITH_FOLDERS = {
    Step.VERSIONS: copy_version,
    Step.FOLDERS: copy_folder_of_registered,
    Step.PROMOTED: copy_promoted,
}
"""What fills folders has all workers to itself."""

Copied = tuple[str, bool, MLTrackError | None]
"""Key, whether it was written, and what went wrong."""


class Following:
    """The steps after the blobs."""

    def __init__(
        self, source: Store, replica: Store, missing: Missing, tally: Tally, observe: Observe
    ) -> None:
        self._source, self._replica, self._missing = source, replica, missing
        self._tally, self._observe = tally, observe
        self._held: frozenset[str] = frozenset()
        self._looked_at = 0
        self._broken: set[str] = set()
        """Segments of models of which something could not be copied."""

    def copy(self, failed: set[str]) -> None:
        """Copy step by step; ``failed`` are the digests of blobs that are not in the replica."""
        self._held = _needing(self._source, failed) if failed else frozenset()
        for step in Step:
            if step is Step.DEPRECATIONS and self._missing.withdrawn:
                self._replica.delete(self._missing.withdrawn)
            for key, written, error in self._run(step):
                self._note(key, written, error)

    def _run(self, step: Step) -> Iterator[Copied]:
        keys = self._admitted(step)
        workers = self._replica.max_workers
        if step in NUMBERED:
            groups = (list(group) for _, group in groupby(keys, key=_row))
            for done in map_ordered(self._in_a_row, groups, workers):
                yield from done
        elif step in _WITH_FOLDERS:
            copy = partial(_WITH_FOLDERS[step], observe=self._observe)
            yield from (self._tried(copy, key) for key in keys)
        else:
            yield from map_ordered(partial(self._tried, self._one), keys, workers)

    def _admitted(self, step: Step) -> Iterator[str]:
        """The keys of a step, without those that would come before what they need."""
        for key in self._missing.records(step):
            follows = step is Step.ALIASES and model_of(key) in self._broken
            incomplete = step is Step.MIGRATIONS and (self._tally.failures or self._tally.held_back)
            if follows or incomplete or _record_of(key) in self._held:
                self._tally.held_back += 1
                self._broken.add(model_of(key))
            else:
                yield key

    def _one(self, source: Store, target: Store, key: str) -> bool:
        return ensure(target, key) if is_entry(key) else copy_record(source, target, key)

    def _tried(self, copy: Callable[[Store, Store, str], bool], key: str) -> Copied:
        try:
            return key, copy(self._source, self._replica, key), None
        except NotFoundError:
            return key, False, None  # removed from the source meanwhile
        except _OF_ONE_RECORD as error:
            return key, False, error

    def _in_a_row(self, keys: Iterable[str]) -> list[Copied]:
        """Copy numbered records, each after the one before.

        Both may have been written while the folder was listed, and only the later one seen: it then waits for
        the next replication. If the one before could not be copied, that was told.
        """
        done: list[Copied] = []
        for key in keys:
            before = predecessor(key)
            if before is not None and self._replica.head(before) is None:
                break
            done.append(self._tried(copy_record, key))
            if done[-1][2] is not None:
                break
        return done

    def _note(self, key: str, written: bool, error: MLTrackError | None) -> None:
        if error is not None:
            self._tally.fail(key, error)
            self._broken.add(model_of(key))
        self._tally.copied_records += written
        self._looked_at += 1
        if self._looked_at % _REPORT_EVERY == 0:
            details = {"done": self._looked_at, "total": self._tally.missing_records, "unit": "records"}
            self._observe(Event(events.PROGRESS, "replicating records", details))


def _needing(source: Store, failed: set[str]) -> frozenset[str]:
    """Keys of the records that need one of the blobs that could not be copied."""
    unread: list[Unreadable] = []  # each will fail when it is copied
    return frozenset(
        root.holder.key
        for root in roots(source, unread.append)
        if any(need.digest in failed for need in root.needs)
    )


def _record_of(key: str) -> str:
    """The record whose blobs must be there: of the mark of a version's folder, the version's."""
    parts = key.split("/")
    if key.startswith(modelkeys.VERSIONS) and parts[3] == "_materialized":
        return modelkeys.version_key(layout.decode_segment(parts[2]), parts[4])
    return key


def _row(key: str) -> str:
    """What numbered records have in common that count up together."""
    return key.rpartition("~" if key.startswith(layout.MANIFESTS) else "/")[0]
