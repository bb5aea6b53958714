"""Where the files of a model come from: each with what makes sure of its blob."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import Any

from mltrack_tasks.content import resolve_ref, writer_of
from mltrack_tasks.deletions import Writer
from mltrack_tasks.digest import SINGLE_PUT_LIMIT
from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.events import Observe
from mltrack_tasks.filetree import FILE, LINK, Entry
from mltrack_tasks.layout import check_path
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.refs import DataRef
from mltrack_tasks.sources import BytesSource, FileSource
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import checked_path, os_errors
from mltrack_tasks.values import write_opened

SMALL = 4 * 1024 * 1024
"""[bytes] Of files above this only two are read at a time: memory does not grow with ``max_workers``."""
_OWNER_MAY_RUN = 0o100


@dataclass(frozen=True)
class SourceFile:
    """One file of a model: its place in the tree, and what writes its blob.

    ``write`` is told which digests the store has most likely: those it asks for before it sends them.
    """

    path: str
    write: Callable[[Collection[str], Observe], DataRef]
    executable: bool = False


@dataclass(frozen=True)
class ModelSource:
    """The files of a model, and what is known of where they come from."""

    files: tuple[SourceFile, ...]
    source_runs: tuple[str, ...] = ()
    training_data: Mapping[str, DataRef] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def local_files(store: Store, path: str | Path) -> Iterator[tuple[SourceFile, ...]]:
    """Take a local file, or a folder with all below it.

    Raises NotFoundError where there is none, InvalidInputError for an empty folder, and for what no model may
    hold: symbolic links (they lead elsewhere on other machines), pipes, and what cannot be read.
    """
    given = checked_path(path)
    with os_errors(str(given)):
        try:
            resolved = given.resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(
                f"There is no {given.absolute()} on this machine; give the path of a file or folder."
            ) from error
        except RuntimeError as error:  # what Python before 3.13 makes of links that lead in a circle
            raise InvalidInputError(f"{given} cannot be read: {error}.") from error
        single = not resolved.is_dir()
    root = resolved.parent if single else given
    with LocalTree(root) as tree:
        entries = [_only(tree, resolved.name)] if single else _scanned(tree)
        two_at_a_time = Semaphore(2)
        yield tuple(
            SourceFile(
                entry.path,
                partial(_write, store, tree, entry, two_at_a_time),
                bool(entry.mode & _OWNER_MAY_RUN),
            )
            for entry in entries
        )


def files_of_refs(store: Store, refs: Mapping[str, Any]) -> tuple[SourceFile, ...]:
    """Take blobs that are stored already, by the paths that they are to have in the model."""
    for path, ref in refs.items():
        check_path(path)
        if not isinstance(ref, (DataRef, str)):
            raise InvalidInputError(f"The file {path!r} is {ref!r:.80}, not a ref; store it first.")
    return tuple(
        SourceFile(path, partial(_look, writer_of(store, resolve_ref(store, ref), path)))
        for path, ref in refs.items()
    )


def path_of_ref(ref: DataRef) -> str:
    """Name a single blob as a file: by its name, with the ending of its format if it has none."""
    name = ref.name if ref.name not in ("", ".", "..") else "data"
    last = name.rpartition("/")[2]
    return name if "." in last.lstrip(".") else f"{name}.{ref.format}"


def bytes_file(store: Store, path: str, read: Any, *, executable: bool = False) -> SourceFile:
    """Take a file whose bytes ``read()`` fetches."""

    def write(likely: Collection[str], observe: Observe) -> DataRef:
        return _write_body(store, read(), path, likely, observe)

    return SourceFile(path, write, executable)


def _only(tree: LocalTree, name: str) -> Entry:
    entry = tree.stat(name)
    if entry is None or entry.kind != FILE:
        raise InvalidInputError(f"{tree.root / name} is not a plain file.")
    return entry


def _scanned(tree: LocalTree) -> list[Entry]:
    found = tree.scan()
    if found.left_out:
        path, reason = found.left_out[0]
        raise InvalidInputError(
            f"{path!r} in {tree.root} {reason}; a model is registered whole or not at all."
        )
    links = [entry for entry in found.entries if entry.kind == LINK]
    if links:
        raise InvalidInputError(
            f"{links[0].path!r} in {tree.root} is a symbolic link ({len(links)} such); what it leads to "
            "may be anything. Register a copy without links (cp -rL)."
        )
    files = [entry for entry in found.entries if entry.kind == FILE]
    if not files:
        raise InvalidInputError(f"{tree.root} holds no file; a model has at least one.")
    return files


def _look(there: Writer, likely: Collection[str], observe: Observe) -> DataRef:
    return there(observe)


def _write(
    store: Store, tree: LocalTree, entry: Entry, two: Semaphore, likely: Collection[str], observe: Observe
) -> DataRef:
    if entry.size <= SMALL:
        return _write_body(store, tree.read(entry), entry.path, likely, observe)
    with two:
        if entry.size <= SINGLE_PUT_LIMIT:
            return _write_body(store, tree.read(entry), entry.path, likely, observe)
        with tree.open(entry.path) as file, os_errors(entry.path):
            source = FileSource(file, os.fsdecode(tree.root / entry.path))
            return write_opened(store, source, file, entry.path, observe)


def _write_body(store: Store, body: bytes, path: str, likely: Collection[str], observe: Observe) -> DataRef:
    source = BytesSource(body)
    ask = True if source.digest in likely else None
    return write_opened(store, source, io.BytesIO(body), path, observe, ask=ask)
