"""Trees of files for the tests of ``localtree``: made, told, and looked at without it."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mltrack_tasks.filetree import Entry

NOBODY = 65534
SECOND = 1_000_000_000
"""[ns]"""

_plain = st.text("abcxyz.-_ ~%é漢", min_size=1, max_size=8).map(os.fsencode)
_raw = st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"/", b"\xff").replace(b"\0", b"\n"))
_long = st.integers(240, 255).map(lambda length: b"n" * length)
names = st.one_of(_plain, _raw, _long).filter(lambda name: name not in (b".", b"..") and len(name) <= 255)

targets = st.sampled_from(
    [b"nowhere", b".", b"..", b"../..", b"/etc/passwd", b"a", b"x/../y", b"\xff\n", b"l" * 1000]
)


@dataclass(frozen=True)
class MadeFile:
    """A file to make; with ``hole`` that many bytes that were never written follow its content."""

    content: bytes
    mode: int
    mtime_ns: int
    hole: int = 0


files = st.builds(
    MadeFile,
    st.one_of(st.just(b""), st.binary(max_size=40)),
    st.sampled_from([0o644, 0o600, 0o444, 0o755, 0o400, 0o777]),
    st.integers(0, 2**32 * SECOND),
    st.sampled_from([0, 0, 0, 100_000]),
)
trees: st.SearchStrategy[dict[bytes, Any]] = st.recursive(
    st.dictionaries(names, st.one_of(files, targets, st.just("twin"), st.just("pipe")), max_size=5),
    lambda below: st.dictionaries(names, st.one_of(files, below), max_size=4),
    max_leaves=12,
)
"""Names to what has them: a file, a link's target, a folder (a dictionary), a second name, a pipe."""


def make(folder: bytes, tree: dict[bytes, Any]) -> None:
    """Make a tree in a folder; folders are read-only afterwards if there are two things in them."""
    first: bytes | None = None
    for name, what in tree.items():
        path = os.path.join(folder, name)
        if isinstance(what, MadeFile):
            put(path, what)
            first = first or path
        elif isinstance(what, dict):
            os.mkdir(path)
            make(path, what)
            os.chmod(path, 0o555 if len(what) == 2 else 0o750)
        elif what == "twin" and first:
            os.link(first, path)
        elif isinstance(what, bytes):
            os.symlink(what, path)
        else:
            os.mkfifo(path)


def put(path: bytes | str | Path, what: MadeFile) -> None:
    """Make one file."""
    with open(path, "xb") as file:
        file.write(what.content)
        file.truncate(len(what.content) + what.hole)
    os.chmod(path, what.mode)
    os.utime(path, ns=(what.mtime_ns, what.mtime_ns))


def seen(root: Path) -> list[tuple[Any, ...]]:
    """Describe a tree with plain calls: path, kind, mode, size, mtime, target and digest of each thing."""
    found: list[tuple[Any, ...]] = []
    for folder, folders, others in os.walk(os.fsencode(root)):
        for name in folders + others:
            path = os.path.join(folder, name)
            inside = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            status = os.lstat(path)
            mode = status.st_mode & 0o777
            if os.path.islink(path):
                found.append((inside, "l", 0, 0, 0, os.fsdecode(os.readlink(path)), ""))
            elif os.path.isdir(path):
                found.append((inside, "d", mode, 0, 0, "", ""))
            elif os.path.isfile(path):
                digest = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
                found.append((inside, "f", mode, status.st_size, status.st_mtime_ns, "", digest))
            else:
                found.append((inside, "other"))
    return sorted(found, key=lambda item: os.fsencode(item[0]))


def file_entry(path: str, content: bytes, *, mode: int = 0o644, mtime_ns: int = SECOND) -> Entry:
    """An entry as a record has it."""
    return Entry(path, "f", mode, len(content), mtime_ns, digest=hashlib.sha256(content).hexdigest())


def make_socket(path: Path) -> None:
    """Make a socket that has a name."""
    above = os.open(path.parent, os.O_RDONLY)
    here = os.open(".", os.O_RDONLY)
    try:
        os.fchdir(above)  # a socket's address is at most 108 bytes
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(above)
        os.close(here)


@contextmanager
def for_everybody() -> Iterator[Path]:
    """Make a folder that everybody may use, not below folders that only root may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def in_child(work: Callable[[], Any], *, nobody: bool = False) -> Any:
    """Do ``work`` in a fork, without root's privileges if asked -> its result; what it raises is raised here.

    None if the child was killed.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        os._exit(_answer(work, sending, nobody))
    os.close(sending)
    with open(receiving, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if not said:
        return None
    good, result = pickle.loads(said)
    if not good:
        raise result
    return result


def unprivileged(work: Callable[[], Any]) -> Any:
    """Do ``work`` as somebody who is not root."""
    return in_child(work, nobody=True) if os.geteuid() == 0 else work()


def _answer(work: Callable[[], Any], sending: int, nobody: bool) -> int:
    try:
        if nobody:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        said = pickle.dumps((True, work()))
    except BaseException as error:
        said = pickle.dumps((False, error))
    os.write(sending, said)
    return 0
