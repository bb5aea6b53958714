"""Restoring: files appear whole or not at all, with mode and time, and replace nothing unasked."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import tempfile
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import AccessError, ConflictError, IntegrityError, InvalidInputError, TransientError
from mltrack_tasks.filetree import Entry
from mltrack_tasks.localtree import LocalTree, newfile, writing
from tests.floor2.localtrees import (
    SECOND,
    MadeFile,
    file_entry,
    for_everybody,
    in_child,
    make,
    put,
    seen,
    trees,
    unprivileged,
)

CONTENT = b"what is restored"
ENTRY = file_entry("a/b/f", CONTENT, mode=0o640, mtime_ns=7 * SECOND + 1)


@pytest.fixture(params=["nameless", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which a new file comes about: without a name, and where the system cannot do that."""
    if request.param == "named":
        monkeypatch.setattr(newfile, "_NAMELESS", 0)
    return str(request.param)


def restore(local: LocalTree, entries: list[Entry], bodies: dict[str, bytes]) -> list[bool]:
    """Put entries into a tree, as a restore does: folders get their modes when they are full."""
    written = []
    for entry in entries:
        if entry.kind == "d":
            local.make_folder(entry.path)
        elif entry.kind == "l":
            written.append(local.make_link(entry.path, entry.target))
        else:
            written.append(local.write(entry, [bodies[entry.path]]))
    for entry in reversed(entries):
        if entry.kind == "d":
            local.set_mode(entry.path, entry.mode)
    return written


@given(tree=trees)
def test_a_tree_comes_back_as_it_was(tmp_path: Path, tree: dict[bytes, Any]) -> None:
    source, target = (Path(tempfile.mkdtemp(dir=tmp_path)) for _ in range(2))
    make(os.fsencode(source), tree)
    with LocalTree(source) as local:
        found = local.scan().entries
        bodies = {entry.path: local.read(entry) for entry in found if entry.kind == "f"}
    entries = [
        entry._replace(digest=sha256_hex(bodies[entry.path])) if entry.kind == "f" else entry
        for entry in found
    ]
    with LocalTree(target) as local:
        assert all(restore(local, entries, bodies))
        assert not any(restore(local, entries, bodies))
    assert seen(target) == [item for item in seen(source) if item[1] != "other"]


def test_a_file_is_written_with_all_above_it(tmp_path: Path, way: str) -> None:
    with LocalTree(tmp_path) as local:
        assert local.write(ENTRY, [CONTENT[:3], memoryview(CONTENT)[3:]]) is True
    status = (tmp_path / "a/b/f").stat()
    assert (tmp_path / "a/b/f").read_bytes() == CONTENT
    assert (status.st_mode & 0o7777, status.st_mtime_ns, status.st_nlink) == (0o640, 7 * SECOND + 1, 1)
    assert os.listdir(tmp_path / "a/b") == ["f"]


def test_special_bits_are_never_set(tmp_path: Path, way: str) -> None:
    with LocalTree(tmp_path) as local:
        local.write(file_entry("f", b"", mode=0o6755), [])
        local.make_folder("d")
        local.set_mode("d", 0o7711)
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o711


def test_a_file_that_is_there_gets_mode_and_time(tmp_path: Path) -> None:
    put(tmp_path / "f", MadeFile(CONTENT, 0o600, 3 * SECOND))
    inode = (tmp_path / "f").stat().st_ino
    with LocalTree(tmp_path) as local:
        assert local.write(ENTRY._replace(path="f"), _never()) is False
    status = (tmp_path / "f").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns, status.st_ino) == (0o640, 7 * SECOND + 1, inode)


def test_chunks_of_other_items_than_bytes(tmp_path: Path) -> None:
    numbers = array("q", range(100))
    with LocalTree(tmp_path) as local:
        assert local.write(file_entry("f", numbers.tobytes()), [memoryview(numbers)]) is True
    assert (tmp_path / "f").read_bytes() == numbers.tobytes()


