"""Reading files: the bytes of the very file that was scanned, or an error that says why not."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mltrack_tasks.errors import AccessError, IntegrityError, InvalidInputError, SourceChangedError
from mltrack_tasks.filetree import Entry
from mltrack_tasks.localtree import LocalTree
from tests.floor2.localtrees import SECOND, MadeFile, file_entry, for_everybody, put, unprivileged

BAD_PATHS = ["", "/a", "a/", "a//b", "../a", "a/..", ".", "./a", "a/./b", "a\0b", "a/\0/b", "//", "\ud800/x"]

CALLS: dict[str, Callable[[LocalTree, str], object]] = {
    "read": lambda local, path: local.read(Entry(path, "f")),
    "read_all": lambda local, path: list(local.read_all([Entry(path, "f")])),
    "find_changed": lambda local, path: local.find_changed([Entry(path, "f")]),
    "open": lambda local, path: local.open(path),
    "stat": lambda local, path: local.stat(path),
    "write": lambda local, path: local.write(file_entry(path, b""), []),
    "make_link": lambda local, path: local.make_link(path, "x"),
    "make_folder": lambda local, path: local.make_folder(path),
    "set_mode": lambda local, path: local.set_mode(path, 0o700),
    "delete": lambda local, path: local.delete(file_entry(path, b"")),
    "remove_empty_folder": lambda local, path: local.remove_empty_folder(path),
    "clear_leftover": lambda local, path: local.clear_leftover(path),
}


def only(local: LocalTree) -> Entry:
    """The one entry of a tree."""
    [entry] = local.scan().entries
    return entry


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("call", CALLS)
def test_only_plainly_relative_paths_are_taken(tmp_path: Path, call: str, path: str) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    with LocalTree(root) as local, pytest.raises(InvalidInputError):
        CALLS[call](local, path)
    assert os.listdir(tmp_path) == ["root"]
    assert os.listdir(root) == ["a"]
    assert os.listdir(root / "a") == []


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_001])
def test_a_file_is_read_whole(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    put(tmp_path / "f", MadeFile(content, 0o600, SECOND))
    with LocalTree(tmp_path) as local:
        assert local.read(only(local)) == content
        with local.open("f") as file:
            assert b"".join(iter(lambda: file.read(100_000), b"")) == content


def test_a_system_that_reads_less_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256))
    put(tmp_path / "f", MadeFile(content, 0o600, SECOND))
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: real(descriptor, min(size, 7)))
    with LocalTree(tmp_path) as local:
        assert local.read(only(local)) == content


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shorten(path: Path) -> None:
    os.truncate(path, 1)


def _touch(path: Path) -> None:
    os.utime(path, ns=(SECOND + 1, SECOND + 1))


def _replace_alike(path: Path) -> None:
    """Another file with the same size and time."""
    put(path.with_name("other"), MadeFile(b"other bytes", 0o644, SECOND))
    path.with_name("other").replace(path)


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES = [_append, _shorten, _touch, _replace_alike, _replace_by_link, _replace_by_folder, _replace_by_pipe]


@pytest.mark.parametrize("change", [*CHANGES, Path.unlink])
def test_a_file_that_changed_since_the_scan(tmp_path: Path, change: Callable[[Path], None]) -> None:
    put(tmp_path / "f", MadeFile(b"these bytes", 0o644, SECOND))
    with LocalTree(tmp_path) as local:
        entry = only(local)
        change(tmp_path / "f")
        with pytest.raises(SourceChangedError, match="Run it again") as raised:
            local.read(entry)
    assert raised.value.details == {"path": "f"}


@pytest.mark.parametrize("change", [_append, _shorten, _touch])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    put(tmp_path / "f", MadeFile(b"these bytes", 0o644, SECOND))
    real = os.read

    def read(descriptor: int, size: int) -> bytes:
        if os.fstat(descriptor).st_mtime_ns == SECOND:
            change(tmp_path / "f")
        return real(descriptor, size)

    with LocalTree(tmp_path) as local:
        entry = only(local)
        monkeypatch.setattr(os, "read", read)
        with pytest.raises(SourceChangedError):
            local.read(entry)


def test_the_inode_counts_only_if_the_entry_has_one(tmp_path: Path) -> None:
    put(tmp_path / "f", MadeFile(b"these bytes", 0o644, SECOND))
    with LocalTree(tmp_path) as local:
        entry = only(local)
        _replace_alike(tmp_path / "f")
        assert local.read(entry._replace(inode=0)) == b"other bytes"


@pytest.mark.parametrize("change", [_replace_by_link, _replace_by_folder, _replace_by_pipe, Path.unlink])
def test_only_plain_files_are_opened(tmp_path: Path, change: Callable[[Path], None]) -> None:
    put(tmp_path / "f", MadeFile(b"", 0o644, SECOND))
    gc.collect()  # what earlier tests left open must not be closed while we count
    before = len(os.listdir("/dev/fd"))
    with LocalTree(tmp_path) as local:
        change(tmp_path / "f")
        with pytest.raises(SourceChangedError):
            local.open("f")
    del local
    assert len(os.listdir("/dev/fd")) == before


def test_reading_may_be_denied() -> None:
    with for_everybody() as folder:
        put(folder / "f", MadeFile(b"", 0, SECOND))
        (folder / "closed").mkdir(mode=0)
        for call in (
            lambda local: local.read(Entry("f", "f", 0, 0, SECOND)),
            lambda local: local.open("f"),
            lambda local: local.open("closed/f"),
            lambda local: local.stat("closed/f"),
        ):
            with pytest.raises(AccessError, match="Permission denied"):
                unprivileged(lambda call=call: call(LocalTree(folder)))


def test_a_change_is_an_error_of_integrity() -> None:
    assert issubclass(SourceChangedError, IntegrityError)


def test_hard_links_and_holes(tmp_path: Path) -> None:
    put(tmp_path / "a", MadeFile(b"x", 0o644, SECOND, hole=1_000_000))
    os.link(tmp_path / "a", tmp_path / "b")
    with LocalTree(tmp_path) as local:
        one, other = local.scan().entries
        assert local.read(one) == local.read(other) == b"x" + bytes(1_000_000)
        assert one.inode == other.inode
