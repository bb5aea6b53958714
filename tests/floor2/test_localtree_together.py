"""Many files at once: the same answers as one by one, whatever happens to a folder meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mltrack_tasks.errors import AccessError, MLTrackError, SourceChangedError
from mltrack_tasks.filetree import Entry
from mltrack_tasks.localtree import LocalTree, together
from tests.floor2.localtrees import SECOND, MadeFile, for_everybody, put, unprivileged
from tests.floor2.test_localtree_read import CHANGES

FOLDERS = ("", "a", "a/b", "a/c", "z")


def fill(root: Path, each: int) -> None:
    """Put so many files into each of FOLDERS; no two hold the same bytes."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            content = f"{folder}/{number}".encode().rjust(11)
            put(root / folder / f"f{number}", MadeFile(content, 0o644, SECOND))


def files_of(local: LocalTree) -> list[Entry]:
    """All files, as a scan finds them."""
    return [entry for entry in local.scan().entries if entry.kind == "f"]


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Keep what a call of the system is asked for."""
    real, asked = getattr(os, name), list[Any]()

    def call(*given: Any, **named: Any) -> Any:
        asked.append(given[0])
        return real(*given, **named)

    monkeypatch.setattr(os, name, call)
    return asked


@pytest.mark.parametrize("order", ["of paths", "any"])
def test_the_same_as_one_by_one(tmp_path: Path, order: str) -> None:
    fill(tmp_path, 5)
    with LocalTree(tmp_path) as local:
        entries = files_of(local)
        if order == "any":
            Random(1).shuffle(entries)
        assert list(local.read_all(entries)) == [local.read(entry) for entry in entries]
        assert local.find_changed(entries) is None


@pytest.mark.parametrize("change", [*CHANGES, Path.unlink])
def test_one_file_that_changed(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """It is named; all others are read, and found to be as they were."""
    fill(tmp_path, 3)
    with LocalTree(tmp_path) as local:
        entries = files_of(local)
        bodies = list(local.read_all(entries))
        [victim] = [number for number, entry in enumerate(entries) if entry.path == "a/b/f1"]
        change(tmp_path / "a/b/f1")
        answers = list(local.read_all(entries))
        assert local.find_changed(entries) == entries[victim]
        assert local.find_changed([*entries[:victim], *entries[victim + 1 :]]) is None
    error = answers.pop(victim)
    assert isinstance(error, SourceChangedError)
    assert error.details == {"path": "a/b/f1"}
    assert answers == [*bodies[:victim], *bodies[victim + 1 :]]


@pytest.mark.parametrize("field", ["mode", "size", "mtime_ns", "inode", "ctime_ns"])
def test_all_that_tells_of_a_change_is_looked_at(tmp_path: Path, field: str) -> None:
    fill(tmp_path, 2)
    with LocalTree(tmp_path) as local:
        one, other, *_ = files_of(local)
        odd = other._replace(**{field: getattr(other, field) + 1})
        assert local.find_changed([one, odd]) == odd


def test_a_file_that_changes_while_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the second of a folder is read, the first one changes: its bytes are those of a moment ago."""
    fill(tmp_path, 3)
    asked = counted(monkeypatch, "read")
    real = os.read

    def read(descriptor: int, size: int) -> bytes:
        if len(asked) == 1:
            (tmp_path / "a/f1").write_bytes(b"another one")
        return real(descriptor, size)

    with LocalTree(tmp_path) as local:
        entries = [entry for entry in files_of(local) if entry.path.startswith("a/f")]
        monkeypatch.setattr(os, "read", read)
        first, second, third = local.read_all(entries)
    assert (first, third) == (b"        a/0", b"        a/2")
    assert isinstance(second, SourceChangedError)


@pytest.mark.parametrize("moment", [0, 1, 2])
def test_a_folder_that_is_swapped_while_its_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Nothing is taken from the folder that the link leads to, nor from the one that was there."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill(root, 3)
    fill(outside, 3)
    asked = counted(monkeypatch, "read")
    real = os.read

    def read(descriptor: int, size: int) -> bytes:
        if len(asked) == moment:
            (root / "a").rename(root / "moved")
            (root / "a").symlink_to(outside / "a")
        return real(descriptor, size)

    with LocalTree(root) as local:
        entries = [entry._replace(inode=0) for entry in files_of(local)]
        monkeypatch.setattr(os, "read", read)
        chosen = [entry for entry in entries if entry.path.startswith("a/f")]
        answers = list(local.read_all(chosen))
        assert all(isinstance(answer, SourceChangedError) for answer in answers)
        assert local.find_changed(chosen) == chosen[0]


def test_what_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    with for_everybody() as folder:
        put(folder / "f", MadeFile(b"x", 0o644, SECOND))
        put(folder / "g", MadeFile(b"", 0, SECOND))
        (folder / "closed").mkdir(mode=0)

        def look() -> tuple[bytes | MLTrackError, ...]:
            with LocalTree(folder) as local:
                answers = local.read_all([*files_of(local), Entry("closed/f", "f")])
                with pytest.raises(AccessError, match="Permission denied"):
                    local.find_changed([*files_of(local), Entry("closed/f", "f")])
                return tuple(answers)

        first, *denied = unprivileged(look)
    assert first == b"x"
    assert [type(error) for error in denied] == [AccessError, AccessError]


def test_little_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(together.AT_ONCE + 10):
        put(tmp_path / f"{number:04}", MadeFile(b"", 0o644, SECOND))
    for name in "abcd":
        put(tmp_path / name, MadeFile(b"x", 0o644, SECOND, hole=together.BYTES_AT_ONCE // 2 - 1))
    with LocalTree(tmp_path) as local:
        entries = files_of(local)
        asked = counted(monkeypatch, "read")
        next(local.read_all(entries))
        assert len(asked) == together.AT_ONCE
        asked.clear()
        next(local.read_all(entries[-4:]))
        assert len(asked) == 2


def test_guards_are_paid_by_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, 50)
    with LocalTree(tmp_path) as local:
        entries = files_of(local)
        local.close()
        opened, looked = counted(monkeypatch, "open"), counted(monkeypatch, "stat")
        assert len(list(local.read_all(entries))) == 50 * len(FOLDERS)
        assert len(opened) <= len(entries) + len(FOLDERS)
        assert len(looked) <= len(FOLDERS)
