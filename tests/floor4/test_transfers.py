"""How far a transfer is, and where a restore may write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL

from mltrack_tasks import InvalidInputError, events, transfers
from mltrack_tasks.artifacts import plain
from mltrack_tasks.events import Event
from mltrack_tasks.tasks import scan_source
from mltrack_tasks.transfers import Share, Transfer, check_target, in_container

KiB = 1024
PLAIN_ROOT = "proc /proc proc rw 0 0\n/dev/sda1 / ext4 rw 0 0\n"
LAYERED_ROOT = "overlay / overlay rw,lowerdir=/l 0 0\nproc /proc proc rw 0 0\n/dev/sda1 /mnt ext4 rw 0 0\n"
ELSEWHERE = "/proc/self/none/below"
"""A path in another file system than the root, in which nothing can be made."""


def sending(done: int, unit: str = "bytes") -> Event:
    return Event(events.PROGRESS, "sending files", {"done": done, "total": 10 * KiB, "unit": unit})


def states(key: str) -> list[tuple[float, str]]:
    """What the artifacts of a key show now, oldest first."""
    asked = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC"}
    found = httpx.post(f"{PREFECT_API_URL.value()}/artifacts/filter", json=asked).raise_for_status().json()
    return [(each["data"], each["description"]) for each in reversed(found)]


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Say what is mounted on this machine."""
    monkeypatch.setattr(transfers, "MOUNTS", tmp_path / "mounts")
    return lambda text: (tmp_path / "mounts").write_text(text, encoding="utf-8") and None


# arithmetic


@pytest.mark.parametrize(
    ("done", "seconds", "percent", "told"),
    [
        (0, 1.0, 25.0, "2.00 KiB of 8.00 KiB, 2.00 KiB/s, about 3 s left"),
        (2 * KiB, 4.0, 50.0, "4.00 KiB of 8.00 KiB, 1.00 KiB/s, about 4 s left"),
        (6 * KiB, 2.0, 100.0, "8.00 KiB of 8.00 KiB, 4.00 KiB/s"),
    ],
)
def test_rate_and_time_left_follow_from_all_that_is_done(
    done: int, seconds: float, percent: float, told: str
) -> None:
    share = Share(None, "Migrating", done=2 * KiB, total=8 * KiB, began=1_000.0)

    shown = share.state(share.done + done, 1_000.0 + seconds)

    assert shown == (percent, f"Migrating: {told}")


@pytest.mark.parametrize(
    ("total", "done", "shown"),
    [
        (0, 0, (100.0, "x: 0 B of 0 B, 0 B/s")),
        (5, 0, (0.0, "x: 0 B of 5 B, 0 B/s")),
        (5, 9, (180.0, "x: 9 B of 5 B, 4 B/s")),
    ],
    ids=["nothing to do", "nothing done", "files grew"],
)
def test_arithmetic_at_its_edges(total: int, done: int, shown: tuple[float, str]) -> None:
    assert Share(None, "x", 0, total, 0.0).state(done, 2.0) == shown


@pytest.mark.parametrize("now", [1_000.0, 900.0], ids=["no time", "a clock that was set back"])
def test_no_time_that_passed_does_no_harm(now: float) -> None:
    percent, words = Share(None, "x", 0, 8 * KiB, began=1_000.0).state(4 * KiB, now)
    assert percent == 50.0
    assert words.endswith(", about 0 s left")


def test_shares_follow_each_other_and_the_end_is_whole() -> None:
    @flow
    def look() -> list[tuple[float, str]]:
        transfer = Transfer("shares", "Migrating a|b", 10 * KiB)
        first, second = transfer.share(4 * KiB), transfer.share(6 * KiB)
        assert (first.done, second.done) == (0, 4 * KiB)
        assert first.artifact == second.artifact is not None
        assert first.began == second.began
        seen = states("shares")
        second.observer(clock=lambda: second.began + 2)(sending(1 * KiB))
        seen += states("shares")
        transfer.finish()
        return seen + states("shares")

    made, half, whole = look()
    what = plain("Migrating a|b")
    assert made == (0, what)
    assert half == (50, f"{what}: 5.00 KiB of 10.0 KiB, 2.50 KiB/s, about 2 s left")
    assert whole[0] == 100
    assert whole[1].startswith(f"{what}: 10.0 KiB of 10.0 KiB, ")


def test_the_artifact_changes_at_most_once_a_second() -> None:
    """40 events in 10 s; what is not about bytes changes nothing."""
    now, seen = 1_000.0, []

    @flow
    def look() -> None:
        nonlocal now
        share = Transfer("once-a-second", "x", 40).share(40)
        observe = share.observer(clock=lambda: now)
        for done in range(1, 41):
            now += 0.25
            observe(sending(done))
            observe(sending(done, "files"))
            seen.append(states("once-a-second")[0][0])

    look()

    assert seen[0] == 2.5
    assert len(set(seen)) == 10
    assert sorted(seen) == seen


def test_other_events_pass_and_are_no_progress() -> None:
    passed: list[Event] = []
    other = Event(events.BLOB_CREATED, "data/x", {"bytes": 1})
    observe = Share(None, "x", 0, 10, 0.0).observer(passed.append)
    for event in (other, sending(3), sending(3, "files")):
        observe(event)
    assert passed == [other]


def test_outside_a_run_there_is_nothing_to_show() -> None:
    transfer = Transfer("nowhere", "x", 10)
    assert transfer.share(10).artifact is None
    transfer.finish()
    assert states("nowhere") == []


# where to


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (PLAIN_ROOT, False),
        (LAYERED_ROOT, True),
        (LAYERED_ROOT + "/dev/sdb / ext4 rw 0 0\n", False),
        ("", False),
        ("overlay /mnt/x overlay rw 0 0\n", False),
    ],
    ids=["machine", "container", "mounted over", "nothing known", "layers elsewhere"],
)
def test_a_container_is_known_by_its_root(mounts: Callable[[str], None], text: str, answer: bool) -> None:
    mounts(text)
    assert in_container() is answer


def test_where_mounts_cannot_be_read_is_no_container(mounts: Any) -> None:
    assert not in_container()


@pytest.mark.parametrize(
    ("root", "name", "warned"), [(LAYERED_ROOT, None, 1), (LAYERED_ROOT, "nightly", 0), (PLAIN_ROOT, None, 0)]
)
def test_a_migration_without_a_name_is_warned_of_in_a_container(
    mounts: Callable[[str], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    root: str,
    name: str | None,
    warned: int,
) -> None:
    mounts(root)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"1")
    scan_source.fn(tmp_path / "tree", name=name)
    assert sum("Give name=" in record.getMessage() for record in caplog.records) == warned


@pytest.mark.parametrize("path", ["/none/below", "none", "../none", "/"])
def test_a_containers_own_file_system_is_refused(
    mounts: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    mounts(LAYERED_ROOT)
    monkeypatch.chdir("/")
    with pytest.raises(InvalidInputError, match=r"Mount a volume.*allow_container=True"):
        check_target(path, allow_container=False)
    check_target(path, allow_container=True)


def test_a_volume_in_a_container_and_a_machines_own_disk_are_fine(mounts: Callable[[str], None]) -> None:
    mounts(LAYERED_ROOT)
    check_target(ELSEWHERE, allow_container=False)
    mounts(PLAIN_ROOT)
    check_target("/none/below", allow_container=False)
