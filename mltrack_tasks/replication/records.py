"""Copying records as they are, byte for byte, once each was read and is one."""

from __future__ import annotations

from mltrack_tasks import layout, modelkeys
from mltrack_tasks.errors import ConflictError, IntegrityError
from mltrack_tasks.events import Observe
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import MAX_RECORD_SIZE, Record
from mltrack_tasks.recordstore import same_content
from mltrack_tasks.registry.materialising import check_places, fill_folder
from mltrack_tasks.registry.reading import read_version
from mltrack_tasks.stores.base import Store

_TRIES = 3


def copy_record(source: Store, target: Store, key: str) -> bool:
    """Copy a record: True if it was written, or replaced because what was there is none.

    Raises NotFoundError if the source has none, IntegrityError or FormatError if that is no record that can
    be read, ConflictError if the target has another.
    """
    body = _body(source, key)
    offered = Record.from_bytes(body, what=f"{key} in {source.location}")
    for _ in range(_TRIES):
        if target.create(key, body):
            return True
        stat = target.head(key)
        if stat is None:
            continue  # a competing write in flight
        try:
            found = Record.from_bytes(_body(target, key), what=f"{key} in {target.location}")
        except IntegrityError:
            if stat.etag is not None and target.replace(key, body, stat.etag):
                return True
            continue
        if same_content(found.content, offered.content):
            return False
        raise ConflictError(
            f"{target.location} has another {key} than {source.location}. One of them was written by someone "
            "else, or forged: compare the two, and remove the wrong one.",
            existing=dict(found.content),
            offered=dict(offered.content),
            details={"key": key},
        )
    raise IntegrityError(f"{key} in {target.location} can neither be written nor read.", details={"key": key})


def copy_version(source: Store, target: Store, key: str, observe: Observe) -> bool:
    """Copy the record of a version after what leads to it, and after its folder if the source has that."""
    place = modelkeys.parse_version_key(key)
    assert place is not None, key
    found = read_version(source, *place)
    for beside in (modelkeys.id_key(*place), modelkeys.tree_key(place[0], found.tree_digest)):
        copy_record(source, target, beside)
    mark = modelkeys.materialized_key(*place)
    if source.head(mark) is not None:
        copy_folder_of_registered(source, target, mark, observe)
    return copy_record(source, target, key)


def copy_folder_of_registered(source: Store, target: Store, key: str, observe: Observe) -> bool:
    """Give the folder of a registered version its files, from the target's own blobs, and then its mark."""
    _, _, segment, _, version = key.split("/")
    found = read_version(source, layout.decode_segment(segment), version)
    check_places(target, found.model, version, [file.path for file in found.files])
    folder = modelkeys.development_folder(found.model, version)
    fill_folder(target, found, folder, key, b"", observe=observe)
    return True


def copy_promoted(source: Store, target: Store, key: str, observe: Observe) -> bool:
    """Give the folder of a promoted version its files, from the target's own blobs, and then its record."""
    place = modelkeys.parse_promoted_key(key)
    assert place is not None, key
    body, what = _body(source, key), f"{key} in {source.location}"
    found = ModelVersion.from_record(Record.from_bytes(body, what=what), what=what)
    if (found.model, found.version) != place:
        raise IntegrityError(f"{what} is that of {found.model!r} {found.version}; it was forged.")
    if target.head(key) is not None:
        return copy_record(source, target, key)
    check_places(target, *place, [file.path for file in found.files])
    fill_folder(target, found, modelkeys.promoted_folder(*place), key, body, observe=observe)
    return True


def _body(store: Store, key: str) -> bytes:
    return bytes(store.get_range(key, 0, MAX_RECORD_SIZE + 1))
