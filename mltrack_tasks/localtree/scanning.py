"""What there is in a tree: every file, folder and symbolic link, and what has to be left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG

from mltrack_tasks import events
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.filetree import FILE, FOLDER, LINK, PERMISSIONS, Entry
from mltrack_tasks.localtree.folders import Folders, is_elsewhere, is_exhausted, refuse, split
from mltrack_tasks.localtree.leftovers import why_left
from mltrack_tasks.paths import sort_key

UNREADABLE = "cannot be read"
"""What the reason begins with for which something is left out that could be kept."""
REPORT_EVERY = 5_000
"""Entries between two events of a scan, at least: it reports between folders."""


@dataclass(frozen=True)
class Scanned:
    """What a scan found, each in the order of the paths' bytes."""

    entries: list[Entry] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """What cannot be kept, as path and reason."""


def scan(folders: Folders, observe: Observe) -> Scanned:
    """List everything below the root. Links are not followed; what vanishes meanwhile is not listed."""
    folders.close()  # what was open may be another folder by now
    found = Scanned()
    todo = [""]
    reported = 0
    while todo:
        _scan_folder(folders, todo.pop(), found, todo)
        if len(found.entries) - reported >= REPORT_EVERY:
            reported = len(found.entries)
            details = {"done": reported, "total": None, "unit": "files"}
            observe(Event(events.PROGRESS, f"scanning {folders.path}", details))
    found.entries.sort(key=lambda entry: sort_key(entry.path))
    found.left_out.sort(key=lambda item: sort_key(item[0]))
    return found


def stat(folders: Folders, path: str) -> Entry | None:
    """Look at one path as a scan would; None if nothing is there."""
    above, name = split(path)
    try:
        folder = folders.get(above)
        status = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        return _entry(path, name, folder.descriptor, status)
    except InvalidInputError as error:
        raise InvalidInputError(f"{folders.spell(path)} {error}.") from error
    except OSError as error:
        if is_elsewhere(error):
            return None
        refuse(error, folders.spell(path))


def _scan_folder(folders: Folders, path: str, found: Scanned, todo: list[str]) -> None:
    try:
        folder = folders.below(path)
        with os.scandir(folder.descriptor) as listing:
            _take_all(listing, f"{path}/" if path else "", folder.descriptor, found, todo)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            found.left_out.append((path, _reason(error, path)))


def _take_all(
    listing: Iterator[os.DirEntry[str]], prefix: str, parent: int, found: Scanned, todo: list[str]
) -> None:
    entries, left_out = found.entries, found.left_out
    for item in listing:
        name = item.name
        path = prefix + name
        try:
            status = item.stat(follow_symlinks=False)
            if name[0] == "." and (reason := why_left(name)):
                left_out.append((path, reason))
                continue
            entry = _entry(path, name, parent, status)
        except FileNotFoundError:
            continue  # deleted between the listing and the look
        except OSError as error:
            left_out.append((path, _reason(error, path)))
            continue
        except InvalidInputError as error:
            left_out.append((path, str(error)))
            continue
        entries.append(entry)
        if entry.kind == FOLDER:
            todo.append(path)


def _entry(path: str, name: str, parent: int, status: os.stat_result) -> Entry:
    """Describe what was found; InvalidInputError for what is neither file, folder nor link."""
    mode = status.st_mode
    kind = S_IFMT(mode)
    if kind == S_IFREG:
        return Entry(
            path,
            FILE,
            mode & PERMISSIONS,
            status.st_size,
            status.st_mtime_ns,
            "",
            "",
            status.st_ino,
            status.st_ctime_ns,
        )
    if kind == S_IFDIR:
        return Entry(path, FOLDER, mode & PERMISSIONS)
    if kind == S_IFLNK:
        return Entry(path, LINK, target=os.readlink(name, dir_fd=parent))
    raise InvalidInputError("is neither a file, a folder nor a symbolic link, but a pipe, socket or device")


def _reason(error: OSError, path: str) -> str:
    if is_exhausted(error):
        refuse(error, repr(path))
    if is_elsewhere(error):
        return "changed while it was scanned"
    return f"{UNREADABLE}: {error.strerror}"
