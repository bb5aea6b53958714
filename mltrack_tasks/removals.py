"""The keys that tell of removed runs: a record of what was removed, and an entry in the run log."""

from __future__ import annotations

from datetime import datetime

from mltrack_tasks import layout
from mltrack_tasks.errors import IntegrityError

REMOVED_RUNS = "runs/removed/"
_ENTRY = "~00000000"


def removal_key(run_id: str) -> str:
    """Key of the record that says that a run was removed, which revisions, and why."""
    return f"{REMOVED_RUNS}{layout.encode_segment(run_id, what='The run id')}.json"


def removal_entry_key(moment: datetime, run_id: str) -> str:
    """Key of the run log's entry of a removal: by it readers know that rows of the catalogue may be gone."""
    return layout.log_key(moment, run_id, 0)


def parse_removal_entry(key: str) -> str | None:
    """Read a key of the run log -> the run that was removed, or None if it is no such entry."""
    if not key.startswith(layout.RUN_LOG) or not key.endswith(_ENTRY):
        return None
    day, _, last = key.removeprefix(layout.RUN_LOG).partition("/")
    try:
        layout.parse_day(day)
        return layout.decode_segment(last.removesuffix(_ENTRY))
    except IntegrityError:
        return None
