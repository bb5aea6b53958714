"""Which entries of a folder make up which run."""

from __future__ import annotations

import string
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mltrack_tasks import canonical, layout
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.fields import format_time
from mltrack_tasks.filetree import FILE, FOLDER, Entry, folders_above
from mltrack_tasks.mlflowdata.facts import RunFacts
from mltrack_tasks.mlflowdata.treelayout import MODELS, TreeLayout
from mltrack_tasks.paths import sort_key

MLFLOW, DIRECTORY = "mlflow", "directory"


class RunGroup(NamedTuple):
    """One run, and the folders that belong to it (``""`` is the whole tree)."""

    run_id: str
    folders: tuple[str, ...]
    kind: str
    experiment: str = ""
    """Folder of its experiment, of an MLflow file store."""
    trashed: bool = False
    facts: RunFacts | None = None
    """What a database says of it; of a file store, the run's own files do."""

    @property
    def facts_json(self) -> Any:
        """The facts as plain JSON, or None."""
        if self.facts is None:
            return None
        values = asdict(self.facts)
        times = {key: format_time(values[key]) for key in ("started_at", "ended_at")}
        return canonical.escape({**values, **times}, what=f"what the database says of {self.run_id!r}")


def group_runs(
    entries: Sequence[Entry],
    found: TreeLayout,
    in_databases: Sequence[RunGroup],
    *,
    root: Path,
    run_id: str | None,
) -> tuple[str, list[RunGroup]]:
    """Find the runs -> (kind of source, runs in the order of their folders).

    Runs of MLflow where there are some, also in several file stores below one another; then folders on top
    that hold none are runs of their own. Without MLflow, each folder on top is a run; if there is none, or
    with ``run_id``, the whole is one. Files in no run's folder belong to the migration alone.
    """
    if found.stores or in_databases:
        if run_id is not None:
            raise InvalidInputError(f"run_id={run_id!r} is for plain folders; {root} holds runs of MLflow.")
        return MLFLOW, [*_of_mlflow(found, in_databases), *_beside_mlflow(entries, found, in_databases)]
    return DIRECTORY, _of_folders(entries, root, run_id)


class HasFolders(Protocol):
    """Something that folders of a tree belong to."""

    @property
    def folders(self) -> tuple[str, ...]: ...


def members(entries: Sequence[Entry], groups: Sequence[HasFolders]) -> list[list[Entry]]:
    """Give each run its entries, in order; an entry belongs to the innermost folder that a run has."""
    owners = {folder: number for number, group in enumerate(groups) for folder in group.folders}
    owned: list[list[Entry]] = [[] for _ in groups]
    known: dict[str, list[Entry]] = {}
    nobody: list[Entry] = []
    for entry in entries:
        folder = entry.path if entry.kind == FOLDER else entry.path.rpartition("/")[0]
        if (into := known.get(folder)) is None:
            around = (owners.get(above) for above in (folder, *folders_above(folder), ""))
            number = next((number for number in around if number is not None), None)
            into = known[folder] = nobody if number is None else owned[number]
        into.append(entry)
    return owned


def touched_by(paths: Iterable[str], groups: Iterable[HasFolders]) -> frozenset[str]:
    """Find the folders of runs that one of these paths is, or lies below."""
    above = {folder for path in paths for folder in (path, *folders_above(path), "")}
    return frozenset(folder for group in groups for folder in group.folders if folder in above)


def _of_mlflow(found: TreeLayout, in_databases: Sequence[RunGroup]) -> list[RunGroup]:
    groups: dict[str, RunGroup] = {group.run_id: group for group in in_databases}
    for store in found.stores:
        for folder, run_id in store.runs.items():
            experiment = folder.rpartition("/")[0]
            group = RunGroup(run_id, (folder,), MLFLOW, experiment, folder in store.trashed)
            known = groups.get(run_id)
            # The same run twice is a copy, of which a live one counts; the other one's files are kept.
            if known is None or (known.trashed and not group.trashed):
                groups[run_id] = group
    return sorted(groups.values(), key=lambda group: group.folders)


def _beside_mlflow(
    entries: Sequence[Entry], found: TreeLayout, in_databases: Sequence[RunGroup]
) -> list[RunGroup]:
    """Folders on top without MLflow; none if a store, or a database's artifacts, lie on top themselves."""
    roots = {store.root for store in found.stores}
    if in_databases:
        roots |= {_root_of(folder) for folder in found.bare_artifacts}
    if "" in roots:
        return []
    taken = {root.split("/")[0] for root in roots}
    return _folder_runs([name for name in _top_folders(entries) if name not in taken])


def _root_of(artifacts: str) -> str:
    """The folder around ``<experiment>/<run>/artifacts`` or ``<experiment>/models/<model>/artifacts``."""
    parts = artifacts.split("/")
    return "/".join(parts[: -4 if parts[-3] == MODELS else -3])


def _of_folders(entries: Sequence[Entry], root: Path, run_id: str | None) -> list[RunGroup]:
    if run_id is not None:
        layout.manifest_key(run_id)
        return [RunGroup(run_id, ("",), DIRECTORY)]
    folders = _top_folders(entries)
    return _folder_runs(folders) or [RunGroup(id_of(root.name or "root"), ("",), DIRECTORY)]


def _top_folders(entries: Sequence[Entry]) -> list[str]:
    return sorted({entry.path.split("/")[0] for entry in entries if entry.kind == FILE and "/" in entry.path})


def _folder_runs(names: Sequence[str]) -> list[RunGroup]:
    return [RunGroup(id_of(name, taken=names), (name,), DIRECTORY) for name in names]


def id_of(folder: str, taken: Collection[str] = ()) -> str:
    """Make a folder's name a run id: itself where it can be one, else what can be read of it and a digest.

    Of the digest as much as makes it none of those ``taken``.
    """
    try:
        layout.manifest_key(folder)
    except InvalidInputError:
        raw = sort_key(folder)
        kept = "".join(chr(byte) if chr(byte) in _PLAIN else "_" for byte in raw[:40])
        derived = (f"{kept}-{sha256_hex(raw)[:digits]}" for digits in (16, 64))
        return next(name for name in derived if name not in taken)
    return folder


_PLAIN = frozenset(string.ascii_letters + string.digits + "._-")
