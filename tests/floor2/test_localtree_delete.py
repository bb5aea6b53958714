"""Deleting what was migrated: only the very bytes that were stored, and nothing is ever replaced."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import AccessError, InvalidInputError
from mltrack_tasks.filetree import Entry
from mltrack_tasks.localtree import LocalTree, deleting
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

CONTENT = b"what was stored"
ENTRY = file_entry("d/f", CONTENT)
CHANGED = "changed since it was stored"


@pytest.fixture
def local(tmp_path: Path) -> LocalTree:
    """A tree with one file, ``d/f``."""
    (tmp_path / "d").mkdir()
    put(tmp_path / "d" / "f", MadeFile(CONTENT, 0o400, SECOND))
    return LocalTree(tmp_path)


def during(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen while a file that is being deleted lies aside and is read."""
    real = deleting.hash_open

    def hash_open(descriptor: int) -> tuple[int, str] | None:
        happens()
        return real(descriptor)

    monkeypatch.setattr(deleting, "hash_open", hash_open)


@given(tree=trees)
def test_a_tree_is_deleted_to_its_last_folder(tmp_path: Path, tree: dict[bytes, Any]) -> None:
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    make(os.fsencode(root), tree)
    with LocalTree(root) as local:
        entries = local.scan().entries
        for entry in entries:
            if entry.kind == "d":
                local.set_mode(entry.path, 0o700)
        digests = {e.path: sha256_hex(local.read(e)) if e.kind == "f" else "" for e in entries}
        gone = [entry.path for entry in entries if entry.kind != "d"]
        assert not any(
            local.delete(entry._replace(digest=digests[entry.path])) for entry in entries if entry.kind != "d"
        )
        for entry in reversed(entries):
            if entry.kind == "d" and local.remove_empty_folder(entry.path):
                gone.append(entry.path)
    left = seen(root)
    pipes = [os.fsencode(item[0]) for item in left if item[1] == "other"]
    assert all(
        any(pipe.startswith(os.fsencode(item[0]) + b"/") for pipe in pipes)
        for item in left
        if item[1] != "other"
    )
    assert sorted([*gone, *(item[0] for item in left if item[1] == "d")]) == sorted(e.path for e in entries)


def test_mode_and_time_are_not_looked_at(local: LocalTree) -> None:
    assert local.delete(ENTRY._replace(mode=0o777, mtime_ns=5)) is None
    assert os.listdir(local.root / "d") == []


def _append(path: Path) -> None:
    path.chmod(0o600)
    with path.open("ab") as file:
        file.write(b"more")


def _other_bytes(path: Path) -> None:
    path.unlink()
    put(path, MadeFile(CONTENT[::-1], 0o644, SECOND))


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def _link_to_the_same(path: Path) -> None:
    path.rename(path.with_name("same"))
    path.symlink_to("same")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CHANGES = [_append, _other_bytes, _link, _link_to_the_same, _folder, _pipe]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_since_stays(local: LocalTree, change: Callable[[Path], None]) -> None:
    change(local.root / "d/f")
    before, inode = seen(local.root), os.lstat(local.root / "d/f").st_ino
    assert local.delete(ENTRY) == CHANGED
    assert seen(local.root) == before
    assert os.lstat(local.root / "d/f").st_ino == inode


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_look_and_move_is_put_back(
    local: LocalTree,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    change: Callable[[Path], None],
) -> None:
    real = os.mkdir

    def mkdir(*arguments: Any, **options: Any) -> None:
        monkeypatch.undo()
        real(*arguments, **options)
        change(local.root / "d/f")

    monkeypatch.setattr(os, "mkdir", mkdir)
    why = local.delete(ENTRY)
    assert why is not None
    assert not any("trash" in item[0] for item in seen(local.root))
    expected = tmp_path_factory.mktemp("expected")
    put(expected / "f", MadeFile(CONTENT, 0o400, SECOND))
    change(expected / "f")
    assert [item[:2] for item in seen(local.root / "d")] == [item[:2] for item in seen(expected)]


