"""Many writers of one thing: one blob, one ref; one run id, one winner."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from mltrack_tasks.content import list_data, retrieve_data, store_data
from mltrack_tasks.errors import ConflictError
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores import Store, open_directory, open_s3
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawFolder
from tests.floor3 import invariants
from tests.floor3.conftest import Place
from tests.floor3.limits import LARGE
from tests.floor3.worker import prepare, work
from tests.servers import S3Server
from tests.settings import settings_of
from tests.together import together

WRITERS = 32
pytestmark = pytest.mark.usefixtures("small_parts")


@pytest.mark.parametrize("data", [{"same": "for all"}, LARGE], ids=["small", "in parts"])
def test_equal_data_from_many_threads_is_one_blob(place: Place, data: object) -> None:
    refs = together(WRITERS, lambda number: store_data(place.store, data, "n"))
    assert len(set(refs)) == 1, refs
    assert isinstance(refs[0], DataRef)
    assert sum(ref.created for ref in refs) >= 1
    assert retrieve_data(place.store, refs[0]) == data
    assert len(invariants.blobs(place.store)) == 1
    assert len(list_data(place.store)) == 1
    invariants.check_finished(place.store)


def test_equal_small_data_is_created_by_exactly_one(place: Place) -> None:
    refs = together(12, lambda number: store_data(place.store, [1], f"n{number}"))
    assert sum(ref.created for ref in refs) == 1
    assert len(list_data(place.store)) == 12
    invariants.check_finished(place.store)


def test_one_run_id_with_different_contents_has_one_winner(place: Place) -> None:
    results = together(
        WRITERS,
        lambda number: store_run(
            place.store, "r", {"n": number}, storage_mode="by_project", project=f"p{number}"
        ),
    )
    [winner] = [result for result in results if not isinstance(result, Exception)]
    assert get_run(place.store, "r") == winner
    for number, result in enumerate(results):
        if result is not winner:
            assert isinstance(result, ConflictError), result
            assert result.existing == winner.to_content()
            assert result.offered["project"] == f"p{number}"
            assert "'r'" in str(result)
            assert "project" in str(result)
    invariants.check_finished(place.store)


def test_one_run_from_many_writers_is_one_run(place: Place) -> None:
    runs = together(
        8, lambda number: store_run(place.store, "r", {"a": [1], "b": [2]}, storage_mode="by_type")
    )
    assert len(set(runs)) == 1, runs
    assert sum(run.created for run in runs) == 1
    invariants.check_finished(place.store)


def test_racing_revisions_all_find_a_place(place: Place) -> None:
    runs = together(
        8,
        lambda number: store_run(
            place.store, "r", {"n": number % 4}, storage_mode="by_type", if_exists="revise"
        ),
    )
    assert not [run for run in runs if isinstance(run, Exception)], runs
    stored = {run.revision: run.values["n"] for run in runs}
    assert sorted(stored) == list(range(1, len(stored) + 1))
    assert set(stored.values()) == {0, 1, 2, 3}
    assert get_run(place.store, "r").revision == max(stored)
    invariants.check_always(place.store)


def test_racing_healers_leave_the_right_bytes(place: Place) -> None:
    for body in (b"small", LARGE):
        ref = store_data(place.store, body)
        place.raw.put(ref.storage_path, body[::-1])
        refs = together(8, lambda number, body=body: store_data(place.store, body))
        assert len(set(refs)) == 1, refs
        assert place.raw.get(ref.storage_path) == body
    invariants.check_finished(place.store)


def test_many_processes_share_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    outcomes = in_processes(8, str(tmp_path / "store"), file)
    check_processes(open_directory(tmp_path / "store"), outcomes)
    assert not [name for name in RawFolder(tmp_path / "store").list() if name.startswith(".tmp/")]


def test_many_processes_share_a_bucket(s3_server: S3Server, tmp_path: Path) -> None:
    settings = settings_of(s3_server)
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    outcomes = in_processes(8, settings, file)
    check_processes(open_s3(settings), outcomes)


def check_processes(store: Store, outcomes: list[tuple[str, str]]) -> None:
    refs = {ref for ref, _ in outcomes}
    assert len(outcomes) == WRITERS
    assert len(refs) == 1, outcomes
    assert retrieve_data(store, refs.pop()) == LARGE
    assert sorted(run for _, run in outcomes) == ["ConflictError"] * (len(outcomes) - 1) + ["created"]
    invariants.check_finished(store)


def in_processes(count: int, where: str | S3Settings, file: Path) -> list[tuple[str, str]]:
    """Let WRITERS threads of several processes store the same file and their own run -> what each says."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "tests.floor3.worker"])
    start = context.Barrier(count)
    with ProcessPoolExecutor(count, context, initializer=prepare, initargs=(start,)) as pool:
        outcomes = [pool.submit(work, where, str(file), WRITERS // count) for _ in range(count)]
        return [each for outcome in outcomes for each in outcome.result()]
