"""Files out of a store: visible under their name only when whole, and never over something else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISREG

from mltrack_tasks.errors import ConflictError, InvalidInputError
from mltrack_tasks.stores.files import fsync_folder, hash_file, make_folders, os_errors


def deliver(chunks: Iterable[bytes | memoryview], digest: str, size: int, path: Path) -> Path:
    """Write ``chunks``, whose end proves them, to a new file ``path`` -> its absolute path.

    A file of this digest and ``size`` [bytes] that is there is left alone and nothing is fetched; one with
    other bytes is a ConflictError; a folder, pipe or device is an InvalidInputError.
    """
    target = path.absolute()
    with os_errors(str(target)):
        if target.exists():
            return _require_same(target, digest, size)
        make_folders(target.parent)
        return _write(chunks, digest, size, target)


def _write(chunks: Iterable[bytes | memoryview], digest: str, size: int, target: Path) -> Path:
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, target)  # unlike a rename, a link never replaces what came meanwhile
        except FileExistsError:
            return _require_same(target, digest, size)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(target.parent)
    return target


def _require_same(target: Path, digest: str, size: int) -> Path:
    found = target.stat()
    if not S_ISREG(found.st_mode):
        raise InvalidInputError(f"{target} is no plain file; give the path of the file to write.")
    if found.st_size != size or hash_file(target) != digest:
        raise ConflictError(
            f"{target} exists and holds other bytes than {digest}. Remove it, or choose another path.",
            existing=str(target),
            offered=digest,
        )
    return target