def test_no_more_is_taken_than_the_file_has(tmp_path: Path) -> None:
    """Whoever keeps sending does not fill the disk."""
    with LocalTree(tmp_path) as local, pytest.raises(IntegrityError, match="more than 16 bytes"):
        local.write(ENTRY, itertools.repeat(b"endless"))


@pytest.mark.parametrize("mtime_ns", [-(2**63) + 1, -1, 0, 2**63 - 1])
def test_times_of_any_age(tmp_path: Path, mtime_ns: int) -> None:
    """What the file system cannot hold is cut to what it can."""
    with LocalTree(tmp_path) as local:
        assert local.write(file_entry("f", CONTENT, mtime_ns=mtime_ns), [CONTENT]) is True
        assert local.write(file_entry("f", CONTENT, mtime_ns=mtime_ns), [CONTENT]) is False
    assert (tmp_path / "f").read_bytes() == CONTENT


def _never() -> Iterator[bytes]:
    """Bytes that nobody should ask for."""
    raise AssertionError
    yield b""


@pytest.mark.parametrize(
    "chunks",
    [[CONTENT[:-1]], [CONTENT, b"x"], [CONTENT[:-1] + b"x"], []],
    ids=["short", "long", "other", "none"],
)
def test_bytes_that_are_not_the_file_s_leave_nothing(tmp_path: Path, way: str, chunks: list[bytes]) -> None:
    with LocalTree(tmp_path) as local, pytest.raises(IntegrityError, match=ENTRY.digest):
        local.write(ENTRY, chunks)
    assert os.listdir(tmp_path / "a/b") == []


@pytest.mark.parametrize(
    "error", [TransientError("lost"), OSError(28, "not the target's"), KeyboardInterrupt()]
)
def test_an_error_of_the_source_stays_what_it_is(tmp_path: Path, way: str, error: BaseException) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT[:3]
        raise error

    with LocalTree(tmp_path) as local, pytest.raises(type(error)) as raised:
        local.write(ENTRY, chunks())
    assert raised.value is error
    assert os.listdir(tmp_path / "a/b") == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, way: str) -> None:
    body = bytes(100_000)

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        LocalTree(tmp_path).write(file_entry("f", body), [body])

    with pytest.raises(AccessError, match="full"):
        in_child(write)
    assert os.listdir(tmp_path) == []


def test_an_entry_without_digest_is_not_written(tmp_path: Path) -> None:
    with LocalTree(tmp_path) as local, pytest.raises(InvalidInputError, match="digest"):
        local.write(Entry("f", "f"), [])
    assert os.listdir(tmp_path) == []


def _other(path: Path) -> None:
    put(path, MadeFile(b"mine", 0o644, 0))


def _same_size(path: Path) -> None:
    put(path, MadeFile(CONTENT[::-1], 0o644, 0))


def _link(path: Path) -> None:
    put(path.with_name("end"), MadeFile(CONTENT, 0o644, 0))
    path.symlink_to("end")


def _dangling(path: Path) -> None:
    path.symlink_to("end")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


IN_THE_WAY = [_other, _same_size, _link, _dangling, _pipe]


@pytest.mark.parametrize("there", [*IN_THE_WAY, Path.mkdir])
def test_nothing_is_replaced_unasked(tmp_path: Path, way: str, there: Callable[[Path], None]) -> None:
    there(tmp_path / "f")
    before = seen(tmp_path)
    with LocalTree(tmp_path) as local:
        with pytest.raises(ConflictError, match="already there") as raised:
            local.write(ENTRY._replace(path="f"), [CONTENT])
        with pytest.raises(ConflictError):
            local.make_link("f", "elsewhere")
    assert raised.value.offered.path == "f"
    assert seen(tmp_path) == before


