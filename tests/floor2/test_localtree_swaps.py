"""A folder of the tree becomes a link to somewhere else: nothing there is read, written or deleted."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks.errors import ConflictError, InvalidInputError, MLTrackError, SourceChangedError
from mltrack_tasks.filetree import Entry
from mltrack_tasks.localtree import LocalTree, newfile
from tests.floor2.localtrees import SECOND, MadeFile, file_entry, put, seen

CONTENT = b"in both places"


@dataclass
class Place:
    """A tree that was scanned, with the folder ``a`` in it, and a folder outside that looks just the same."""

    local: LocalTree
    outside: Path
    entry: Entry

    def swap(self) -> None:
        """Put a link to the folder outside into the place of ``a``."""
        (self.local.root / "a").rename(self.local.root / "moved")
        (self.local.root / "a").symlink_to(self.outside)


@pytest.fixture(params=["open before", "not open before"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """The tree before anything happened to it, with its folders held open or not."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "a", outside):
        (folder / "b" / "empty").mkdir(parents=True)
        put(folder / "b" / "f", MadeFile(CONTENT, 0o644, SECOND))
    local = LocalTree(root)
    [entry] = [each for each in local.scan().entries if each.kind == "f"]
    if request.param == "not open before":
        local.close()
    digest = file_entry("", CONTENT).digest
    return Place(local, outside, entry._replace(inode=0, digest=digest))


REFUSED: dict[str, tuple[type[MLTrackError], Callable[[LocalTree, Entry], Any]]] = {
    "read": (SourceChangedError, lambda local, entry: local.read(entry)),
    "open": (SourceChangedError, lambda local, entry: local.open(entry.path)),
    "write": (ConflictError, lambda local, entry: local.write(entry, [CONTENT])),
    "write a new one": (
        ConflictError,
        lambda local, entry: local.write(entry._replace(path="a/b/new"), [CONTENT]),
    ),
    "replace": (ConflictError, lambda local, entry: local.write(entry, [CONTENT], replace=True)),
    "make_link": (ConflictError, lambda local, entry: local.make_link("a/b/l", "x")),
    "replace by a link": (ConflictError, lambda local, entry: local.make_link("a/b/f", "x", replace=True)),
    "make_folder": (ConflictError, lambda local, entry: local.make_folder("a/b/c")),
    "make_folder of the link": (ConflictError, lambda local, entry: local.make_folder("a")),
    "set_mode": (ConflictError, lambda local, entry: local.set_mode("a/b", 0o700)),
    "set_mode of the link": (ConflictError, lambda local, entry: local.set_mode("a", 0o700)),
}


@pytest.mark.parametrize("call", REFUSED)
def test_calls_are_refused(place: Place, call: str) -> None:
    place.swap()
    before, outside = seen(place.local.root), seen(place.outside)
    expected, run = REFUSED[call]
    with pytest.raises(expected):
        run(place.local, place.entry)
    assert seen(place.outside) == outside
    assert seen(place.local.root) == before


def test_nothing_is_there(place: Place) -> None:
    place.swap()
    assert place.local.stat("a/b/f") is None
    assert place.local.find_changed([place.entry]) == place.entry
    [answer] = place.local.read_all([place.entry])
    assert isinstance(answer, SourceChangedError)
    swapped = place.local.stat("a")
    assert swapped is not None
    assert (swapped.kind, swapped.target) == ("l", str(place.outside))
    assert [each.path for each in place.local.scan().entries] == [
        *("a", "moved", "moved/b", "moved/b/empty", "moved/b/f")
    ]


def test_nothing_is_deleted(place: Place) -> None:
    place.swap()
    before, outside = seen(place.local.root), seen(place.outside)
    why = place.local.delete(place.entry)
    assert why is not None
    assert "another" in why
    assert place.local.remove_empty_folder("a/b/empty") is False
    assert place.local.clear_leftover("a/b/.mltrack-0123456789abcdef.part") is False
    assert seen(place.outside) == outside
    assert seen(place.local.root) == before


def test_a_folder_made_anew_is_the_one_that_counts(place: Place) -> None:
    """Not the one that was open: it lies elsewhere now, or nowhere."""
    (place.local.root / "a").rename(place.outside / "taken")
    with pytest.raises(SourceChangedError):
        place.local.read(place.entry)
    assert place.local.write(place.entry, [CONTENT]) is True
    assert place.local.read(place.entry) == CONTENT
    assert place.local.delete(place.entry) is None
    assert (place.outside / "taken/b/f").read_bytes() == CONTENT


@pytest.mark.parametrize("nameless", [True, False])
def test_a_swap_while_a_file_is_written(
    place: Place, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    """It goes into the folder that was opened, or nowhere."""
    if not nameless:
        monkeypatch.setattr(newfile, "_NAMELESS", 0)
    outside = seen(place.outside)

    def chunks() -> Any:
        place.swap()
        yield CONTENT

    assert place.local.write(place.entry._replace(path="a/b/new"), chunks()) is True
    assert seen(place.outside) == outside
    assert sorted(os.listdir(place.local.root / "moved/b")) == ["empty", "f", "new"]


def test_a_link_and_a_folder_that_take_turns(place: Place) -> None:
    """Whatever moment is hit: the file outside stays, and its bytes are never taken for those inside."""
    inside, moved = place.local.root / "a", place.local.root / "moved"
    (place.outside / "b" / "f").write_bytes(b"never to be rd")
    os.utime(place.outside / "b" / "f", ns=(SECOND, SECOND))
    outside = seen(place.outside)
    stop = threading.Event()

    def insist(turn: Callable[[], object]) -> None:
        """In the moment when nothing has the name, a folder may be made there."""
        while True:
            try:
                turn()
                return
            except OSError:
                shutil.rmtree(inside, ignore_errors=True)

    def take_turns() -> None:
        while not stop.is_set():
            inside.rename(moved)
            insist(lambda: inside.symlink_to(place.outside))
            inside.unlink()
            insist(lambda: moved.rename(inside))

    turning = threading.Thread(target=take_turns)
    turning.start()
    try:
        for number in range(300):
            with suppress(SourceChangedError):
                assert place.local.read(place.entry) == CONTENT
            for answer in place.local.read_all([place.entry] * 2):
                assert answer == CONTENT or isinstance(answer, SourceChangedError)
            entry = place.entry._replace(path=f"a/b/{number}")
            with suppress(ConflictError, InvalidInputError):
                place.local.write(entry, [CONTENT], replace=number % 2 == 0)
            place.local.delete(entry)
    finally:
        stop.set()
        turning.join()
    assert seen(place.outside) == outside
