"""A folder of many small files, stored in batches: a task run per file would cost more than the file."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from mltrack_tasks import DataRef, MLTrackStore, content
from mltrack_tasks.stores import Store

BATCHES = 4


def files_below(folder: Path) -> dict[str, Path]:
    """Find the files of a folder -> relative path to path, sorted."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def contents_below(folder: Path) -> dict[str, bytes]:
    """Read the files of a folder -> relative path to bytes."""
    return {name: path.read_bytes() for name, path in files_below(folder).items()}


def batches_of(names: list[str], count: int = BATCHES) -> list[list[str]]:
    """Deal names out to at most ``count`` batches."""
    return [batch for start in range(count) if (batch := names[start::count])]


@task
def store_batch(names: list[str], folder: Path, store: str) -> dict[str, DataRef]:
    """Store some files of a folder, each under its relative path -> their refs."""
    opened = _open(store)
    return {name: content.store_file(opened, folder / name, f"{folder.name}/{name}") for name in names}


@task
def restore_batch(refs: dict[str, DataRef], folder: Path, store: str) -> int:
    """Write files by ref into a folder -> how many."""
    opened = _open(store)
    for name, ref in refs.items():
        content.retrieve_file(opened, ref, folder / name)
    return len(refs)


def _open(store: str) -> Store:
    return MLTrackStore.load(store).open()
