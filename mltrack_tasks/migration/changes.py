"""What tells that a run, or a version of a model, is not what the last migration found."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from mltrack_tasks import canonical
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.fields import format_time
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.migrated import signature
from mltrack_tasks.migration.groups import MLFLOW, RunGroup, members
from mltrack_tasks.migration.mlflowruns import surrounds
from mltrack_tasks.migrations import MigratedVersion
from mltrack_tasks.mlflowdata.facts import RegisteredVersion

_DEEPEST = 3
"""What tells of an experiment lies at most so far below it: ``datasets/<id>/meta.yaml``."""


class SignedRun(NamedTuple):
    """A run with its entries, and what is another when it has changed."""

    group: RunGroup
    files: list[Entry]
    signature: str


def signed_runs(
    groups: Sequence[RunGroup], entries: Sequence[Entry], around: Mapping[str, Sequence[Entry]]
) -> Iterator[SignedRun]:
    """Sign each run: its entries, those ``around`` it, and what a database says of it."""
    for group, files in zip(groups, members(entries, groups), strict=True):
        sign = signature([*around.get(group.experiment, ()), *files], group.facts_json)
        yield SignedRun(group, files, sign)


def around_runs(groups: Sequence[RunGroup], entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Find what tells of the experiments that runs are of -> by the folder of the experiment."""
    return _entries_around({group.experiment for group in groups if _is_of_files(group)}, entries)


def _is_of_files(group: RunGroup) -> bool:
    """Whether files around the run tell of its experiment, rather than a database."""
    return group.kind == MLFLOW and group.facts is None


def _entries_around(experiments: Collection[str], entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Find what tells of experiments."""
    found: dict[str, list[Entry]] = {folder: [] for folder in experiments}
    if not experiments:
        return found
    for entry in entries:
        if entry.kind != FILE:
            continue
        folder = entry.path
        for _ in range(_DEEPEST):
            folder = folder.rpartition("/")[0]
            if folder in found and surrounds(entry.path, folder):
                found[folder].append(entry)
                break
    return found


def version_signature(facts: RegisteredVersion) -> str:
    """What tells a version from another of its number, and what changes with what MLflow says of it."""
    return f"{_identity(facts)}-{_digest(said_of(facts))}"


def _identity(facts: RegisteredVersion) -> str:
    """Numbers begin anew when a model is deleted and made again; sources change when a tree is moved."""
    return _digest([format_time(facts.created_at), facts.run_id])


def is_same_version(known: MigratedVersion, facts: RegisteredVersion) -> bool:
    """Whether what MLflow has under a number now is what it had before."""
    return known.signature.partition("-")[0] == _identity(facts)


def _digest(said: Any) -> str:
    return sha256_hex(canonical.dumps(canonical.escape(said, what="what MLflow says")))[:16]


def said_of(facts: RegisteredVersion) -> dict[str, Any]:
    """What MLflow says of a version, as JSON values."""
    return {**asdict(facts), "created_at": format_time(facts.created_at)}
