"""Scanning a tree: everything is listed or left out with a reason, and nothing outside is looked at."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from mltrack_tasks.errors import AccessError, InvalidInputError, TransientError
from mltrack_tasks.events import PROGRESS, Event
from mltrack_tasks.localtree import LocalTree, folders, scanning
from tests.floor2.localtrees import (
    SECOND,
    MadeFile,
    for_everybody,
    in_child,
    make,
    make_socket,
    put,
    seen,
    trees,
    unprivileged,
)


@given(tree=trees)
def test_a_scan_lists_the_tree(tmp_path: Path, tree: dict[bytes, Any]) -> None:
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    make(os.fsencode(root), tree)
    with LocalTree(root) as local:
        scanned = local.scan()
        looked = [local.stat(entry.path) for entry in scanned.entries]
    told = seen(root)
    assert [entry[:6] for entry in scanned.entries] == [item[:6] for item in told if item[1] != "other"]
    assert [path for path, _ in scanned.left_out] == [item[0] for item in told if item[1] == "other"]
    assert looked == scanned.entries


def test_what_tells_a_file_is_told_of_files_only(tmp_path: Path) -> None:
    put(tmp_path / "f", MadeFile(b"abc", 0o640, 5 * SECOND + 7))
    (tmp_path / "l").symlink_to("f")
    (tmp_path / "d").mkdir()
    status = (tmp_path / "f").stat()
    with LocalTree(tmp_path) as local:
        folder, file, link = local.scan().entries
    assert file[2:5] == (0o640, 3, 5 * SECOND + 7)
    assert (file.inode, file.ctime_ns) == (status.st_ino, status.st_ctime_ns)
    assert folder[2:] == (folder.mode, 0, 0, "", "", 0, 0)
    assert link[2:] == (0, 0, 0, "f", "", 0, 0)


def test_special_bits_are_not_kept(tmp_path: Path) -> None:
    put(tmp_path / "f", MadeFile(b"", 0o4755, 0))
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o1777)
    with LocalTree(tmp_path) as local:
        assert [entry.mode for entry in local.scan().entries] == [0o777, 0o755]


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "out").symlink_to(outside)
    (root / "loop").symlink_to(".")
    (root / "self").symlink_to("self")
    with LocalTree(root) as local:
        assert [entry.path for entry in local.scan().entries] == ["loop", "out", "self"]
        assert local.stat("out/secret") is None


def test_pipes_and_sockets_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    make_socket(tmp_path / "socket")
    with LocalTree(tmp_path) as local:
        scanned = local.scan()
        assert [path for path, _ in scanned.left_out] == ["pipe", "socket"]
        assert all("pipe, socket or device" in reason for _, reason in scanned.left_out)
        assert not scanned.entries
        with pytest.raises(InvalidInputError, match=r"/pipe' is neither a file"):
            local.stat("pipe")


def test_order_is_that_of_the_bytes(tmp_path: Path) -> None:
    for name in [b"a", b"a.b", b"a-b", b"\xef\xbf\xbf", b"\xff", b"\xf0\x9f\x98\x80", b"Z", b"a/c"]:
        path = os.path.join(os.fsencode(tmp_path), name)
        if name == b"a":
            os.mkdir(path)
        else:
            put(path, MadeFile(b"", 0o644, 0))
    with LocalTree(tmp_path) as local:
        paths = [os.fsencode(entry.path) for entry in local.scan().entries]
    assert paths == sorted(paths)
    assert len(paths) == 8


def test_no_depth_is_too_deep(tmp_path: Path) -> None:
    """Deeper than Python recurses, and with paths longer than the system takes in one call."""
    depth, here = 1200, os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("end", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        with LocalTree(tmp_path) as local:
            scanned = local.scan()
            assert len(scanned.entries) == depth + 1
            assert not scanned.left_out
            assert len(os.fsencode(scanned.entries[-1].path)) > 4096
            assert local.read(scanned.entries[-1]) == b""
    finally:
        subprocess.run(["rm", "-r", "--", tmp_path / "deeper"], check=True)  # pytest would recurse


def test_what_vanishes_or_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gone", "link", "kept"):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "f", MadeFile(b"", 0o644, 0))
    real = scanning._scan_folder

    def meddle(at: folders.Folders, path: str, *rest: Any) -> None:
        real(at, path, *rest)
        if not path:
            for name in ("gone", "link"):
                (tmp_path / name / "f").unlink()
                (tmp_path / name).rmdir()
            (tmp_path / "link").symlink_to("kept")

    monkeypatch.setattr(scanning, "_scan_folder", meddle)
    with LocalTree(tmp_path) as local:
        scanned = local.scan()
    assert [entry.path for entry in scanned.entries] == ["gone", "kept", "kept/f", "link"]
    assert scanned.left_out == [("link", "changed while it was scanned")]


def test_a_second_scan_sees_a_folder_that_was_made_anew(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with LocalTree(tmp_path) as local:
        local.scan()
        (tmp_path / "a").rename(tmp_path / "old")
        (tmp_path / "a").mkdir()
        put(tmp_path / "a" / "new", MadeFile(b"new", 0o644, 0))
        scanned = local.scan()
        assert [entry.path for entry in scanned.entries] == ["a", "a/new", "old", "old/b"]
        assert local.read(scanned.entries[1]) == b"new"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".mltrack-trash-0123456789abcdef", "interrupted deletion"),
        (".mltrack-0123456789abcdef.part", "interrupted restore"),
    ],
)
def test_leftovers_are_left_out(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "d" / name).mkdir(parents=True)
    put(tmp_path / "d" / name / "f", MadeFile(b"x", 0o644, 0))
    put(tmp_path / f"{name}x", MadeFile(b"x", 0o644, 0))
    with LocalTree(tmp_path) as local:
        scanned = local.scan()
    assert [entry.path for entry in scanned.entries] == [f"{name}x", "d"]
    [(path, reason)] = scanned.left_out
    assert path == f"d/{name}"
    assert why in reason


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "REPORT_EVERY", 3)
    for name in "abcdefgh":
        (tmp_path / name).mkdir()
        put(tmp_path / name / "f", MadeFile(b"", 0o644, 0))
    told: list[Event] = []
    with LocalTree(tmp_path) as local:
        local.scan(observe=told.append)
    assert {event.name for event in told} == {PROGRESS}
    assert [event.details["done"] for event in told] == [8, 11, 14]
    assert all(event.details["total"] is None and event.details["unit"] == "files" for event in told)


def test_what_may_not_be_read_is_left_out() -> None:
    with for_everybody() as folder:
        _check_what_may_not_be_read(folder)


def _check_what_may_not_be_read(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0)
    (folder / "unsearchable").mkdir()
    put(folder / "unsearchable" / "f", MadeFile(b"", 0o644, 0))
    (folder / "unsearchable").chmod(0o444)

    def scan() -> tuple[list[str], list[tuple[str, str]]]:
        with LocalTree(folder) as local:
            scanned = local.scan()
        return [entry.path for entry in scanned.entries], scanned.left_out

    paths, left_out = unprivileged(scan)
    assert paths == ["closed", "unsearchable"]
    denied = "cannot be read: Permission denied"
    assert left_out == [("closed", denied), ("unsearchable/f", denied)]


def test_too_many_open_files_is_not_the_tree_s_fault(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)

    def scan() -> None:
        with LocalTree(tmp_path) as local:
            highest = max(int(name) for name in os.listdir("/dev/fd"))
            while (free := os.dup(0)) <= highest:  # numbers that earlier tests gave back count as free
                pass
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))
            local.scan()

    with pytest.raises(TransientError, match="Too many open files"):
        in_child(scan)


def test_a_root_is_a_folder_that_can_be_read() -> None:
    with for_everybody() as folder:
        _check_roots(folder)


def _check_roots(folder: Path) -> None:
    put(folder / "file", MadeFile(b"", 0o644, 0))
    (folder / "loop").symlink_to("loop")
    (folder / "closed").mkdir(mode=0)
    for bad in ("missing", "file", "loop", "file/below"):
        with pytest.raises(InvalidInputError, match=bad):
            LocalTree(folder / bad)
    with pytest.raises(AccessError, match="closed"):
        unprivileged(lambda: LocalTree(folder / "closed") and None)


def test_a_root_may_be_given_by_a_link_or_relatively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    put(tmp_path / "real" / "f", MadeFile(b"", 0o644, 0))
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for given_root in (tmp_path / "link", "link", "./real", str(tmp_path / "link" / ".")):
        with LocalTree(given_root) as local:
            assert local.root == (tmp_path / "real").resolve()
            assert [entry.path for entry in local.scan().entries] == ["f"]


def test_descriptors_are_few_and_given_back(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number}").mkdir()
        put(tmp_path / f"{number}" / "f", MadeFile(b"%d" % number, 0o644, 0))
    gc.collect()  # what other tests left open would be closed in the middle
    before = len(os.listdir("/dev/fd"))
    with LocalTree(tmp_path) as local:
        entries = [entry for entry in local.scan().entries if entry.kind == "f"]
        with ThreadPoolExecutor(8) as pool:
            bodies = list(pool.map(local.read, entries * 5))
        assert bodies == [entry.path.partition("/")[0].encode() for entry in entries] * 5
        assert len(os.listdir("/dev/fd")) <= before + folders.KEPT + 1
    del local
    assert len(os.listdir("/dev/fd")) == before
