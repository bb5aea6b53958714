"""A version's files into a folder of this machine: whole, proven, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mltrack_tasks.blobs import READ_SIZE, stream_blob
from mltrack_tasks.errors import ConflictError, IntegrityError, InvalidInputError
from mltrack_tasks.filetree import FILE, LINK, Entry
from mltrack_tasks.layout import blob_key
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.registry.reading import read_named
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import checked_path, fsync_folder, hash_file, make_folders, os_errors

_PLAIN, _RUNNABLE = 0o644, 0o755
_LARGE_AT_ONCE = 4
"""Files above READ_SIZE that are read at a time, each with its share of ``max_workers``."""


def download_model(
    store: Store, model_name: str, version_or_alias: str, path: str | Path
) -> tuple[ModelVersion, Path]:
    """Write the files of a version into the folder ``path`` -> the version as recorded, the absolute path.

    Each file is proven by its digest, and the folder appears whole under its name. One that holds exactly
    these files is left alone; anything else there is a ConflictError, and nothing is written. An empty one is
    replaced and keeps its permissions; the process's working folder and the root of a file system cannot be,
    and are an InvalidInputError. Blobs come through the read cache where the store has one. Raises
    NotFoundError, ArchivedError, IntegrityError.
    """
    version = read_named(store, model_name, version_or_alias)
    target = checked_path(path).absolute()
    _download(store, version, Path(os.path.realpath(target)))  # a link stays, and what it leads to is filled
    return version, target


def _download(store: Store, version: ModelVersion, target: Path) -> None:
    with os_errors(str(target)):
        if target.is_dir() and any(target.iterdir()):
            _require_same(target, version)
            return
        if target.exists() and not target.is_dir():
            raise ConflictError(f"{target} is no folder. Remove it, or choose another path.")
        if target.exists() and (os.path.ismount(target) or os.path.samefile(target, os.curdir)):
            raise InvalidInputError(
                f"{target} is the root of a file system or the working folder of this process, which no "
                f"other folder can replace. Give a folder in it, such as {target / 'model'}."
            )
        make_folders(target.parent)
    _write_all(store, version, target)


def _write_all(store: Store, version: ModelVersion, target: Path) -> None:
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    with os_errors(str(target)):
        temporary.mkdir()
        try:
            with LocalTree(temporary) as tree:
                _write_files(store, tree, version.files)
            if target.is_dir():
                shutil.copymode(target, temporary)
            _publish(temporary, target, version)
            fsync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, target: Path, version: ModelVersion) -> None:
    """Give a folder its name: onto nothing, or an empty folder; somebody else may have put the same there."""
    try:
        os.rename(temporary, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _require_same(target, version)


def _write_files(store: Store, tree: LocalTree, files: Sequence[ModelFile]) -> None:
    """Write small files side by side, then large ones a few at a time: ``max_workers`` requests in all."""
    small = [file for file in files if file.size_bytes <= READ_SIZE]
    list(map_ordered(partial(_write, store, tree, 1), small, store.max_workers))
    large = [file for file in files if file.size_bytes > READ_SIZE]
    at_once = max(1, min(len(large), _LARGE_AT_ONCE, store.max_workers))
    list(map_ordered(partial(_write, store, tree, store.max_workers // at_once), large, at_once))


def _write(store: Store, tree: LocalTree, workers: int, file: ModelFile) -> None:
    mode = _RUNNABLE if file.executable else _PLAIN
    entry = Entry(file.path, FILE, mode, file.size_bytes, digest=file.digest)
    read = partial(stream_blob, store, file.digest, file.format, file.size_bytes, workers=workers)
    try:
        tree.write(entry, read())
    except IntegrityError:
        if not store.evict(blob_key(file.digest, file.format)):
            raise
        tree.write(entry, read())  # not out of a cache this time


def _require_same(target: Path, version: ModelVersion) -> None:
    """Raise ConflictError unless a folder holds the files of a version, and nothing else."""
    with LocalTree(target) as tree:
        found = tree.scan()
        here = {entry.path: entry for entry in found.entries if entry.kind == FILE}
        others = bool(found.left_out) or any(entry.kind == LINK for entry in found.entries)
    wanted = {file.path: file for file in version.files}
    same = not others and here.keys() == wanted.keys()
    same = same and all(bool(here[path].mode & 0o100) == file.executable for path, file in wanted.items())
    if not same or any(hash_file(target / path) != file.digest for path, file in wanted.items()):
        raise ConflictError(
            f"{target} holds other files than {version.version} of {version.model!r}. Remove it, or choose "
            "another path.",
            existing=str(target),
            offered=version.version,
        )
