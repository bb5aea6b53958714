"""A whole migration: the steps in their order, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from mltrack_tasks.errors import FormatError, InvalidInputError, MLTrackError, TransientError
from mltrack_tasks.events import PROGRESS, Event, Observe, log_event
from mltrack_tasks.migration.deletion import MIN_AGE, deletable, delete_batches, delete_local_batch
from mltrack_tasks.migration.finishing import finish_migration, runs_to_write, with_digests
from mltrack_tasks.migration.planning import Plan, plan_migration
from mltrack_tasks.migration.report import MigrationReport, Outcome, incomplete, interrupted, report_of
from mltrack_tasks.migration.runmanifests import write_manifests
from mltrack_tasks.migration.scan import scan_source
from mltrack_tasks.migration.state import places_in
from mltrack_tasks.migration.uploading import upload_batch
from mltrack_tasks.migration.verification import verify_batch
from mltrack_tasks.stores.base import Store

T = TypeVar("T")

TRIES = 3
"""Of a batch, on TransientError: as often as Prefect tries a task of this library."""
PAUSE = 2.0
"""[s] before the second try, and as much more before each further one."""


def migrate_to_s3(
    store: Store,
    local_path: str | Path = "./mlruns",
    *,
    name: str | None = None,
    run_id: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pack_small_files: bool = True,
    delete_after_upload: bool = False,
    min_age: timedelta = MIN_AGE,
    dry_run: bool = False,
    allow_empty: bool = False,
    observe: Observe = log_event,
) -> MigrationReport:
    """Store a folder, its runs as run manifests and everything else byte for byte -> what was done.

    The folder may hold file stores of MLflow, or be any folder (``scan_source`` says how runs are found).
    The same call again continues where one was interrupted, and later sends only what has changed; a run that
    changed becomes a revision. ``dry_run`` hashes and compares, and writes nothing. ``delete_after_upload``
    deletes files of runs that have ended and have not changed for ``min_age``, each after one more look at
    what the store has and at its own bytes; they stay part of a restore.

    Raises PartialTransferError, with what was done and what failed, if files could not be read or changed
    meanwhile (all others are stored then), or if the store failed in the middle: the same call again
    finishes it. Raises InvalidInputError before any work for a path that is not there.
    """
    started = time.monotonic()
    scan = scan_source(
        local_path,
        name=name,
        run_id=run_id,
        include=include,
        exclude=exclude,
        allow_empty=allow_empty,
        observe=observe,
    )
    deletable(scan, (), (), min_age=min_age, now=datetime.now(UTC))
    plan = plan_migration(
        store, scan, pack_small_files=pack_small_files, hash_everything=dry_run, observe=observe
    )
    work = _Migration(store, plan, observe)
    if not dry_run:
        try:
            work.carry_out(min_age if delete_after_upload else None)
        except (FormatError, InvalidInputError):
            raise
        except MLTrackError as error:
            raise interrupted(plan, len(work.outcome.uploaded), error) from error
    report = report_of(plan, work.outcome, dry_run=dry_run, seconds=time.monotonic() - started)
    if report.failed:
        raise incomplete(report)
    return report


class _Migration:
    """One migration while it is carried out."""

    def __init__(self, store: Store, plan: Plan, observe: Observe) -> None:
        self._store, self._plan, self._observe = store, plan, observe
        self._root, self._name = plan.scan.root, plan.scan.migration
        self.outcome = Outcome()

    def carry_out(self, min_age: timedelta | None) -> None:
        """Upload, write manifests, verify, finish; with ``min_age`` delete what is old enough."""
        plan, outcome = self._plan, self.outcome
        if plan.unchanged and min_age is None:
            return
        self._upload()
        entries, outcome.failed = with_digests(plan, outcome.uploaded)
        runs, batches = runs_to_write(plan, entries, outcome.failed, outcome.uploaded)
        for batch in batches:
            write = partial(write_manifests, self._store, batch, local_path=self._root, migration=self._name)
            written, refused = retried(partial(write, observe=self._observe))
            outcome.runs += written
            outcome.failed += refused
        self._verify()
        runs = [*runs, *outcome.runs]
        now = datetime.now(UTC)
        removing = [] if min_age is None else deletable(plan.scan, entries, runs, min_age=min_age, now=now)
        outcome.manifest = retried(
            partial(
                finish_migration,
                self._store,
                plan,
                entries,
                receipts=[item.receipt.batch for item in outcome.uploaded],
                runs=runs,
                removing=[entry for run in removing for entry in run.entries],
                failed=outcome.failed,
                observe=self._observe,
            )
        )
        places = {**plan.places, **places_in(item.receipt for item in outcome.uploaded)}
        for doomed in delete_batches(removing, places):
            delete = partial(delete_local_batch, self._store, doomed, local_path=plan.scan.root)
            outcome.deleted.append(retried(partial(delete, observe=self._observe)))

    def _upload(self) -> None:
        done = 0
        for batch in self._plan.batches:
            tell = _beginning_at(done, self._plan.new_bytes, self._observe)
            send = partial(upload_batch, self._store, batch, local_path=self._root, migration=self._name)
            self.outcome.uploaded.append(retried(partial(send, observe=tell)))
            done += batch.size_bytes

    def _verify(self) -> None:
        """Verify each batch; one whose blobs are gone is sent again, whatever its receipt says."""
        for number, batch in enumerate(self._plan.batches):
            for _ in range(TRIES):
                receipt = self.outcome.uploaded[number].receipt
                faults = retried(partial(verify_batch, self._store, receipt, observe=self._observe))
                if not faults:
                    break
                send = partial(upload_batch, self._store, batch, local_path=self._root, migration=self._name)
                again = partial(send, trust=False, observe=self._observe)
                self.outcome.uploaded[number] = retried(again)
            else:
                raise TransientError(f"Blobs disappear from {self._store.location} while they are written.")


def retried(call: Callable[[], T]) -> T:
    """Call up to TRIES times while it raises TransientError."""
    for attempt in range(1, TRIES):
        try:
            return call()
        except TransientError:
            time.sleep(PAUSE * attempt)
    return call()


def _beginning_at(done: int, total: int, observe: Observe) -> Observe:
    """Turn how far a batch is into how far the whole is."""

    def tell(event: Event) -> None:
        if event.name == PROGRESS and event.details["unit"] == "bytes":
            details = {**event.details, "done": done + event.details["done"], "total": total}
            event = Event(PROGRESS, event.subject, details)
        observe(event)

    return tell