@pytest.mark.parametrize("there", IN_THE_WAY)
def test_what_is_in_the_way_is_replaced_if_asked(
    tmp_path: Path, way: str, there: Callable[[Path], None]
) -> None:
    """A link itself, not what it points to."""
    there(tmp_path / "f")
    there(tmp_path / "l") if there is not _link else (tmp_path / "l").symlink_to("end")
    before = [item for item in seen(tmp_path) if item[0] == "end"]
    with LocalTree(tmp_path) as local:
        assert local.write(ENTRY._replace(path="f"), [CONTENT], replace=True) is True
        assert local.make_link("l", "elsewhere", replace=True) is True
        assert local.make_link("l", "elsewhere", replace=True) is False
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert not (tmp_path / "f").is_symlink()
    assert os.readlink(tmp_path / "l") == "elsewhere"
    assert [item for item in seen(tmp_path) if item[0] == "end"] == before
    assert {item[0] for item in seen(tmp_path)} <= {"f", "l", "end"}


def test_a_folder_is_never_replaced(tmp_path: Path, way: str) -> None:
    (tmp_path / "f").mkdir()
    with LocalTree(tmp_path) as local:
        with pytest.raises(ConflictError, match="a folder"):
            local.write(ENTRY._replace(path="f"), [CONTENT], replace=True)
        with pytest.raises(ConflictError):
            local.make_link("f", "elsewhere", replace=True)
    assert seen(tmp_path) == [("f", "d", (tmp_path / "f").stat().st_mode & 0o777, 0, 0, "", "")]


@pytest.mark.parametrize("there", IN_THE_WAY)
def test_folders_are_made_where_nothing_else_is(tmp_path: Path, there: Callable[[Path], None]) -> None:
    there(tmp_path / "f")
    before = seen(tmp_path)
    with LocalTree(tmp_path) as local:
        for path in ("f", "f/below"):
            with pytest.raises(ConflictError):
                local.make_folder(path)
        with pytest.raises(ConflictError):
            local.set_mode("f", 0o700)
        with pytest.raises(ConflictError):
            local.write(ENTRY._replace(path="f/g"), [CONTENT], replace=True)
        local.make_folder("x/y")
        local.make_folder("x/y")
    assert (tmp_path / "x/y").is_dir()
    assert [item for item in seen(tmp_path) if item[0][0] != "x"] == before


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("content", [CONTENT, CONTENT[::-1]], ids=["same", "other"])
def test_two_write_one_file(tmp_path: Path, way: str, replace: bool, content: bytes) -> None:
    entry = ENTRY._replace(path="f")
    with LocalTree(tmp_path) as local, LocalTree(tmp_path) as faster:

        def chunks() -> Iterator[bytes]:
            faster.write(file_entry("f", content), [content])
            yield CONTENT

        if content != CONTENT and not replace:
            with pytest.raises(ConflictError):
                local.write(entry, chunks())
        else:
            assert local.write(entry, chunks(), replace=replace) is (content != CONTENT)
    assert (tmp_path / "f").read_bytes() == (CONTENT if replace else content)
    assert os.listdir(tmp_path) == ["f"]


def test_many_threads_write_into_the_same_folders(tmp_path: Path, way: str) -> None:
    entries = [file_entry(f"{number % 7}/{number % 3}/{number}", b"%d" % number) for number in range(400)]
    with LocalTree(tmp_path) as local, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda entry: local.write(entry, [entry.path.rpartition("/")[2].encode()]), entries))
    files = {item[0]: item[6] for item in seen(tmp_path) if item[1] == "f"}
    assert files == {entry.path: entry.digest for entry in entries}


