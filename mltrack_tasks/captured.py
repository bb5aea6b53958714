"""A run while it goes on: what its program logs, and the manifest when it ends.

Data is stored and pinned where it is logged, so that memory is free again, a value that changes later is kept
as it was, and a crash leaves only pins and blobs without a run, which garbage collection knows. The manifest
is written once, at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn

from mltrack_tasks import canonical, layout
from mltrack_tasks.blobs import require_blob
from mltrack_tasks.content import writer_of
from mltrack_tasks.deletions import hold
from mltrack_tasks.errors import ArchivedError, IntegrityError, InvalidInputError, MLTrackError, NotFoundError
from mltrack_tasks.events import Observe, log_event, logger
from mltrack_tasks.records import MAX_RECORD_SIZE, RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.run_inputs import (
    checked_id,
    checked_metrics,
    checked_modes,
    checked_things,
    checked_values,
    inlined,
)
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store

MANIFEST_ROOM = MAX_RECORD_SIZE // 2 - 1024 * 1024
"""[bytes] of a manifest for params, metrics and tags, and as much for refs and inlined values.

Just below what ``store_run`` admits, so that what was taken where it was logged is not refused at the end.
"""

_UNREADABLE = (NotFoundError, ArchivedError, IntegrityError)


def status_of(error: BaseException | None) -> str:
    """Name the status of a run that ended so: ``finished``, ``failed``, or ``killed`` from outside.

    Outside is what is no Exception: Ctrl-C, an exit with a code, asyncio's and Prefect's cancellation.
    """
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "finished"
    return "failed" if isinstance(error, Exception) else "killed"


class CapturedRun:
    """One run that is going on. Its methods may be called from any thread until it ends.

    A name that is logged again replaces what it had. Names and values are checked where they are logged:
    InvalidInputError there, and the run goes on without them.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        run_type: str = "experiment",
        storage_mode: str | Sequence[str] | None = None,
        project: str | None = None,
        model: str | None = None,
        tags: Mapping[str, Any] | None = None,
        observe: Observe = log_event,
    ) -> None:
        """Begin a run. ``storage_mode`` None is ``by_project`` if there is a project, else ``flat``.

        Nothing is written yet. Records say what the surroundings are now (``provenance.within``), whichever
        thread stores them.
        """
        default = "flat" if project is None else "by_project"
        self.run_id = checked_id(run_id)
        self.started_at = datetime.now(UTC)
        self.manifest: RunManifest | None = None
        self._described: dict[str, Any] = {
            "run_type": layout.check_choice(run_type, layout.RUN_TYPES, "The run type"),
            "storage_mode": checked_modes(default if storage_mode is None else storage_mode, project, model),
            "project": project,
            "model": model,
        }
        self._store, self._observe, self._context = store, observe, copy_context()
        self._values: dict[str, Any] = {"params": {}, "metrics": {}, "tags": {}}
        self._things: dict[str, dict[str, Any]] = {"data": {}, "inputs": {}, "outputs": {}}
        self._value_room = _Room("params, metrics and tags", "Put large values into data.")
        self._thing_room = _Room("refs and small values", "Log fewer, larger pieces of data.")
        self._lock, self._ended = threading.Lock(), False
        self._ending = threading.Lock()
        if tags is not None:
            self.set_tags(tags)

    def log_param(self, name: str, value: Any) -> None:
        """Note a parameter: any JSON value."""
        self.log_params({name: value})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Note parameters: JSON values by name. All of them, or none if one is refused."""
        self._note("params", checked_values(params, "params"))

    def log_metric(self, name: str, value: float) -> None:
        """Note a metric: a number. The last one of a name counts; there is no history of steps."""
        self.log_metrics({name: value})

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Note metrics: numbers by name. All of them, or none if one is refused."""
        self._note("metrics", checked_metrics(metrics))

    def set_tag(self, name: str, value: Any) -> None:
        """Set a tag: any JSON value."""
        self.set_tags({name: value})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags: JSON values by name. All of them, or none if one is refused."""
        self._note("tags", checked_values(tags, "tags"))

    def log_input(self, name: str, data: Any) -> DataRef:
        """Store what the run reads -> its ref: a DataFrame, ndarray, JSON value, bytes, or a ref."""
        return self._keep("inputs", name, data)

    def log_output(self, name: str, data: Any) -> DataRef:
        """Store what the run made -> its ref: a DataFrame, ndarray, JSON value, bytes, or a ref."""
        return self._keep("outputs", name, data)

    def log_data(self, name: str, data: Any) -> DataRef:
        """Store what belongs to the run -> its ref; JSON values up to 8 KiB can be searched as well."""
        return self._keep("data", name, data)

    def end(self, status: str = "finished") -> RunManifest:
        """Write the manifest -> it; a run of this id that is there gets a new revision.

        Nothing more can be logged from here on. If it fails, call it again. If data that was logged is gone
        or damaged by now (a run that outlasts the grace period of garbage collection twice), the run is
        stored without it, as failed, and NotFoundError names it.
        """
        with self._ending:
            if self.manifest is not None:
                self._require_going_on()
            with self._lock:
                self._ended = True
            self.manifest = self._context.copy().run(self._write_manifest, status)
            return self.manifest

    def conclude(self, error: BaseException | None) -> None:
        """End the run with the status of how its program ended, unless ``end`` was called before.

        If the manifest cannot be written, that is raised, or, where the program has failed already, noted on
        its error.
        """
        status = status_of(error)
        try:
            if self.manifest is None:
                self.end(status)
        except Exception as failure:
            if error is None or status == "finished":
                raise
            said = f"The run {self.run_id!r} could not be stored as {status}: {failure}"
            error.add_note(said)
            logger.error("%s", said)

    def __reduce__(self) -> NoReturn:
        raise InvalidInputError(
            f"The captured run {self.run_id!r} cannot leave its process. Return what another process found, "
            "and log it here."
        )

    def _note(self, group: str, values: Mapping[str, Any]) -> None:
        escaped = canonical.escape(dict(values), what=group)
        sizes = {(group, name): len(canonical.dumps({name: value})) for name, value in escaped.items()}
        with self._lock:
            self._require_going_on()
            self._value_room.take(sizes)
            self._values[group].update(canonical.unescape(escaped))  # a copy: theirs may change

    def _keep(self, group: str, name: str, thing: Any) -> DataRef:
        """Write and pin a blob, then remember its ref; of small JSON in ``data`` the value, to inline it."""
        things = {group: checked_things({name: thing}, group)}
        self._require_going_on()
        writer = writer_of(self._store, thing, name)
        write = partial(hold, self._store, [writer], self._pin_key, observe=self._observe)
        [ref] = self._context.copy().run(write)
        kept = _copies(inlined(things)) if group == "data" else {}
        size = len(canonical.dumps({name: ref.to_json()})) + len(canonical.dumps_value(kept))
        with self._lock:
            self._require_going_on()
            self._thing_room.take({(group, name): size})
            self._things[group][name] = kept.get(name, ref)
        return ref

    def _pin_key(self, digest: str) -> str:
        return layout.run_pin_key(digest, self.run_id)

    def _require_going_on(self) -> None:
        if self._ended:
            raise InvalidInputError(f"The run {self.run_id!r} has ended; nothing more can be logged to it.")

    def _write_manifest(self, status: str) -> RunManifest:
        write: Callable[..., RunManifest] = partial(
            store_run,
            self._store,
            self.run_id,
            **self._described,
            **self._values,
            started_at=self.started_at,
            ended_at=datetime.now(UTC),
            if_exists="revise",
            observe=self._observe,
        )
        try:
            return write(**self._things, status=status)
        except _UNREADABLE as error:
            lost = self._lost()
            if not lost:
                raise
            left = {
                group: {name: thing for name, thing in things.items() if (group, name) not in lost}
                for group, things in self._things.items()
            }
            self.manifest = write(**left, status="failed" if status == "finished" else status)
            raise NotFoundError(
                f"{len(lost)} of what the run {self.run_id!r} logged cannot be read any more: "
                f"{'; '.join(map(str, lost.values()))} The run is stored without it.",
                details={"lost": [f"{group}[{name!r}]" for group, name in lost]},
            ) from error

    def _lost(self) -> dict[tuple[str, str], MLTrackError]:
        """What of the data logged is gone or damaged, and why."""
        lost: dict[tuple[str, str], MLTrackError] = {}
        for group, things in self._things.items():
            for name, ref in things.items():
                try:
                    if isinstance(ref, DataRef):
                        require_blob(self._store, ref.hash, ref.format, ref.size_bytes)
                except _UNREADABLE as error:
                    lost[group, name] = error
        return lost


class _Room:
    """Counts what will stand in the manifest, so that a value too many is refused where it is logged."""

    def __init__(self, what: str, advice: str) -> None:
        self._what, self._advice = what, advice
        self._sizes: dict[tuple[str, str], int] = {}
        self._taken = 0

    def take(self, sizes: Mapping[tuple[str, str], int]) -> None:
        """Count entries with their sizes [bytes]; one that is there is replaced."""
        taken = self._taken + sum(size - self._sizes.get(entry, 0) for entry, size in sizes.items())
        if taken > MANIFEST_ROOM:
            raise InvalidInputError(
                f"With this, {self._what} of the run take {taken:,} bytes; a manifest may hold "
                f"{MANIFEST_ROOM:,}. {self._advice}"
            )
        self._sizes.update(sizes)
        self._taken = taken


def _copies(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: canonical.loads_value(canonical.dumps_value(value)) for name, value in values.items()}
