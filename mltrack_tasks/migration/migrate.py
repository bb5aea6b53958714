"""A whole migration: the steps in their order, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from mltrack_tasks.errors import FormatError, InvalidInputError, MLTrackError, TransientError
from mltrack_tasks.events import PROGRESS, Event, Observe, log_event
from mltrack_tasks.migration.deletion import MIN_AGE, check_age, delete_local_batch
from mltrack_tasks.migration.finishing import finish_migration
from mltrack_tasks.migration.modelwriting import write_models
from mltrack_tasks.migration.planning import Plan, plan_migration
from mltrack_tasks.migration.report import MigrationReport, Outcome, report_migration, stopped
from mltrack_tasks.migration.runmanifests import write_manifests
from mltrack_tasks.migration.runplan import plan_manifests
from mltrack_tasks.migration.scan import scan_source
from mltrack_tasks.migration.uploading import upload_batch
from mltrack_tasks.migration.verification import verify_batches
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
    backend_db: str | Path | None = None,
    pack_small_files: bool = True,
    delete_after_upload: bool = False,
    min_age: timedelta = MIN_AGE,
    dry_run: bool = False,
    allow_empty: bool = False,
    observe: Observe = log_event,
) -> MigrationReport:
    """Store a folder, its runs as run manifests and everything else byte for byte -> what was done.

    The folder may hold file stores of MLflow, or be any folder (``scan_source`` says how runs are found).
    MLflow's registered models become versions and promotions of the registry, as ``write_models`` says.
    The same call again continues where one was interrupted, and later sends only what has changed; a run that
    changed becomes a revision. ``dry_run`` hashes and compares, and writes nothing. ``delete_after_upload``
    deletes files of runs that have ended and have not changed for ``min_age``, each after one more look at
    what the store has and at its own bytes; they stay part of a restore.

    Raises PartialTransferError, with what was done and what failed, if files could not be read or changed
    meanwhile (all others are stored then), or if the store failed in the middle: the same call again
    finishes it. Raises InvalidInputError before any work for a path that is not there.
    """
    started = time.monotonic()
    check_age(min_age)
    scan = scan_source(
        local_path,
        name=name,
        run_id=run_id,
        include=include,
        exclude=exclude,
        backend_db=backend_db,
        allow_empty=allow_empty,
        observe=observe,
    )
    plan = plan_migration(
        store, scan, pack_small_files=pack_small_files, hash_everything=dry_run, observe=observe
    )
    outcome = Outcome()
    if not dry_run and (delete_after_upload or not plan.unchanged):
        try:
            _carry_out(store, plan, outcome, min_age if delete_after_upload else None, observe)
        except (FormatError, InvalidInputError):
            raise
        except MLTrackError as error:
            raise stopped(plan, len(outcome.uploaded), error) from error
    return report_migration(plan, outcome, dry_run=dry_run, seconds=time.monotonic() - started)


def _carry_out(
    store: Store, plan: Plan, outcome: Outcome, min_age: timedelta | None, observe: Observe
) -> None:
    origin = plan.scan.origin
    done = 0
    for batch in plan.batches:
        send = partial(upload_batch, store, batch, origin=origin)
        tell = _beginning_at(done, plan.new_bytes, observe)
        outcome.uploaded.append(retried(partial(send, observe=tell)))
        done += batch.size_bytes
    verify = partial(verify_batches, store, plan.batches, outcome.uploaded, origin=origin, observe=observe)
    outcome.uploaded = retried(verify)
    work = plan_manifests(plan, outcome.uploaded)
    for runs in work.batches:
        write = partial(write_manifests, store, runs, origin=origin)
        outcome.written.append(retried(partial(write, observe=observe)))
    models = retried(partial(write_models, store, work, outcome.written, observe=observe))
    finish = partial(finish_migration, store, work, outcome.written, models=models, observe=observe)
    outcome.finished = retried(partial(finish, delete_older_than=min_age))
    for doomed in outcome.finished.deletions:
        delete = partial(delete_local_batch, store, doomed, origin=origin, observe=observe)
        outcome.deleted.append(retried(delete))


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