def test_a_folder_that_is_removed_meanwhile(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writing._is_there

    def is_there(*arguments: Any) -> bool:
        found = real(*arguments)
        (tmp_path / "a/b").rmdir()
        return found

    monkeypatch.setattr(writing, "_is_there", is_there)
    with LocalTree(tmp_path) as local, pytest.raises(ConflictError, match="changing the folder"):
        local.write(ENTRY, [CONTENT])
    assert os.listdir(tmp_path / "a") == []


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a name can be given only by replacing what has it, so that has to be allowed."""

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(newfile, "_NAMELESS", 0)
    monkeypatch.setattr(os, "link", refused)
    with LocalTree(tmp_path) as local:
        with pytest.raises(AccessError, match="no hard links"):
            local.write(ENTRY, [CONTENT])
        assert os.listdir(tmp_path / "a/b") == []
        assert local.write(ENTRY, [CONTENT], replace=True) is True
    assert os.listdir(tmp_path / "a/b") == ["f"]


def _kill_in_the_middle(root: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield CONTENT[:3]
        os.kill(os.getpid(), signal.SIGKILL)

    in_child(lambda: LocalTree(root).write(ENTRY, chunks()))


def test_a_killed_restore_leaves_nothing_that_counts(tmp_path: Path, way: str) -> None:
    _kill_in_the_middle(tmp_path)
    with LocalTree(tmp_path) as local:
        scanned = local.scan()
        assert [entry.path for entry in scanned.entries] == ["a", "a/b"]
        assert all(local.clear_leftover(path) for path, _ in scanned.left_out)
        assert len(scanned.left_out) == (way == "named" or not newfile._NAMELESS)
        assert os.listdir(tmp_path / "a/b") == []
        assert local.write(ENTRY, [CONTENT]) is True


def test_what_is_being_written_is_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newfile, "_NAMELESS", 0)
    with LocalTree(tmp_path) as local, LocalTree(tmp_path) as other:

        def chunks() -> Iterator[bytes]:
            [(path, _)] = other.scan().left_out
            assert other.clear_leftover(path) is False
            yield CONTENT

        assert local.write(ENTRY, chunks()) is True


def test_what_is_no_leftover_is_not_cleared(tmp_path: Path) -> None:
    for name in ("f", ".mltrack-x.part", ".mltrack-0123456789abcdef.part2"):
        put(tmp_path / name, MadeFile(b"", 0o644, 0))
    (tmp_path / ".mltrack-trash-").mkdir()
    before = seen(tmp_path)
    with LocalTree(tmp_path) as local:
        for item in [*before, (".mltrack-0123456789abcdef.part",)]:
            assert local.clear_leftover(item[0]) is False
    assert seen(tmp_path) == before


def test_writing_may_be_denied() -> None:
    with for_everybody() as folder:
        (folder / "closed").mkdir()
        put(folder / "closed" / "f", MadeFile(CONTENT, 0, 0))
        (folder / "closed").chmod(0o555)
        for call in (
            lambda local: local.write(file_entry("closed/new", b""), []),
            lambda local: local.write(file_entry("closed/f", CONTENT), []),
            lambda local: local.make_link("closed/l", "x"),
            lambda local: local.make_folder("closed/d"),
        ):
            with pytest.raises(AccessError, match="closed"):
                unprivileged(lambda call=call: call(LocalTree(folder)))


def test_an_unreadable_file_is_replaced_if_asked() -> None:
    with for_everybody() as folder:

        def write() -> bool:
            with LocalTree(folder) as local:
                local.write(file_entry("f", CONTENT, mode=0), [CONTENT])
                return local.write(file_entry("f", CONTENT, mode=0o644), [CONTENT], replace=True)

        assert unprivileged(write) is True
        assert (folder / "f").read_bytes() == CONTENT


@pytest.mark.parametrize("name", [b"n" * 256, b"\xff" * 300])
def test_a_name_may_be_too_long(tmp_path: Path, name: bytes) -> None:
    path = os.fsdecode(name)
    with LocalTree(tmp_path) as local:
        for call in (
            lambda: local.write(file_entry(path, b""), []),
            lambda: local.make_link(path, "x"),
            lambda: local.make_folder(path),
        ):
            with pytest.raises(InvalidInputError, match="length"):
                call()


@pytest.mark.parametrize("target", ["", "a\0b"])
def test_targets_that_no_link_has(tmp_path: Path, target: str) -> None:
    with LocalTree(tmp_path) as local, pytest.raises(InvalidInputError, match="target"):
        local.make_link("l", target)
