"""The real files of a version under their own names, so that any S3 tool can load the folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from mltrack_tasks import events, modelkeys
from mltrack_tasks.copies import copy_blob, is_copy
from mltrack_tasks.digest import SINGLE_PUT_LIMIT
from mltrack_tasks.errors import IntegrityError, NotFoundError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.provenance import current
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure, read_record, same_content
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
    """Give a promoted version its folder, unless it has it; the record beside it comes last.

    Raises IntegrityError if the record there is that of another version, which this library never writes.
    """
    model, name = version.model, version.version
    content, mark = version.to_content(), modelkeys.promoted_key(model, name)
    _require_own_mark(store, mark, content)
    body = Record(content, current()).to_bytes()
    fill_folder(store, version, modelkeys.promoted_folder(model, name), mark, body, observe=observe)
    _require_own_mark(store, mark, content)  # whoever was faster wrote the same


def fill_folder(
    store: Store, version: ModelVersion, folder: str, mark: str, body: bytes, *, observe: Observe
) -> None:
    """Copy the files of a version into ``folder``, then create ``mark``, which says that it is complete.

    Where the mark is there already, only what is missing or another by the store's own account is copied
    again. Copies are made by the server and proven; they may be repeated, as all writers of a version copy
    the same bytes. Raises IntegrityError for a file whose blob is gone or damaged, and for an object in the
    folder that is no file of the version: tools would load it too.
    """
    _require_own_files(store, version, folder)
    complete = store.head(mark) is not None
    todo = [*_not_there(store, version.files, folder)] if complete else version.files
    moved = sum(_copies(store, version, folder, todo))
    if todo:
        details = {"files": len(todo), "bytes": sum(f.size_bytes for f in todo), "bytes_moved": moved}
        observe(
            Event(
                events.MODEL_MATERIALISED, f"model.{version.model}", {"version": version.version, **details}
            )
        )
    ensure(store, mark, body)


def _require_own_files(store: Store, version: ModelVersion, folder: str) -> None:
    found = {stat.key.removeprefix(folder) for stat in store.list(folder)}
    known = {file.path for file in version.files}
    foreign = sorted(path for path in found - known if path.rstrip("/"))
    if foreign:
        raise IntegrityError(
            f"{folder}{foreign[0]} in {store.location} is no file of {version.version} of {version.model!r}; "
            f"whatever loads the folder would load it too ({len(foreign)} such). Look at it, and remove it.",
            details={"foreign": foreign[:100]},
        )


def _require_own_mark(store: Store, mark: str, content: Mapping[str, Any]) -> None:
    try:
        found = read_record(store, mark)
    except NotFoundError:
        return
    if not same_content(found.content, content):
        raise IntegrityError(
            f"{mark} in {store.location} does not say what the version's record says; it was forged, or "
            "written by another program. Compare the two, and remove the wrong one.",
            details={"key": mark},
        )


def _not_there(store: Store, files: Sequence[ModelFile], folder: str) -> Iterator[ModelFile]:
    """Name the files of a folder that are missing in it, or were written over."""

    def there(file: ModelFile) -> bool:
        return is_copy(store, file.digest, file.format, file.size_bytes, folder + file.path)

    answers = map_ordered(there, files, store.max_workers)
    return (file for file, found in zip(files, answers, strict=True) if not found)


def _copies(store: Store, version: ModelVersion, folder: str, files: Sequence[ModelFile]) -> Iterator[int]:
    """Copy files -> [bytes] read for each; one by one where the parts of a file are many requests already."""
    copy = partial(_copy, store, version, folder)
    yield from map_ordered(copy, [f for f in files if f.size_bytes <= SINGLE_PUT_LIMIT], store.max_workers)
    yield from map(copy, [f for f in files if f.size_bytes > SINGLE_PUT_LIMIT])


def _copy(store: Store, version: ModelVersion, folder: str, file: ModelFile) -> int:
    try:
        return copy_blob(store, file.digest, file.format, file.size_bytes, folder + file.path)
    except NotFoundError as error:
        raise IntegrityError(
            f"The file {file.shown_path!r} of {version.version} of {version.model!r} is gone: {error} "
            "Register the same files again to bring it back.",
            details={"path": file.shown_path, "digest": file.digest},
        ) from error