def test_what_is_written_while_it_is_read_stays(local: LocalTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """By way of another name; its own leads nowhere then."""
    (local.root / "d/f").chmod(0o600)
    os.link(local.root / "d/f", local.root / "twin")
    during(monkeypatch, lambda: _append(local.root / "twin"))
    assert local.delete(ENTRY) == CHANGED
    assert (local.root / "d/f").read_bytes() == CONTENT + b"more"


def test_what_somebody_has_open_for_writing_stays(local: LocalTree) -> None:
    """As the log of a process that is still running: it would go on writing into nothing."""
    file = local.root / "d/f"
    file.chmod(0o600)
    with file.open("ab", buffering=0) as writer:
        why = local.delete(ENTRY)
        writer.write(b"more")
    told = sys.platform == "linux"
    assert why == ("open for writing" if told else None)
    assert file.exists() is told
    with file.open("rb"):
        assert local.delete(file_entry("d/f", CONTENT + b"more")) is None  # readers are no hindrance


def test_what_is_gone(local: LocalTree) -> None:
    for path in ("d/g", "e/f", "d/f/g"):
        why = local.delete(ENTRY._replace(path=path))
        assert why is not None
        assert "gone" in why


def test_a_name_that_was_taken_meanwhile_is_not_replaced(
    local: LocalTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = local.root / "d/f"
    _other_bytes(file)
    during(monkeypatch, lambda: put(file, MadeFile(b"the new one", 0o644, SECOND)))
    why = local.delete(ENTRY)
    assert why is not None
    assert file.read_bytes() == b"the new one"
    [(trash, _)] = local.scan().left_out
    assert f"'{trash}/f'" in why
    assert (local.root / trash / "f").read_bytes() == CONTENT[::-1]

    assert local.clear_leftover(trash) is False
    assert file.read_bytes() == b"the new one"
    file.unlink()
    assert local.clear_leftover(trash) is True
    assert file.read_bytes() == CONTENT[::-1]
    assert os.listdir(local.root / "d") == ["f"]


def test_a_name_that_was_taken_meanwhile_does_not_keep_the_stored_file(
    local: LocalTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = local.root / "d/f"
    during(monkeypatch, lambda: put(file, MadeFile(b"the new one", 0o644, SECOND)))
    assert local.delete(ENTRY) is None
    assert file.read_bytes() == b"the new one"
    assert os.listdir(local.root / "d") == ["f"]


def test_an_interrupt_puts_it_back(local: LocalTree, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    before = seen(local.root)
    during(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        local.delete(ENTRY)
    assert seen(local.root) == before


@pytest.mark.parametrize("call", ["unlink", "open"])
def test_an_error_puts_it_back(local: LocalTree, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The first call on the file that lies aside fails; those that put it back do not."""
    real = getattr(os, call)

    def fails_once(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "f":
            monkeypatch.undo()
            raise OSError(5, "Input/output error")
        return real(name, *arguments, **options)

    before = seen(local.root)
    monkeypatch.setattr(os, call, fails_once)
    assert local.delete(ENTRY) == "cannot be deleted: Input/output error"
    assert seen(local.root) == before


def test_after_a_kill_the_file_can_be_put_back(local: LocalTree, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(local.root)
    during(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    in_child(lambda: local.delete(ENTRY))
    [(trash, why)] = local.scan().left_out
    assert "interrupted deletion" in why
    assert local.stat("d/f") is None
    assert local.clear_leftover(trash) is True
    assert seen(local.root) == before


def test_a_deletion_that_still_runs_is_no_leftover(local: LocalTree, monkeypatch: pytest.MonkeyPatch) -> None:
    cleared = []

    def clear() -> None:
        with LocalTree(local.root) as other:
            cleared.extend(other.clear_leftover(path) for path, _ in other.scan().left_out)

    during(monkeypatch, clear)
    assert local.delete(ENTRY) is None
    assert cleared == [False]


def test_other_names_of_a_file_stay(local: LocalTree) -> None:
    os.link(local.root / "d/f", local.root / "twin")
    assert local.delete(ENTRY) is None
    assert (local.root / "twin").read_bytes() == CONTENT


def test_links_are_deleted_and_what_they_point_to_is_not(local: LocalTree) -> None:
    (local.root / "l").symlink_to("d/f")
    assert local.delete(Entry("l", "l", target="d/g")) == CHANGED
    assert os.readlink(local.root / "l") == "d/f"
    assert local.delete(Entry("l", "l", target="d/f")) is None
    assert [item[0] for item in seen(local.root)] == ["d", "d/f"]
    assert local.delete(Entry("d/f", "l", target="x")) == CHANGED


def test_only_what_can_be_compared_is_deleted(local: LocalTree) -> None:
    with pytest.raises(InvalidInputError, match="folder"):
        local.delete(Entry("d", "d"))
    with pytest.raises(InvalidInputError, match="digest"):
        local.delete(ENTRY._replace(digest=""))
    assert [item[0] for item in seen(local.root)] == ["d", "d/f"]


def test_only_empty_folders_are_removed(local: LocalTree) -> None:
    (local.root / "empty").mkdir()
    (local.root / "link").symlink_to("empty")
    assert local.remove_empty_folder("d") is False
    assert local.remove_empty_folder("d/f") is False
    assert local.remove_empty_folder("link") is False
    assert local.remove_empty_folder("missing") is False
    assert local.remove_empty_folder("empty") is True
    assert [item[0] for item in seen(local.root)] == ["d", "d/f", "link"]


def test_deleting_may_be_denied() -> None:
    with for_everybody() as folder:
        (folder / "d").mkdir()
        put(folder / "d/f", MadeFile(CONTENT, 0o644, SECOND))
        (folder / "d" / "empty").mkdir()
        (folder / "d").chmod(0o555)
        before = seen(folder)
        why = unprivileged(lambda: LocalTree(folder).delete(ENTRY))
        assert why == "cannot be deleted: Permission denied"
        with pytest.raises(AccessError, match="empty"):
            unprivileged(lambda: LocalTree(folder).remove_empty_folder("d/empty"))
        assert seen(folder) == before
        (folder / "d").chmod(0o755)


def test_an_unreadable_file_is_put_back() -> None:
    with for_everybody() as folder:

        def attempt() -> str | None:
            (folder / "d").mkdir()
            (folder / "d").chmod(0o777)
            put(folder / "d/f", MadeFile(CONTENT, 0, SECOND))
            with LocalTree(folder) as local:
                return local.delete(ENTRY)

        assert unprivileged(attempt) == "cannot be deleted: Permission denied"
        assert os.listdir(folder / "d") == ["f"]
