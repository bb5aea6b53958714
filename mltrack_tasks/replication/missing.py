"""What a replica lacks, as the listings of both stores say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from mltrack_tasks import events, layout
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.replication.compare import BlobJob, Pair, Spool, blob_jobs, pairs
from mltrack_tasks.replication.order import LISTED, Step, is_entry, step_of
from mltrack_tasks.replication.report import Tally
from mltrack_tasks.stores.base import Store

_HOLDING = (Step.MANIFESTS, Step.REVISIONS, Step.NAMES, Step.VERSIONS, Step.MIGRATIONS, Step.PROMOTED)
"""Steps whose records keep blobs: those that only the replica has are worth knowing of."""


class Missing:
    """The keys that are to be copied, by step, on disk until their turn comes."""

    def __init__(self, source: Store, replica: Store, tally: Tally) -> None:
        self._source, self._replica, self._tally = source, replica, tally
        self._records = {step: Spool() for step in Step}
        self._blobs = Spool()
        self.withdrawn: list[str] = []
        """Keys of deprecations that were taken back in the source."""

    def look(self, observe: Observe) -> None:
        """List both stores: first what is written last."""
        for folder in LISTED:
            for pair in pairs(self._source, self._replica, folder):
                self._sort(pair)
            self._tell(observe, folder)
        for job, found in blob_jobs(pairs(self._source, self._replica, layout.BLOBS)):
            self._sort_blob(job, found)
        self._tell(observe, layout.BLOBS)

    def records(self, step: Step) -> Iterator[str]:
        """Keys of one step, in order."""
        return (cast(str, key) for key in self._records[step])

    def blobs(self) -> Iterator[BlobJob]:
        """Blobs that are missing, and the records beside them; each time anew."""
        for row in self._blobs:
            digest, sides, blobs = cast(tuple[str, list[str], list[tuple[str, int]]], row)
            yield BlobJob(digest, tuple(sides), tuple((format, size) for format, size in blobs))

    def close(self) -> None:
        """Give the space on disk back."""
        for spool in (self._blobs, *self._records.values()):
            spool.close()

    def _sort(self, pair: Pair) -> None:
        step = step_of(pair.key)
        if step is None:
            return
        if pair.there is None:
            if step is Step.DEPRECATIONS:
                self.withdrawn.append(pair.key)
            self._tally.extra += step in _HOLDING
            return
        entry = is_entry(pair.key)
        if entry and pair.there.size:
            return  # not empty: no entry of ours
        if pair.here is None or (pair.differs and not entry):
            self._records[step].add(pair.key)
            self._tally.missing_records += 1
            self._tally.missing(pair.there.modified)

    def _sort_blob(self, job: BlobJob, found: tuple[Pair, ...]) -> None:
        self._tally.extra += sum(
            pair.there is None and layout.parse_blob_key(pair.key) is not None for pair in found
        )
        if not job.blobs and not job.sides:
            return
        self._blobs.add([job.digest, job.sides, job.blobs])
        self._tally.missing_blobs += len(job.blobs)
        self._tally.missing_bytes += job.size
        for pair in found:
            if pair.there is not None and pair.here is None:
                self._tally.missing(pair.there.modified)

    def _tell(self, observe: Observe, folder: str) -> None:
        done = self._tally.missing_blobs + self._tally.missing_records
        details = {"done": done, "total": None, "unit": "missing objects"}
        observe(Event(events.PROGRESS, f"listing {folder}", details))
