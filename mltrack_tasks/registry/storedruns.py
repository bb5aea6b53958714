"""A model out of a run of this store: its outputs by name, or the artifacts of a run that was migrated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from mltrack_tasks import layout
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import IntegrityError, NotFoundError
from mltrack_tasks.filetree import FILE, Entry
from mltrack_tasks.migrated import MigratedFiles, of_run
from mltrack_tasks.mlflowdata.filestore import META, read_logged_model
from mltrack_tasks.receipts import Place
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.registry.sourcefiles import SourceFile, bytes_file, files_of_refs, path_of_ref
from mltrack_tasks.runs import get_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.treeparts import read_tree

_EXECUTABLE = 0o100


def find_run(store: Store, run_id: str) -> RunManifest | None:
    """Read a run of this store, or None if it has none of this id."""
    try:
        return get_run(store, run_id)
    except NotFoundError:
        return None


def files_of_run(store: Store, run: RunManifest, model_path: str) -> tuple[SourceFile, ...]:
    """Find a model in a run -> its files; none if the run has nothing of that name.

    An output (or datum) of that name is a model of one file; outputs named ``<model_path>/...`` are one of
    several. Of a migrated run, the artifacts below that path, or the logged model of that name or id.
    """
    refs = _named(run, model_path)
    if refs:
        return files_of_refs(store, refs)
    migrated = of_run(run, what=f"The manifest of {run.run_id!r} in {store.location}")
    return () if migrated is None else _artifacts(store, migrated, model_path.strip("/"))


def file_at(
    store: Store, path: str, entry: Entry, contents: Mapping[str, bytes], place: Place | None
) -> SourceFile:
    """Take a migrated file, wherever its bytes lie: in a manifest, in a pack, or as a blob."""
    executable = bool(entry.mode & _EXECUTABLE)
    body = contents.get(entry.digest)
    if body is not None:
        return bytes_file(store, path, lambda: body, executable=executable)
    if place is None:
        raise NotFoundError(f"The bytes of {entry.path!r} are nowhere in {store.location}.")
    if place.offset is not None:
        return bytes_file(store, path, partial(_packed, store, entry, place), executable=executable)
    ref = DataRef(place.digest, place.format, place.size, layout.blob_key(place.digest, place.format))
    [file] = files_of_refs(store, {path: ref})
    return SourceFile(path, file.write, executable)


def _named(run: RunManifest, model_path: str) -> dict[str, DataRef]:
    below = f"{model_path}/"
    for refs in (run.outputs, run.data):
        if model_path in refs:
            ref = refs[model_path]
            return {path_of_ref(ref): ref}
        found = {name.removeprefix(below): ref for name, ref in refs.items() if name.startswith(below)}
        if found:
            return found
    return {}


def _artifacts(store: Store, migrated: MigratedFiles, model_path: str) -> tuple[SourceFile, ...]:
    what = f"the files of a run in {store.location}"
    entries = list(migrated.files or read_tree(store, migrated.parts, what))
    for folder in _folders(entries, migrated, model_path):
        found = _below(entries, folder)
        if found:
            return tuple(
                file_at(store, path, entry, migrated.contents, migrated.places.get(entry.digest))
                for path, entry in found.items()
            )
    return ()


def _below(entries: list[Entry], folder: str) -> dict[str, Entry]:
    """The files below a folder by their paths in it, or the file that is there itself."""
    below = f"{folder}/"
    found = {e.path.removeprefix(below): e for e in entries if e.kind == FILE and e.path.startswith(below)}
    if found:
        return found
    return {e.path.rpartition("/")[2]: e for e in entries if e.kind == FILE and e.path == folder}


def _folders(entries: list[Entry], migrated: MigratedFiles, model_path: str) -> Iterator[str]:
    """Where a model may be: among the run's artifacts, or a model that MLflow 3 keeps beside the run."""
    own, *models = migrated.folders
    yield f"{own}/artifacts/{model_path}" if own else f"artifacts/{model_path}"
    for folder in models:
        if folder.rpartition("/")[2] == model_path or _name_of(entries, migrated, folder) == model_path:
            yield f"{folder}/artifacts"
    yield f"{own}/{model_path}" if own else model_path


def _name_of(entries: list[Entry], migrated: MigratedFiles, folder: str) -> str | None:
    meta = next((entry for entry in entries if entry.path == f"{folder}/{META}"), None)
    body = migrated.contents.get(meta.digest) if meta is not None else None
    if body is None:
        return None
    try:
        return read_logged_model({META: body}, what=f"The logged model {folder!r}").name
    except IntegrityError:
        return None  # it is not found by its name; its id still finds it


def _packed(store: Store, entry: Entry, place: Place) -> bytes:
    body = bytes(store.get_range(layout.blob_key(place.digest, place.format), place.offset or 0, place.size))
    if sha256_hex(body) != entry.digest:
        raise IntegrityError(
            f"{entry.path!r} in the pack {place.digest} of {store.location} does not hash to {entry.digest}."
        )
    return body
