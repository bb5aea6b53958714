"""What was restored of MLflow's stores, made to work in the folder where it is now."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mltrack_tasks import events
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.filetree import FILE, Entry, folders_above
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.migration.hashcache import cache_folder
from mltrack_tasks.mlflowdata.addresses import ARTIFACTS
from mltrack_tasks.mlflowdata.database import MAGIC
from mltrack_tasks.mlflowdata.repointing import MAX_META, metas_of, repointed
from mltrack_tasks.mlflowdata.repointrows import repoint_database
from mltrack_tasks.mlflowdata.treelayout import TreeLayout, layout_of
from mltrack_tasks.paths import sort_key
from mltrack_tasks.stores.files import hash_file, make_folders, os_errors

_CHUNK = 1024 * 1024
_OF_EXPERIMENT = re.compile(
    r"((?:.*/)?[0-9]{1,20})/(?:[0-9a-f]{32}|models/m-[0-9a-f]{32})/meta\.yaml", re.DOTALL
)


def repoint_tree(tree: LocalTree, paths: Iterable[str]) -> int:
    """Re-point the addresses of artifacts in what was restored -> how many files were written anew.

    Only files of ``paths`` are read and changed, as they are now: doing it twice changes nothing more. Each
    is replaced as a whole, with its permissions and a new time.
    """
    there = sorted(set(paths), key=sort_key)
    found = layout_of(_with_experiments(there))
    changed = _repoint_files(tree, there, found)
    own = set(there)
    changed += sum(_repoint_database(tree, path, found) for path in found.databases if path in own)
    events.logger.info("%d files below %s lead to artifacts that lie there now", changed, tree.root)
    return changed


def _with_experiments(paths: Sequence[str]) -> list[str]:
    """Add the experiments of runs that were restored without them: they may have been there before."""
    matches = (_OF_EXPERIMENT.fullmatch(path) for path in paths if path.endswith("/meta.yaml"))
    implied = {f"{match[1]}/meta.yaml" for match in matches if match}
    return sorted(implied.union(paths), key=sort_key)


def _repoint_files(tree: LocalTree, paths: Sequence[str], found: TreeLayout) -> int:
    found_here = {path: tree.stat(path) for path in metas_of(paths, found)}
    entries = {
        path: entry
        for path, entry in found_here.items()
        if entry is not None and entry.kind == FILE and entry.size <= MAX_META
    }
    files = {path: tree.read(entry) for path, entry in entries.items()}
    filled = {each for path in paths for each in folders_above(path) if each.endswith(f"/{ARTIFACTS}")}
    changed = repointed(files, found, tree.root, artifacts=filled)
    for path, body in changed.items():
        _write(tree, entries[path], len(body), sha256_hex(body), [body])
    return len(changed)


def _repoint_database(tree: LocalTree, path: str, found: TreeLayout) -> bool:
    """Change a copy, which then takes the place of the database: never half of it, or a log beside it."""
    entry = tree.stat(path)
    if entry is None or entry.kind != FILE:
        return False
    folder = cache_folder()
    with os_errors(str(folder)):
        make_folders(folder)
    with tempfile.TemporaryDirectory(prefix="repointed-", dir=folder) as own, tree.open(path) as source:
        copy = Path(own) / "copy.db"
        with os_errors(str(copy)):
            if not _copied(source, copy):
                return False
        try:
            if not repoint_database(copy, found, tree.root):
                return False
        except IntegrityError as error:
            events.logger.warning("%r stays as it is: %s", path, error)
            return False
        with os_errors(str(copy)):
            size, digest = copy.stat().st_size, hash_file(copy)
        return _write(tree, entry, size, digest, _chunks(copy))


def _copied(source: BinaryIO, target: Path) -> bool:
    """Copy what begins as an SQLite file does; False for anything else."""
    start = source.read(len(MAGIC))
    if start != MAGIC:
        return False
    with target.open("xb") as file:
        file.write(start)
        shutil.copyfileobj(source, file, _CHUNK)
    return True


def _chunks(path: Path) -> Iterator[bytes]:
    with os_errors(str(path)), path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _write(tree: LocalTree, entry: Entry, size: int, digest: str, body: Iterable[bytes]) -> bool:
    new = Entry(entry.path, FILE, entry.mode, size, time.time_ns(), digest=digest)
    return tree.write(new, body, replace=True)
