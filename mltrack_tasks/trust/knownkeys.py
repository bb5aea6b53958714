"""Which keys this library writes: whatever else lies in a store is a foreign object."""

from __future__ import annotations

import re
from collections.abc import Callable

from mltrack_tasks import layout, migrations, modelkeys
from mltrack_tasks.arrivals.keys import ARRIVALS, is_arrival_key
from mltrack_tasks.bucket.naming import is_bucket_key
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.removals import REMOVED_RUNS
from mltrack_tasks.snapshots import PARTS, SNAPSHOTS
from mltrack_tasks.stores.guard import REPLICA_ENDED, REPLICA_FOLDER
from mltrack_tasks.stores.probe import PROBE_FOLDER
from mltrack_tasks.trust.journal import AUDITS, is_audit_key

GC = "gc/"
_READ = ("_by_digest", "_ids", "_deprecated", "_policies", "_removed")
BUCKET = "bucket/"

_NUMBERED = re.compile(r"[0-9]{8}\.json")
_REMOVAL = re.compile(r"_removed/v[0-9]{8}_[0-9a-f]{6,64}/[0-9]{8}\.(json|done)")
_PART = re.compile(r"[0-9a-f]{64}~[0-9a-f]{16}\.parquet")


def is_known(key: str) -> bool:
    """Tell whether this library writes such a key; blobs, pins and views are judged elsewhere."""
    for folder, known in _KNOWN.items():
        if key.startswith(folder):
            return known(key)
    return key == layout.FORMAT_KEY


def is_other_record(key: str) -> bool:
    """Tell whether a key is that of a record that needs no blob, and must be readable all the same."""
    if key.startswith((layout.GC_DELETING, SNAPSHOTS, BUCKET)):
        return is_known(key)
    if not key.startswith((modelkeys.VERSIONS, modelkeys.REGISTRY)) or modelkeys.is_file_of_version(key):
        return False
    folder = [*key.split("/"), "", ""][3]
    return folder in _READ and not key.endswith(".done") and is_known(key)


def _is_snapshot(key: str) -> bool:
    return _NUMBERED.fullmatch(key.removeprefix(SNAPSHOTS)) is not None


def _is_of_replica(key: str) -> bool:
    return key == REPLICA_ENDED or _NUMBERED.fullmatch(key.removeprefix(REPLICA_FOLDER)) is not None


def _is_part(key: str) -> bool:
    return _PART.fullmatch(key.removeprefix(PARTS)) is not None


def _is_of_migration(key: str) -> bool:
    parsed = (migrations.parse_plan_key, migrations.parse_receipt_key, migrations.parse_moves_key)
    return bool(migrations.parse_manifest_key(key)) or any(parse(key) for parse in parsed)


def _is_removal(key: str) -> bool:
    name = key.removeprefix(REMOVED_RUNS)
    return name.endswith(".json") and _is_name(name.removesuffix(".json"))


def _is_of_development(key: str) -> bool:
    if modelkeys.parse_version_key(key) or modelkeys.is_file_of_version(key):
        return True
    model, folder, *rest = [*key.removeprefix(modelkeys.VERSIONS).split("/"), "", ""]
    if not _is_name(model):
        return False
    last = rest[0]
    if folder == "_registrations":
        return modelkeys.parse_registration_key(key, layout.decode_segment(model)) is not None
    if folder == "_removed":
        return _REMOVAL.fullmatch(key.removeprefix(f"{modelkeys.VERSIONS}{model}/")) is not None
    known: dict[str, Callable[[str], bool]] = {
        "_by_digest": is_digest,
        "_ids": modelkeys.is_version,
        "_materialized": modelkeys.is_version,
        "_deprecated": lambda text: text.endswith(".json") and modelkeys.is_version(text[:-5]),
    }
    return folder in known and known[folder](last) and key.count("/") == 4


def _is_of_registry(key: str) -> bool:
    if modelkeys.parse_promoted_key(key) or modelkeys.is_file_of_version(key):
        return True
    model, folder, alias, last, *more = [*key.removeprefix(modelkeys.REGISTRY).split("/"), "", "", "", ""]
    if more[0] or not _is_name(model) or not _NUMBERED.fullmatch(last):
        return False
    return (folder == "_aliases" and _is_alias(alias)) or (
        folder == "_policies" and alias in modelkeys.GUARDED_ALIASES
    )


def _is_alias(segment: str) -> bool:
    try:
        modelkeys.check_alias(layout.decode_segment(segment))
    except (IntegrityError, InvalidInputError):
        return False
    return True


def _is_name(segment: str) -> bool:
    try:
        layout.decode_segment(segment)
    except IntegrityError:
        return False
    return True


_KNOWN: dict[str, Callable[[str], bool]] = {
    layout.NAMES: lambda key: layout.parse_name_key(key) is not None,
    layout.MANIFESTS: lambda key: layout.parse_manifest_key(key) is not None,
    layout.RUN_LOG: lambda key: layout.parse_log_key(key) is not None or key.endswith("~00000000"),
    REMOVED_RUNS: _is_removal,
    SNAPSHOTS: _is_snapshot,
    PARTS: _is_part,
    migrations.MIGRATIONS: _is_of_migration,
    modelkeys.VERSIONS: _is_of_development,
    modelkeys.REGISTRY: _is_of_registry,
    GC: lambda key: key.endswith(".json"),
    AUDITS: is_audit_key,
    REPLICA_FOLDER: _is_of_replica,
    BUCKET: is_bucket_key,
    ARRIVALS: is_arrival_key,
    PROBE_FOLDER: lambda key: True,
}
