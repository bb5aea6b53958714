"""Files out of blobs that are compressed as a whole."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from mltrack_tasks.blobs import damaged, stream_blob
from mltrack_tasks.codecs import zstd
from mltrack_tasks.delivery import deliver
from mltrack_tasks.digest import SINGLE_PUT_LIMIT, MiB
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import make_folders, os_errors

T = TypeVar("T")


def deliver_unpacked(store: Store, ref: DataRef, target: Path) -> Path:
    """Write what a compressed blob holds to ``target`` -> its absolute path, as ``deliver`` does.

    The blob is fetched and proven first. Raises IntegrityError for one that is damaged or not packed by us,
    InvalidInputError for one that takes more than the disk has.
    """
    with tempfile.SpooledTemporaryFile(max_size=SINGLE_PUT_LIMIT) as spooled:
        file = cast(BinaryIO, spooled)
        try:
            _fetch(store, ref, file)
        except IntegrityError:
            if not store.evict(ref.storage_path):
                raise
            _fetch(store, ref, file)  # not out of a cache this time
        what = f"{ref.storage_path} in {store.location}"
        size = sum(frame.plain for frame, _ in _frames(file, what))
        _require_space(target, size, what)
        hasher = hashlib.sha256()
        for chunk in _plain(file, what):
            hasher.update(chunk)
        return deliver(_plain(file, what), hasher.hexdigest(), size, target)


def _fetch(store: Store, ref: DataRef, file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
    hasher = hashlib.sha256()
    for chunk in stream_blob(store, ref.hash, ref.format):
        hasher.update(chunk)
        with os_errors("The temporary folder (TMPDIR)"):
            file.write(chunk)
    if hasher.hexdigest() != ref.hash:  # also where the store's reads are not verified
        raise damaged(store, ref.storage_path)


def _frames(file: BinaryIO, what: str) -> Iterator[tuple[zstd.Frame, memoryview]]:
    file.seek(0)
    yield from _told(zstd.frames_of(iter(lambda: file.read(MiB), b"")), what)


def _plain(file: BinaryIO, what: str) -> Iterator[bytes]:
    yield from _told((zstd.unpack(frame, part) for frame, part in _frames(file, what)), what)


def _told(found: Iterable[T], what: str) -> Iterator[T]:
    try:
        yield from found
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise IntegrityError(
            f"{what} cannot be unpacked: {error}. It was not packed by this library."
        ) from error


def _require_space(target: Path, size: int, what: str) -> None:
    with os_errors(str(target)):
        if target.exists():
            return  # nothing is written over it
        make_folders(target.absolute().parent)
        free = shutil.disk_usage(target.absolute().parent).free
    if size > free:
        raise InvalidInputError(
            f"{what} unpacks to {size:,} bytes, and {target.parent} has {free:,} left. Give another path, or "
            "make room."
        )
