"""What there is to migrate: the entries of a folder, and the runs among them. Nothing is hashed yet."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mltrack_tasks.errors import AccessError, InvalidInputError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.filetree import FILE, FOLDER, Entries, Entry, folders_above
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.migration.databases import read_databases
from mltrack_tasks.migration.groups import RunGroup, group_runs
from mltrack_tasks.migration.loggedmodels import model_runs, with_models
from mltrack_tasks.migration.origin import Origin
from mltrack_tasks.migration.registries import list_models
from mltrack_tasks.migration.registrychoice import Listed
from mltrack_tasks.migrations import MigrationManifest, folder_of
from mltrack_tasks.mlflowdata.treelayout import layout_of
from mltrack_tasks.stores.files import checked_path

_WILD = re.compile(r"[*?[]")


class Scan:
    """A folder as it was found: a value, without an open file. Not a dataclass, as ``Entries`` is no list."""

    def __init__(
        self,
        origin: Origin,
        source: str,
        entries: Entries,
        groups: Sequence[RunGroup],
        left_out: Sequence[tuple[str, str]],
        registry: Listed = Listed(),  # noqa: B008 -- immutable
        began: datetime | None = None,
    ) -> None:
        self.origin, self.source = origin, source
        self.root, self.migration = origin.local_path, origin.migration
        self.entries, self.groups, self.left_out = entries, tuple(groups), tuple(left_out)
        self.registry = registry
        """What MLflow registered as models."""
        self.began = began or datetime.now(UTC)
        """What was done after this moment, the scan may not have seen."""

    def as_before(self, previous: MigrationManifest | None) -> Scan:
        """The same, with the registered models of the registries that the last migration took."""
        registry = self.registry.as_before(previous)
        parts = (self.origin, self.source, self.entries, self.groups, self.left_out)
        return self if registry is self.registry else Scan(*parts, registry, self.began)

    @property
    def files(self) -> int:
        """How many files there are."""
        return sum(entry.kind == FILE for entry in self.entries)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)

    def __repr__(self) -> str:
        return f"<scan of {self.root}: {self.files:,} files, {len(self.groups):,} runs>"


def scan_source(
    local_path: str | Path = "./mlruns",
    *,
    name: str | None = None,
    run_id: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    backend_db: str | Path | None = None,
    allow_empty: bool = False,
    observe: Observe = log_event,
) -> Scan:
    """Look at a folder -> its entries and runs.

    ``name`` names the migration, in which later calls recognise the same folder; by default it follows from
    this host and the folder's path: give one where the host changes, as in containers.

    ``include`` and ``exclude`` are patterns such as ``*.csv`` or
    ``old/*``, matched with the whole relative path, where ``*`` also takes ``/``; what they leave out is not
    part of the state that is stored, also if an earlier one had it. ``run_id`` makes a folder that is not
    MLflow's one run; without it each folder on top is a run.

    ``backend_db`` is the SQLite database of MLflow, if it is neither in the folder nor, as ``mlflow.db``,
    beside it. A database is copied by SQLite's own means, so one that is in use is kept as of one moment.

    What a killed deletion had moved aside gets its name back first.

    Raises InvalidInputError for a path that is an address or is not there (with host and working directory),
    and for a folder without files unless ``allow_empty``.
    """
    root, began = find_folder(local_path), datetime.now(UTC)
    with LocalTree(root) as tree:
        found = tree.scan(observe=observe)
        if [path for path, _ in found.left_out if _is_cleared(tree, path)]:
            found = tree.scan(observe=observe)
        entries = _chosen(found.entries, include, exclude)
        if not allow_empty and not any(entry.kind == FILE for entry in entries):
            raise InvalidInputError(
                f"No files were found in {tree.root}"
                + (" that match include and exclude" if include or exclude else "")
                + ". Check the path; allow_empty=True accepts an empty folder."
            )
        left_out = [item for item in found.left_out if _may_hold(item[0], include, exclude)]
        layout = layout_of([entry.path for entry in entries if entry.kind == FILE])
        known = read_databases(tree.root, entries, layout, backend_db)
        logged = {**model_runs(tree, entries, layout), **known.models}
        source, groups = group_runs(known.entries, layout, known.groups, root=tree.root, run_id=run_id)
        migration = name or default_name(tree.root)
        folder_of(migration)
        origin = Origin(str(tree.root), migration, known.copies)
        registry = list_models(
            *(tree, found.entries, entries, layout, known.registries, logged),
            unreadable=[path for path, _ in found.left_out],
        )
        groups = with_models(groups, logged)
        return Scan(origin, source, Entries(known.entries), groups, left_out, registry, began)


def find_folder(local_path: str | Path) -> Path:
    """Find a local folder, or raise InvalidInputError that says how it may come to be there."""
    if isinstance(local_path, str) and "://" in local_path and not local_path.startswith("file://"):
        raise InvalidInputError(
            f"{local_path!r} is the address of a tracking server. What it holds is not in a folder here: run "
            "this on the server's machine with the folder of its backend store and artifacts."
        )
    path = checked_path(str(local_path).removeprefix("file://"))
    if not path.is_dir():
        raise InvalidInputError(
            f"{str(path)!r} is not a folder on {socket.gethostname()} (working directory {os.getcwd()}). The "
            "path belongs to the machine that runs this: start the worker there, mount the folder into its "
            "container, give an absolute path, or run `python flows/migrate_to_s3.py --serve` where it is."
        )
    return path


def _is_cleared(tree: LocalTree, path: str) -> bool:
    """Clear what a killed deletion or restore left; False if it is none, or has to stay."""
    try:
        return tree.clear_leftover(path)
    except AccessError:
        return False  # it stays in the list of what was left out


def default_name(root: Path) -> str:
    """Name the migration of a folder by host and path: readable, and different for different folders."""
    host, last = socket.gethostname().split(".")[0] or "host", root.name or "root"
    digest = hashlib.sha256(f"{socket.gethostname()}\0".encode() + os.fsencode(root)).hexdigest()
    return f"{_readable(host)}-{_readable(last)}-{digest[:8]}"


def _readable(text: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text)
    return kept[:40] or "_"


def _chosen(entries: Iterable[Entry], include: Sequence[str], exclude: Sequence[str]) -> list[Entry]:
    """Keep what the patterns choose, and the folders above it."""
    for patterns, what in ((include, "include"), (exclude, "exclude")):
        if isinstance(patterns, str):
            raise InvalidInputError(f"{what} is a string; give a list of patterns, such as [{patterns!r}].")
    if not include and not exclude:
        return list(entries)
    listed = list(entries)
    chosen = [entry for entry in listed if entry.kind != FOLDER and _matches(entry.path, include, exclude)]
    above = {folder for entry in chosen for folder in folders_above(entry.path)}
    if not include:  # an empty folder is kept as well, unless it is excluded
        above.update(e.path for e in listed if e.kind == FOLDER and _matches(e.path, include, exclude))
    taken = {entry.path for entry in chosen}
    return [entry for entry in listed if entry.path in (above if entry.kind == FOLDER else taken)]


def _matches(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in exclude):
        return False
    return not include or any(fnmatch.fnmatchcase(path, pattern) for pattern in include)


def _may_hold(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether something that was left out was chosen, or may be a folder with something in it that was."""
    below = f"{path}/" if path else ""
    if any(_leaves_out(pattern, path, below) for pattern in exclude):
        return False
    return not include or any(_may_begin(pattern, below) for pattern in include)


def _leaves_out(pattern: str, path: str, below: str) -> bool:
    """Whether a pattern takes a path, or all paths that begin with ``below``."""
    takes_all = pattern.endswith("*") and fnmatch.fnmatchcase(below, pattern)
    return takes_all or fnmatch.fnmatchcase(path, pattern)


def _may_begin(pattern: str, below: str) -> bool:
    """Whether a pattern may take a path that begins with ``below``: as far as it is plain, they agree."""
    plain = _WILD.split(pattern, maxsplit=1)[0]
    return plain.startswith(below) or below.startswith(plain)
