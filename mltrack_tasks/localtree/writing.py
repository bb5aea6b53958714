"""Put files, folders and links into the tree: whole or not at all, and never over something else."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from stat import S_IMODE, S_ISDIR, S_ISREG

from mltrack_tasks.digest import check_digest
from mltrack_tasks.errors import AccessError, ConflictError, IntegrityError, InvalidInputError
from mltrack_tasks.filetree import PERMISSIONS, Entry
from mltrack_tasks.localtree.folders import Folder, Folders, is_elsewhere, split
from mltrack_tasks.localtree.leftovers import part_name
from mltrack_tasks.localtree.newfile import NewFile
from mltrack_tasks.localtree.reading import READ, hash_open
from mltrack_tasks.stores.files import os_errors

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def write(folders: Folders, entry: Entry, chunks: Iterable[bytes | memoryview], *, replace: bool) -> bool:
    """Write a file under its name once all its bytes are there and hash to the entry's digest."""
    check_digest(entry.digest)
    what = folders.spell(entry.path)
    with _errors(what):
        parent, name = _place(folders, entry.path)
        if _is_there(parent, name, entry, replace, what):
            return False
        new = NewFile(parent, entry.mode & PERMISSIONS)
    try:
        _fill(new.descriptor, entry, chunks, what)
        with _errors(what):
            _dress(new.descriptor, entry)
            # A network file system tells at the latest on closing that the bytes did not fit.
            os.close(os.dup(new.descriptor))
            return _publish(new, parent, name, entry, replace, what)
    finally:
        with os_errors(what):
            new.close()


def make_link(folders: Folders, path: str, target: str, *, replace: bool) -> bool:
    """Make a symbolic link. It may point anywhere: nothing here follows it."""
    if not target or "\0" in target:
        raise InvalidInputError(f"{target!r} cannot be the target of the link {path!r}.")
    what = folders.spell(path)
    with _errors(what):
        parent, name = _place(folders, path)
        if _target(parent, name) == target:
            return False
        if replace:
            _link_over(parent, name, target, what)
            return True
        return _link_new(parent, name, target, what)


def make_folder(folders: Folders, path: str) -> None:
    """Make a folder with all above it, with the permissions that the process gives to new ones."""
    split(path)
    with _errors(folders.spell(path)):
        folders.make(path)


def set_mode(folders: Folders, path: str, mode: int) -> None:
    """Set the permissions of a folder."""
    split(path)
    with _errors(folders.spell(path)):
        folder = folders.get(path)
        os.fchmod(folder.descriptor, mode & PERMISSIONS)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn an OSError into the class that says what to do about it."""
    with os_errors(what):
        try:
            yield
        except OSError as error:
            if is_elsewhere(error) or isinstance(error, FileExistsError):
                raise ConflictError(
                    f"{what} cannot be put there: something that is no folder is in its way, or somebody is "
                    "changing the folder. Look at it, or choose another target."
                ) from error
            raise


def _place(folders: Folders, path: str) -> tuple[Folder, str]:
    """Folder, made if it is missing, and name of a path."""
    above, name = split(path)
    return folders.make(above), name


def _is_there(parent: Folder, name: str, entry: Entry, replace: bool, what: str) -> bool:
    """Whether the very file is there, whose mode and time are then set; ConflictError if another is."""
    try:
        found = os.stat(name, dir_fd=parent.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if S_ISREG(found.st_mode) and found.st_size == entry.size:
        try:
            descriptor = os.open(name, READ, dir_fd=parent.descriptor)
        except PermissionError:
            if not replace:
                raise
        else:
            try:
                if hash_open(descriptor) == (entry.size, entry.digest):
                    _dress(descriptor, entry)
                    return True
            finally:
                os.close(descriptor)
    if not replace or S_ISDIR(found.st_mode):
        raise _conflict(what, found, entry)
    return False


def _fill(descriptor: int, entry: Entry, chunks: Iterable[bytes | memoryview], what: str) -> None:
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        hasher.update(view)
        size += len(view)
        if size > entry.size:
            break  # whatever else comes, it is not the file; the disk need not take it
        _write_all(descriptor, view, what)
    if (size, hasher.hexdigest()) != (entry.size, entry.digest):
        raise IntegrityError(
            f"What was to become {what} are {'more than ' * (size > entry.size)}{min(size, entry.size):,} "
            f"bytes with the SHA-256 {hasher.hexdigest()}, not {entry.size:,} with {entry.digest}. "
            "Nothing was written; verify the store."
        )


def _write_all(descriptor: int, view: memoryview, what: str) -> None:
    """Apart from the chunks' source, so that its errors are not taken for the disk's."""
    with os_errors(what):
        while view:
            view = view[os.write(descriptor, view) :]


def _dress(descriptor: int, entry: Entry) -> None:
    """Set mode and time, where they differ."""
    found = os.fstat(descriptor)
    if S_IMODE(found.st_mode) != entry.mode & PERMISSIONS:
        os.fchmod(descriptor, entry.mode & PERMISSIONS)
    if found.st_mtime_ns != entry.mtime_ns:
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def _publish(new: NewFile, parent: Folder, name: str, entry: Entry, replace: bool, what: str) -> bool:
    """Give the file its name; False if somebody else has meanwhile put the same one there."""
    while True:
        try:
            new.name(name)
            return True
        except FileExistsError:
            if _is_there(parent, name, entry, replace, what):
                return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not replace:
                raise _no_links(what) from error
        if replace:
            new.put_over(name)
            return True


def _link_new(parent: Folder, name: str, target: str, what: str) -> bool:
    try:
        os.symlink(target, name, dir_fd=parent.descriptor)
    except FileExistsError:
        if _target(parent, name) == target:
            return False
        raise ConflictError(
            f"{what} is there, and is no link to {target!r}. Allow to replace it, or choose another target.",
            offered=target,
        ) from None
    return True


def _link_over(parent: Folder, name: str, target: str, what: str) -> None:
    temporary = part_name()
    os.symlink(target, temporary, dir_fd=parent.descriptor)
    try:
        os.replace(temporary, name, src_dir_fd=parent.descriptor, dst_dir_fd=parent.descriptor)
    finally:
        _remove(parent, temporary, what)


def _target(parent: Folder, name: str) -> str | None:
    """Where a link points to; None if there is none."""
    try:
        return os.readlink(name, dir_fd=parent.descriptor)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _no_links(what: str) -> AccessError:
    return AccessError(
        f"{what} cannot get its name without the risk of replacing another file: the file system has no hard "
        "links. Choose a folder on another one, or allow to replace."
    )


def _remove(parent: Folder, name: str, what: str) -> None:
    with os_errors(what), suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent.descriptor)


def _conflict(what: str, found: os.stat_result, entry: Entry) -> ConflictError:
    if S_ISREG(found.st_mode):
        existing = f"another file of {found.st_size:,} bytes"
    else:
        existing = "a folder" if S_ISDIR(found.st_mode) else "a link or another thing that is no file"
    advice = "Move it away" if S_ISDIR(found.st_mode) else "Allow to replace it"
    return ConflictError(
        f"{what} is already there, as {existing}. {advice}, or choose another target.",
        existing=existing,
        offered=entry,
        details={"path": entry.path},
    )
