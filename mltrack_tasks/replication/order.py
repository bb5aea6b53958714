"""The order of replication: what is written last is listed first, and copied last.

A record that was seen was written after all that it needs. So whoever lists the folders in the reverse of the
order in which writers fill them, and copies in that order, copies no record before what it needs, however
busy the source is.
"""

from __future__ import annotations

from enum import IntEnum

from mltrack_tasks import layout, migrations, modelkeys
from mltrack_tasks.removals import REMOVED_RUNS

VIEWS = tuple(f"runs/{mode}/" for mode in layout.STORAGE_MODES if mode != "flat")
ENTRIES = (layout.PINS, layout.RUN_LOG, *VIEWS)
"""Folders of empty objects."""


class Step(IntEnum):
    """What is copied after the blobs, in this order."""

    LOG = 1
    """Pins, entries of the run log, records of removals."""
    RECEIPTS = 2
    MANIFESTS = 3
    REVISIONS = 4
    """Later revisions of manifests, each run's in their order."""
    VIEWS = 5
    NAMES = 6
    VERSIONS = 7
    """Records of versions, each after its ids and its folder."""
    NOTES = 8
    """What is said of a version later: further registrations, ids that lead to it, removals."""
    FOLDERS = 9
    """Marks of the folders of registered versions, each after its files."""
    DEPRECATIONS = 10
    MIGRATIONS = 11
    PROMOTED = 12
    """Records of promoted versions, each after the files of its folder."""
    ALIASES = 13
    """Policies and promotions, each alias's in the order of their numbers."""


NUMBERED = (Step.REVISIONS, Step.ALIASES)
"""Steps whose records count up without a gap: readers refuse one without the record before it."""


LISTED = (
    modelkeys.REGISTRY,
    migrations.MIGRATIONS,
    modelkeys.VERSIONS,
    layout.NAMES,
    *VIEWS,
    layout.MANIFESTS,
    layout.PINS,
    REMOVED_RUNS,
    layout.RUN_LOG,
)
"""Folders in the order in which they are listed; blobs come after them. Inside each, keys are in the order of
``Step`` backwards too: ``_aliases`` comes before ``v20240115_a1b2c3.json``, manifests before receipts."""

_SUBFOLDERS = {
    **dict.fromkeys(("_ids", "_by_digest", "_registrations", "_removed"), Step.NOTES),
    "_materialized": Step.FOLDERS,
    "_deprecated": Step.DEPRECATIONS,
    **dict.fromkeys(("_policies", "_aliases"), Step.ALIASES),
}
_PLACES = (
    *((folder, Step.LOG) for folder in (layout.PINS, REMOVED_RUNS, layout.RUN_LOG)),
    *((folder, Step.VIEWS) for folder in VIEWS),
    (layout.NAMES, Step.NAMES),
)


def step_of(key: str) -> Step | None:
    """Say when an object is copied; None for what is not: foreign objects, plans, and the files of versions.

    Those files are copied where they are needed, from the blobs.
    """
    if key.startswith(migrations.MIGRATIONS):
        if migrations.parse_manifest_key(key):
            return Step.MIGRATIONS
        return Step.RECEIPTS if migrations.parse_receipt_key(key) else None
    if key.startswith((modelkeys.VERSIONS, modelkeys.REGISTRY)):
        return _step_of_model(key)
    if place := layout.parse_manifest_key(key):
        return Step.MANIFESTS if place[1] == 1 else Step.REVISIONS
    return next((step for folder, step in _PLACES if key.startswith(folder)), None)


def is_entry(key: str) -> bool:
    """Tell whether a key is that of an empty object."""
    return key.startswith(ENTRIES) or key.endswith(".done") or step_of(key) is Step.FOLDERS


def predecessor(key: str) -> str | None:
    """Key of the record before a numbered one, or None for the first of a row."""
    if place := layout.parse_manifest_key(key):
        run_id, revision = place
        return layout.manifest_key(run_id, revision - 1) if revision > 1 else None
    folder = f"{key.rpartition('/')[0]}/"
    number = modelkeys.parse_numbered_key(key, folder) or 1
    return modelkeys.numbered_key(folder, number - 1) if number > 1 else None


def model_of(key: str) -> str:
    """The segment of the model in a key below ``models/``; empty for any other key."""
    parts = key.split("/")
    return parts[2] if parts[0] == "models" and len(parts) > 3 else ""


def _step_of_model(key: str) -> Step | None:
    if modelkeys.parse_version_key(key):
        return Step.VERSIONS
    if modelkeys.parse_promoted_key(key):
        return Step.PROMOTED
    if modelkeys.is_file_of_version(key):
        return None
    return _SUBFOLDERS.get(key.split("/")[3])
