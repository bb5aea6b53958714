"""The directory store keeps what it said was written, and stays inside its root."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.errors import AccessError, IntegrityError, InvalidInputError, MLTrackError, TransientError
from mltrack_tasks.stores import open_directory
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.directory import DirectoryStore


class Calls:
    """The order of the system calls that make a write last, by the path that each is about."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.log = root, list[str]()
        monkeypatch.setattr("os.fsync", self._wrap("fsync", os.fsync, self._of_descriptor))
        monkeypatch.setattr("os.link", self._wrap("link", os.link, lambda source, target: self._name(target)))
        monkeypatch.setattr("os.replace", self._wrap("rename", os.replace, lambda s, t: self._name(t)))
        monkeypatch.setattr("os.mkdir", self._wrap("mkdir", os.mkdir, lambda path, *mode: self._name(path)))

    def _wrap(self, name: str, call: Callable[..., Any], of: Callable[..., str]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            about = of(*arguments)
            result = call(*arguments, **options)
            self.log.append(f"{name} {about}")
            return result

        return wrapped

    def _of_descriptor(self, descriptor: int) -> str:
        wanted = os.fstat(descriptor)
        for path in [self.root.parent.parent, self.root.parent, self.root, *self.root.rglob("*")]:
            if os.path.samestat(path.lstat(), wanted):
                return self._name(path)
        return "gone"

    def _name(self, path: str | os.PathLike[str]) -> str:
        relative = os.path.relpath(path, self.root)
        return "temporary" if relative.startswith(".tmp/") else relative


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_new_object_is_durable_before_create_returns(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(root, monkeypatch)
    DirectoryStore(root).create("a/b/k", b"x")
    assert calls.log == [
        *("fsync ../..", "mkdir .", "fsync ..", "mkdir .tmp"),
        "fsync temporary",
        *("fsync ..", "mkdir a", "fsync .", "mkdir a/b", "fsync a"),
        *("link a/b/k", "fsync a/b"),
    ]


def test_a_name_that_another_made_is_made_durable_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its maker may have died, or not have come to its own fsync: present must mean present after a crash."""
    store = DirectoryStore(root)
    store.create("a/k", b"x")
    calls = Calls(root, monkeypatch)
    store.create("a/l", b"x")
    assert [call for call in calls.log if "tmp" not in call] == [
        *("fsync temporary", "fsync .", "link a/l", "fsync a"),
    ]
    calls.log.clear()
    assert store.create("a/l", b"y") is False
    assert calls.log[-1] == "fsync a"


def test_replacing_and_uploading_are_durable_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(root)
    store.create("a/k", b"x")
    stat = store.head("a/k")
    assert stat is not None
    assert stat.etag
    calls = Calls(root, monkeypatch)
    assert store.replace("a/k", b"new", stat.etag)
    assert [call for call in calls.log if "tmp" not in call] == ["fsync temporary", "rename a/k", "fsync a"]
    calls.log.clear()
    with store.upload("a/u", 1) as upload:
        upload.part(1, b"x", b"")
        assert not [call for call in calls.log if "tmp" not in call]
        assert upload.complete()
    assert calls.log[-3:] == ["fsync .", "link a/u", "fsync a"]


def test_a_copy_is_durable_and_shares_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(root)
    store.create("a/k", b"x")
    calls = Calls(root, monkeypatch)
    store.copy("a/k", "b/c", 1)
    assert [call for call in calls.log if "tmp" not in call] == [
        *("fsync temporary", "fsync ..", "mkdir b", "fsync .", "rename b/c", "fsync b"),
    ]
    assert [(root / key).stat().st_nlink for key in ("a/k", "b/c")] == [1, 1]
    assert (root / "a/k").stat().st_ino != (root / "b/c").stat().st_ino
    assert [path.name for path in (root / ".tmp").iterdir()] == ["lock"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_copy_that_fails_leaves_the_target(
    number: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(root)
    store.create("k", b"new")
    store.create("t", b"old")
    (root / "folder").mkdir()

    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    for call in ("pwrite", "fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(f"os.{call}", fail)
            with pytest.raises(AccessError, match=f"{root}/t"):
                store.copy("k", "t", 3)
    for target in ("folder", "t/below"):
        with pytest.raises(InvalidInputError, match=target):
            store.copy("k", target, 3)
    assert store.get("t") == b"old"
    assert [path.name for path in (root / ".tmp").iterdir()] == ["lock"]


@pytest.mark.parametrize("moment", ["fsync", "link", "pwrite"])
def test_a_process_that_dies_leaves_no_object(root: Path, moment: str) -> None:
    code = (
        "import os, sys\n"
        "from mltrack_tasks.stores.directory import DirectoryStore\n"
        "store = DirectoryStore(sys.argv[1])\n"
        "store.create('a/before', b'x')\n"
        f"os.{moment} = lambda *arguments: os._exit(9)\n"
        "store.create('a/k', b'x' * 1000)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(root)], cwd=Path(__file__).parents[2], check=False)
    assert died.returncode == 9
    store = DirectoryStore(root)
    assert [stat.key for stat in store.list("")] == ["a/before"]
    assert store.head("a/k") is None
    [left] = (root / ".tmp").iterdir()
    assert left.is_file()
    assert store.create("a/k", b"whole")
    assert store.get("a/k") == b"whole"


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, AccessError, "disk or quota is full"),
        (errno.EDQUOT, AccessError, "disk or quota is full"),
        (errno.EACCES, AccessError, "Grant this user access"),
        (errno.EROFS, AccessError, "Grant this user access"),
        (errno.EIO, TransientError, "check the disk"),
    ],
)
def test_a_disk_that_fails_is_a_typed_error_and_leaves_nothing(
    number: int, kind: type[MLTrackError], advice: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(root)
    store.create("a", b"")

    def fail(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    for call in ("pwrite", "fsync", "link"):
        with monkeypatch.context() as patched:
            patched.setattr(f"os.{call}", fail)
            with pytest.raises(kind, match=advice) as raised:
                store.create("k", b"x")
            assert str(root) in str(raised.value)
    assert [path.name for path in root.rglob("*")] in (["a", ".tmp"], [".tmp", "a"])
    assert list((root / ".tmp").iterdir()) == []


def test_short_writes_are_continued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda fd, body, offset: write(fd, body[:7], offset))
    store = DirectoryStore(root)
    body = bytes(range(200))
    store.create("k", body)
    assert store.get("k") == body


READS: dict[str, Callable[[Store, str], object]] = {
    "get": lambda store, key: store.get(key),
    "get_range": lambda store, key: store.get_range(key, 0, 1),
    "head": lambda store, key: store.head(key),
    "create": lambda store, key: store.create(key, b"x"),
    "replace": lambda store, key: store.replace(key, b"x", "e"),
    "upload": lambda store, key: store.upload(key, 1),
    "copy from": lambda store, key: store.copy(key, "new", 1),
    "copy to": lambda store, key: store.copy("a/k", key, 0),
    "level": lambda store, key: store.level(f"{key}/"),
    "delete": lambda store, key: store.delete([key]),
}


@pytest.mark.parametrize("verb", READS)
def test_symbolic_links_are_not_followed(root: Path, tmp_path: Path, verb: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store = DirectoryStore(root)
    store.create("a/k", b"")
    (root / "folder").symlink_to(outside)
    (root / "a" / "file").symlink_to(outside / "secret")
    (root / "a" / "nowhere").symlink_to(outside / "new")
    (root / "inside").symlink_to(root / "a")
    for key in ("folder/secret", "folder/new", "a/file", "a/nowhere", "inside/k"):
        with pytest.raises(IntegrityError, match="symbolic link"):
            READS[verb](store, key)
    assert [stat.key for stat in store.list("")] == ["a/k"]
    assert store.level("") == ([], ["a"])
    assert [stat.key for stat in store.level("a/")[0]] == ["a/k"]
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    store = DirectoryStore(tmp_path / "link")
    assert store.create("a/k", b"x")
    assert (root / "a" / "k").read_bytes() == b"x"
    assert store.get("a/k") == b"x"


def test_a_relative_path_stays_where_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    monkeypatch.chdir(root.parent)
    store = open_directory("store")
    monkeypatch.chdir(root)
    store.create("k", b"x")
    assert (root / "k").read_bytes() == b"x"
    assert store.location == str(root)


def test_copies_are_copies(root: Path, tmp_path: Path) -> None:
    """What the store keeps shares no inode with any file of the user's."""
    from mltrack_tasks.content import retrieve_file, store_file

    (tmp_path / "mine").write_bytes(b"mine")
    store = open_directory(root)
    ref = store_file(store, tmp_path / "mine")
    out = retrieve_file(store, ref, tmp_path / "out")
    for path in (tmp_path / "mine", out, root / ref.storage_path):
        assert path.stat().st_nlink == 1
    out.write_bytes(b"changed")
    assert store.get(ref.storage_path) == b"mine"


def test_names_that_are_not_utf8_do_not_break_a_listing(root: Path) -> None:
    store = DirectoryStore(root)
    store.create("names/k", b"")
    with open(os.fsencode(root / "names") + b"/\xff", "wb"):
        pass
    assert "names/k" in [stat.key for stat in store.list("")]


def test_a_name_that_the_file_system_refuses_is_bad_input(root: Path) -> None:
    store = DirectoryStore(root)
    with pytest.raises(InvalidInputError, match="names of this length"):
        store.create("x" * 300, b"")


def test_a_file_where_a_folder_should_be_is_a_typed_error(root: Path) -> None:
    store = DirectoryStore(root)
    store.create("a", b"")
    with pytest.raises(MLTrackError, match="a/k"):
        store.create("a/k", b"")
    assert store.head("a/k") is None
    store.delete(["a/k"])
    assert list(store.list("a/")) == []
