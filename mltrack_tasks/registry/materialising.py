"""The real files of a version under their own names, so that any S3 tool can load the folder."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from mltrack_tasks import events, modelkeys
from mltrack_tasks.copies import copy_blob
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.provenance import current
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.stores.base import Store


def check_places(store: Store, model: str, version: str, paths: Iterable[str]) -> None:
    """Raise InvalidInputError for a path that no key of this store can hold, before anything is written."""
    folders = (modelkeys.development_folder(model, version), modelkeys.promoted_folder(model, version))
    for path in paths:
        for folder in folders:
            store.check(folder + path)


def materialise(store: Store, version: ModelVersion, *, observe: Observe) -> None:
    """Give a registered version its folder, unless it has it; the mark that it is complete comes last."""
    model, name = version.model, version.version
    mark = modelkeys.materialized_key(model, name)
    fill_folder(store, version, modelkeys.development_folder(model, name), mark, b"", observe=observe)


def publish(store: Store, version: ModelVersion, *, observe: Observe) -> None:
    """Give a promoted version its folder, unless it has it; the record beside it comes last."""
    model, name = version.model, version.version
    body = Record(version.to_content(), current()).to_bytes()
    mark = modelkeys.promoted_key(model, name)
    fill_folder(store, version, modelkeys.promoted_folder(model, name), mark, body, observe=observe)


def fill_folder(
    store: Store, version: ModelVersion, folder: str, mark: str, body: bytes, *, observe: Observe
) -> None:
    """Copy the files of a version into ``folder``, then create ``mark``, which says that it is complete.

    Where the mark is there already, only what is missing or of another size is copied again. Copies are made
    by the server and proven; they may be repeated, as all writers of a version copy the same bytes. Raises
    IntegrityError for an object in the folder that is no file of the version: tools would load it too.
    """
    found = {stat.key.removeprefix(folder): stat.size for stat in store.list(folder)}
    known = {file.path for file in version.files}
    foreign = sorted(path for path in found if path.rstrip("/") and path not in known)
    if foreign:
        raise IntegrityError(
            f"{folder}{foreign[0]} in {store.location} is no file of {version.version} of {version.model!r}; "
            f"whatever loads the folder would load it too ({len(foreign)} such). Look at it, and remove it.",
            details={"foreign": foreign[:100]},
        )
    complete = store.head(mark) is not None
    todo = [file for file in version.files if not complete or found.get(file.path) != file.size_bytes]
    moved = sum(map_ordered(partial(_copy, store, folder), todo, store.max_workers))
    if todo:
        details = {"files": len(todo), "bytes": sum(f.size_bytes for f in todo), "bytes_moved": moved}
        observe(
            Event(
                events.MODEL_MATERIALISED, f"model.{version.model}", {"version": version.version, **details}
            )
        )
    ensure(store, mark, body)


def _copy(store: Store, folder: str, file: ModelFile) -> int:
    return copy_blob(store, file.digest, file.format, file.size_bytes, folder + file.path)
