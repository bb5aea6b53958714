"""What operations report while they work: plain values, handed to an ``observe`` callback."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger("mltrack_tasks")
_SHOWN = 200
"""Characters of a detail in a line of the log."""


@dataclass(frozen=True)
class Event:
    """One thing that happened: a dotted ``name``, what it is about, and details free of secrets.

    ``id`` is a UUID, the same each time, of an event that may be told twice; empty for all others.
    """

    name: str
    subject: str
    details: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __str__(self) -> str:
        rest = " ".join(f"{key}={_shortened(value)}" for key, value in self.details.items())
        return f"{self.name} {self.subject} {rest}".rstrip()


def _shortened(value: Any) -> str:
    """One line of a log: what users wrote may have many."""
    text = "".join(each if each.isprintable() else " " for each in str(value)[: _SHOWN + 1])
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


Observe = Callable[[Event], None]
"""Called from the thread that called the operation, never from a worker thread."""


BLOB_CREATED = "mltrack.blob.created"
BLOB_PRESENT = "mltrack.blob.present"
BLOB_HEALED = "mltrack.blob.healed"
DATA_STORED = "mltrack.data.stored"
DATA_FORGOTTEN = "mltrack.data.forgotten"
RESTORE_STARTED = "mltrack.data.restore_started"
RUN_STORED = "mltrack.run.stored"
RUN_REMOVED = "mltrack.run.removed"
CATALOG_COMPACTED = "mltrack.catalog.compacted"
CATALOG_BEHIND = "mltrack.catalog.behind"
STORE_VERIFIED = "mltrack.store.verified"
STORE_UNHEALTHY = "mltrack.store.unhealthy"
STORE_HEALED = "mltrack.store.healed"
STORE_REPLICATED = "mltrack.store.replicated"
CATALOG_UNREADABLE = "mltrack.catalog.unreadable"
GARBAGE_COLLECTED = "mltrack.garbage.collected"
VIEWS_REBUILT = "mltrack.views.rebuilt"
MIGRATION_COMPLETED = "mltrack.migration.completed"
MIGRATION_REMOVED = "mltrack.migration.removed"
MODEL_REGISTERED = "mltrack.model.registered"
MODEL_MATERIALISED = "mltrack.model.materialised"
MODEL_PROMOTED = "mltrack.model.promoted"
MODEL_ROLLED_BACK = "mltrack.model.rolled_back"
MODEL_ALIAS_REMOVED = "mltrack.model.alias_removed"
MODEL_POLICY_SET = "mltrack.model.policy_set"
MODEL_DEPRECATED = "mltrack.model.deprecated"
MODEL_VERSION_REMOVED = "mltrack.model.version_removed"
MODEL_COPIED = "mltrack.model.copied"
BUCKET_CHANGED = "mltrack.bucket.changed"
BUCKET_DRIFTED = "mltrack.bucket.drifted"
DATA_ARRIVED = "mltrack.data.arrived"
MESSAGE_BURIED = "mltrack.message.buried"
DATA_QUERIED = "mltrack.data.queried"
RUNS_QUERIED = "mltrack.runs.queried"
COLUMNS_LEFT_OUT = "mltrack.runs.columns_left_out"
PROGRESS = "mltrack.progress"
"""How far an operation is: ``{"done": n, "total": m or None, "unit": "runs", "bytes", ...}``.

Any number of them may come; whoever shows them thins them out.
"""

_LEVELS = {
    **dict.fromkeys((BLOB_CREATED, BLOB_PRESENT, PROGRESS), logging.DEBUG),
    **dict.fromkeys(
        (
            *(BLOB_HEALED, BUCKET_DRIFTED, CATALOG_BEHIND, CATALOG_UNREADABLE, COLUMNS_LEFT_OUT),
            *(MESSAGE_BURIED, STORE_UNHEALTHY),
        ),
        logging.WARNING,
    ),
}


def log_event(event: Event) -> None:
    """Write the event to the library's log: the default observer. ``level_of`` says how loudly."""
    logger.log(level_of(event), "%s", event)


def level_of(event: Event) -> int:
    """The level of ``logging`` at which an event is told; INFO unless it is routine, or bad news."""
    return _LEVELS.get(event.name, logging.INFO)
