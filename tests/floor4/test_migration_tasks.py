"""The flows of a migration and of a restore, and their steps in a flow of the user's."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow, unmapped
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL

from flows.download_from_s3 import download_from_s3
from flows.migrate_to_s3 import migrate_to_s3
from mltrack_tasks import (
    AccessError,
    ConflictError,
    InvalidInputError,
    MigrationReport,
    MLTrackStore,
    NotFoundError,
    PartialTransferError,
    plan,
    tasks,
    transfers,
)
from mltrack_tasks import migration as operations
from mltrack_tasks.artifacts import plain
from mltrack_tasks.filetree import Entry
from mltrack_tasks.migration import runplan, selecting
from mltrack_tasks.migration.deletion import RunFiles, delete_batches
from mltrack_tasks.resolve import find_store
from mltrack_tasks.stores import retry
from mltrack_tasks.stores.s3_settings import Keys, S3Settings
from tests.floor2.localtrees import seen
from tests.servers import S3Server, client, create_bucket
from tests.servers.faultproxy import Answer, Fault, FaultProxy

KiB = 1024
BLOBS, RECEIPTS = r"/data/../\w+/data\.", r"/migrations/[^/]+/receipts/"
PROGRESS, TABLE, REPORT = "mltrack-migration-progress", "mltrack-migration", "mltrack-migration-report"
MOST_TASK_RUNS = 150
STEPS = 7
"""Task runs of a migration beside its batches: scan, plan, verify, runs, models, finish, and one to spare."""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No digest is known from elsewhere, the machine is no container, and the store's pauses are short."""
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(transfers, "MOUNTS", tmp_path / "none")
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two runs with a small file each, and 6 files beside them of which each is a blob of its own."""
    root = tmp_path / "tree"
    for name in ("one", "two"):
        (root / name).mkdir(parents=True)
        (root / name / "note.txt").write_text(name, encoding="utf-8")
    for number in range(6):
        (root / f"{number}.bin").write_bytes(bytes([number]) * 40 * KiB)
    return root


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A directory store that is not there yet."""
    return str(tmp_path / "store")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """What tasks emit: ``events()`` -> the events of this library so far, oldest first."""
    worker = EventsWorker.instance(AssertingEventsClient)
    monkeypatch.setattr(EventsWorker, "instance", lambda *_: worker)

    def emitted() -> list[Any]:
        worker.wait_until_empty()
        # A client that was just made has none yet: it gets the list when it is entered.
        found = [event for client in AssertingEventsClient.all for event in getattr(client, "events", ())]
        return [event for event in found if event.event.startswith("mltrack.")]

    yield emitted
    worker.drain()
    AssertingEventsClient.reset()


def run(of: Any = migrate_to_s3, /, **parameters: Any) -> tuple[Any, UUID]:
    """Run a flow -> its state, and the id of its run."""
    state = of(return_state=True, **parameters)
    return state, state.state_details.flow_run_id


def migrate(tree: Path, store: str, **parameters: Any) -> tuple[MigrationReport, UUID]:
    state, run_id = run(local_path=str(tree), store=store, name="nightly", **parameters)
    return state.result(), run_id


def before(tree: Path, store: str) -> MigrationReport:
    """Migrate as another call did, without a flow."""
    return operations.migrate_to_s3(find_store(store).open(), tree, name="nightly")


def asked(path: str, body: dict[str, Any]) -> Any:
    return httpx.post(f"{PREFECT_API_URL.value()}/{path}", json=body).raise_for_status().json()


def shown(run_id: UUID) -> dict[str, Any]:
    """The artifacts of a flow run and its task runs, by key."""
    found = [each for each in everything_shown(run_id) if each["key"] is not None]
    assert len({each["key"] for each in found}) == len(found)
    return {each["key"]: each for each in found}


def everything_shown(run_id: UUID) -> list[dict[str, Any]]:
    """What Prefect keeps of a flow run's artifacts and results."""
    return asked("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [str(run_id)]}}})


def unescaped(text: str) -> str:
    return text.replace("\\", "")


def rows(artifact: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {row[""]: (row["number"], row["bytes"]) for row in json.loads(artifact["data"])}


def task_runs(run_id: UUID, least: int) -> Counter[tuple[str, int]]:
    """Task runs of a flow run by (name, times run), when there are ``least``: the server comes after."""
    body = {"flow_runs": {"id": {"any_": [str(run_id)]}}, "limit": 200}
    deadline = time.monotonic() + 30
    while True:
        found = asked("task_runs/filter", body)
        if len(found) >= least and all(each["state_type"] == "COMPLETED" for each in found):
            return Counter((each["name"].rpartition("-")[0], each["run_count"]) for each in found)
        assert time.monotonic() < deadline, [(each["name"], each["state_type"]) for each in found]
        time.sleep(0.1)


def told(caplog: pytest.LogCaptureFixture, pattern: str) -> list[str]:
    return [message for message in caplog.messages if re.search(pattern, message)]


# a migration


def test_a_dry_run_shows_the_plan_and_writes_nothing(tree: Path, place: str) -> None:
    report, run_id = migrate(tree, place, dry_run=True)

    assert not [path for path in Path(place).rglob("*") if path.is_file()]
    artifacts = shown(run_id)
    assert set(artifacts) == {TABLE, REPORT}
    figures = rows(artifacts[TABLE])
    assert figures["files found"] == (8, 6 * 40 * KiB + 6)
    assert figures["to send"] == (6, 6 * 40 * KiB)
    assert artifacts[TABLE]["description"] == f"Plan for {plain(str(tree))} as nightly"
    assert artifacts[REPORT]["data"].startswith(f"# Plan of {plain(str(tree))}\n")
    assert "6 files of 245,760 bytes to send" in unescaped(artifacts[REPORT]["data"])
    assert (report.dry_run, report.number) == (True, None)


def test_a_migration_shows_what_it_does(
    tree: Path,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    events: Callable[[], list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(plan, "BATCH_FILES", 2)

    report, run_id = migrate(tree, place)

    artifacts = shown(run_id)
    figures = rows(artifacts[TABLE])
    assert figures["new"] == figures["blobs created"] == (6, 6 * 40 * KiB)
    assert figures["runs written"] == (2, None)
    assert set(report.runs) == {"one", "two"}
    assert artifacts[PROGRESS]["type"] == "progress"
    assert artifacts[PROGRESS]["data"] == 100
    assert artifacts[PROGRESS]["description"].startswith(f"Migrating {plain(str(tree))}: 240 KiB of 240 KiB")
    batches = told(caplog, r"^\d+ files, \d+ bytes: ")
    assert batches == ["2 files, 81920 bytes: 2 blobs created of 81920 bytes, 0 files failed"] * 3
    [event] = [event for event in events() if event.event == "mltrack.migration.completed"]
    assert event.payload == {"number": 1, "files": 8, "bytes": 6 * 40 * KiB + 6}
    assert event.resource.name == "nightly"
    assert f"prefect.flow-run.{run_id}" in {resource.id for resource in event.related}


def test_the_same_again_sends_nothing_and_says_so(tree: Path, place: str) -> None:
    first = before(tree, place)
    there = {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")}

    again, run_id = migrate(tree, place)

    assert (again.unchanged, again.number) == (True, first.number)
    assert {path: path.stat().st_mtime_ns for path in Path(place).rglob("*")} == there
    assert set(shown(run_id)) == {TABLE, REPORT}
    assert "nothing new: 8 files" in unescaped(shown(run_id)[REPORT]["data"])


def test_hostile_names_are_shown_as_they_are(tree: Path, place: str) -> None:
    """A table's bars, markup, control characters and what is not UTF-8, of files that are left out."""
    names = [b"a|b](x) <img src=x>`", b"line\nbreak\x1b[31m", b"\xff\xfe|raw", "é漢".encode()]
    for name in names:
        os.mkfifo(os.path.join(os.fsencode(tree), name))

    report, run_id = migrate(tree, place)

    assert len(report.left_out) == 4
    text = shown(run_id)[REPORT]["data"]
    [section] = re.findall(r"## Left out\n\n\| path \| reason \|\n\|---\|---\|\n((?:.+\n)+)", text)
    lines = section.splitlines()
    assert len(lines) == 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)
    assert not re.search(r"(?<!\\)[<`\[\]]", section)
    assert "é漢" in section
    assert r"\udcff\udcfe|raw" in unescaped(section).replace("udc", r"\udc")


def test_what_could_not_be_stored_is_in_the_report(tree: Path, place: str) -> None:
    """Here two files that change between the look at them and the sending."""
    planned = tasks.plan_migration.fn

    def changing(*arguments: Any, **options: Any) -> Any:
        done = planned(*arguments, **options)
        for name in ("2.bin", "3.bin"):
            (tree / name).write_bytes(b"another")
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.plan_migration, "fn", changing)
        state, run_id = run(local_path=str(tree), store=place, name="nightly", delete_after_upload=True)

    assert state.is_failed()
    with pytest.raises(PartialTransferError, match=r"2 files .*'2\.bin'.*'3\.bin'") as caught:
        state.result()
    assert [path for path, _ in caught.value.failed] == ["2.bin", "3.bin"]
    artifacts = shown(run_id)
    assert rows(artifacts[TABLE])["failed"] == (2, None)
    assert re.findall(r"(?m)^\| (\d)\\\.bin \| ", artifacts[REPORT]["data"]) == ["2", "3"]
    assert len(list(tree.rglob("*.*"))) == 8

    report = before(tree, place)
    assert (report.number, report.new_files, report.failed) == (2, 1, ())


def test_delete_after_upload(tree: Path, place: str, tmp_path: Path) -> None:
    whole = seen(tree)
    os.utime(tree / "0.bin", (0, 0))

    report, run_id = migrate(tree, place, delete_after_upload=True)

    assert (report.deleted_files, report.kept) == (1, ())  # the others are younger than an hour
    assert rows(shown(run_id)[TABLE])["deleted here"] == (1, 40 * KiB)
    assert not (tree / "0.bin").exists()
    assert len([path for path in tree.rglob("*") if path.is_file()]) == 7
    operations.download_from_s3(find_store(place).open(), tmp_path / "back")
    assert [item[0] for item in seen(tmp_path / "back")] == [item[0] for item in whole]
    assert (tmp_path / "back" / "0.bin").read_bytes() == bytes(40 * KiB)


# trouble


@pytest.fixture
def address(proxied: S3Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a fresh prefix in moto, behind ``proxy``, as the environment says."""
    return use_aws(proxied, monkeypatch)


def use_aws(settings: S3Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the AWS default chain find a server and its keys -> the address of the prefix."""
    values = {
        "AWS_ENDPOINT_URL": settings.endpoint_url,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_ACCESS_KEY_ID": settings.keys.access_key,
        "AWS_SECRET_ACCESS_KEY": settings.keys.secret_key,
        "AWS_SESSION_TOKEN": settings.keys.session_token,
    }
    for name, value in values.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    return f"s3://{settings.bucket}/{settings.prefix}"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect waits for nothing before it tries a batch again."""
    patient = tasks.upload_batch.with_options(retry_delay_seconds=0)
    monkeypatch.setattr(tasks, "upload_batch", patient)


def test_only_the_batch_that_met_trouble_is_tried_again(
    tree: Path, address: str, proxy: FaultProxy, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BATCH_FILES", 2)
    proxy.script(Fault("status503", method="PUT", match=RECEIPTS, after=1, times=retry.TRIES))

    report, run_id = migrate(tree, address)

    assert report.created_blobs == 6 - 2  # the second try found the two of the first
    assert proxy.unfired() == []
    runs = task_runs(run_id, 9)
    assert {key: count for key, count in runs.items() if key[0] == "mltrack-upload-batch"} == {
        ("mltrack-upload-batch", 1): 2,
        ("mltrack-upload-batch", 2): 1,
    }
    assert {times for (name, times) in runs if name != "mltrack-upload-batch"} == {1}
    accepted = [item for item in proxy.requests if item.method == "PUT" and item.status == 200]
    assert max(Counter(item.path for item in accepted).values()) == 1
    assert (
        sum(re.search(BLOBS, item.path) is not None for item in accepted) == 6 + 1
    )  # and a part of the tree


def test_a_bucket_that_refuses_halfway_ends_it_with_a_report(
    tree: Path, address: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BATCH_FILES", 2)
    denied = Answer(403, "AccessDenied", "not allowed")
    proxy.script(Fault("answer", method="PUT", match=BLOBS, after=2, times=None, answer=denied))

    state, run_id = run(local_path=str(tree), store=address, name="nightly", delete_after_upload=True)

    assert state.is_failed()
    with pytest.raises(PartialTransferError, match="stopped after 2 of 6 files") as caught:
        state.result()
    assert isinstance(caught.value.__cause__, AccessError)
    assert [path for path, _ in caught.value.failed] == [f"{number}.bin" for number in range(2, 6)]
    text = shown(run_id)[REPORT]["data"]
    assert [name in text for name in (r"1\.bin", r"2\.bin", r"5\.bin")] == [False, True, True]
    assert len([path for path in tree.rglob("*") if path.is_file()]) == 8

    proxy.clear()
    report = before(tree, address)
    assert (report.created_blobs, report.failed) == (4, ())


def test_a_missing_folder_fails_before_any_work(address: str, proxy: FaultProxy) -> None:
    state, run_id = run(store=address, local_path="none")
    with pytest.raises(
        InvalidInputError, match=r"'none' is not a folder on .+ \(working directory .+here\).*--serve"
    ):
        state.result()
    assert state.is_failed()
    assert proxy.requests == []
    assert shown(run_id) == {}


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf")])
def test_an_age_that_is_none_is_refused(minutes: float, address: str, proxy: FaultProxy) -> None:
    """Before any work, else files that changed a moment ago would be deleted."""
    with pytest.raises(InvalidInputError, match="min_age"):
        migrate_to_s3.fn(".", store=address, delete_after_upload=True, min_age_minutes=minutes)
    assert proxy.requests == []


def test_nothing_secret_is_logged_or_shown(
    tree: Path,
    proxied: S3Settings,
    proxy: FaultProxy,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret, token = "SECRETfor/this+test", "TOKENfor/this+test"
    address = use_aws(replace(proxied, keys=Keys("AKIDEXAMPLE", secret, token)), monkeypatch)
    said = Answer(403, "SignatureDoesNotMatch", "differs", elements={"CanonicalRequest": token})
    proxy.script(Fault("answer", method="PUT", match=RECEIPTS, answer=said))
    for name in ("mltrack_tasks", "prefect"):
        caplog.set_level(logging.DEBUG, logger=name)

    state, run_id = run(local_path=str(tree), store=address)

    assert state.is_failed()
    texts = [caplog.text, json.dumps(everything_shown(run_id))]
    texts.append(json.dumps(httpx.get(f"{PREFECT_API_URL.value()}/flow_runs/{run_id}").json()))
    assert ["SignatureDoesNotMatch" in text for text in texts] == [True, True, True]
    for text in texts:
        assert secret not in text
        assert token not in text


# parameters


def test_another_bucket_another_prefix(
    tree: Path, block: MLTrackStore, s3_server: S3Server, s3_settings: S3Settings, tmp_path: Path
) -> None:
    """Of a saved block: its credentials and its server stay."""
    create_bucket(s3_server, "mltrack-other")
    block.save("elsewhere", overwrite=True)
    place = {"store": "elsewhere", "s3_bucket": "mltrack-other", "s3_prefix": "else/where"}

    state, _ = run(local_path=str(tree), **place)
    back, _ = run(download_from_s3, local_path=str(tmp_path / "back"), **place)

    assert (state.result().new_files, back.result().written_files) == (6, 8)
    s3 = client(s3_server)
    assert "Contents" not in s3.list_objects_v2(Bucket=s3_settings.bucket, Prefix=s3_settings.prefix)
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket="mltrack-other")["Contents"]]
    assert {key.partition("/data/")[0] for key in keys if "/data/" in key} == {"else/where"}
    with pytest.raises(InvalidInputError, match="a directory"):
        migrate_to_s3.fn(str(tree), store=str(tmp_path / "store"), s3_prefix="x")


def test_max_workers_is_how_many_requests_are_in_flight(tree: Path, address: str, proxy: FaultProxy) -> None:
    lock, running, most = threading.Lock(), 0, 0
    together = threading.Barrier(3, timeout=30)  # breaks, and the proxy fails, if fewer than 3 meet

    def count(request: Any) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1

    proxy.script(Fault("custom", method="PUT", match=BLOBS, times=6, action=count))
    report, _ = migrate(tree, address, max_workers=3)
    assert (report.created_blobs, most) == (6, 3)


def test_restores_choose_and_refuse(tree: Path, place: str, tmp_path: Path) -> None:
    before(tree, place)
    back = tmp_path / "back"

    unknown, _ = run(download_from_s3, local_path=str(back), store=place, run_ids=["one", "none"])
    with pytest.raises(NotFoundError, match="'none'"):
        unknown.result()
    assert not back.exists()
    (back / "one").mkdir(parents=True)
    (back / "one" / "note.txt").write_text("mine", encoding="utf-8")
    refused, _ = run(download_from_s3, local_path=str(back), store=place, migration="nightly")
    with pytest.raises(ConflictError, match=r"note\.txt"):
        refused.result()
    assert (back / "one" / "note.txt").read_text(encoding="utf-8") == "mine"
    replaced, run_id = run(download_from_s3, local_path=str(back), store=place, overwrite=True)
    report = replaced.result()
    figures = rows(shown(run_id)["mltrack-restore"])
    assert figures["files"] == (8, 6 * 40 * KiB + 6)
    assert figures["there already"] == (report.present, None)
    assert figures["written"] == (report.written_files, report.written_bytes)
    assert report.present + report.written_files == 8
    assert seen(back) == seen(tree)


def test_a_restore_into_a_container_is_refused_at_once(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text("overlay / overlay rw 0 0\n", encoding="utf-8")
    monkeypatch.setattr(transfers, "MOUNTS", tmp_path / "mounts")
    state, _ = run(download_from_s3, local_path="/none/below", store=place)
    with pytest.raises(InvalidInputError, match="container"):
        state.result()
    assert not Path(place).exists()


@pytest.mark.parametrize("of", [migrate_to_s3, download_from_s3], ids=lambda of: of.name)
def test_every_parameter_is_explained(of: Any) -> None:
    schema = of.parameters.model_dump()
    assert {"local_path", "s3_bucket", "s3_prefix", "max_workers", "store"} <= set(schema["properties"])
    assert [name for name, field in schema["properties"].items() if not field.get("description")] == []
    assert not schema.get("required")
    assert of.description


# how many task runs


def test_one_task_run_a_batch(tree: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small constants: of 30 batches at most, so of twice as many files, each has two."""
    monkeypatch.setattr(plan, "BATCH_FILES", 1)
    monkeypatch.setattr(plan, "MAX_BATCHES", 10)
    monkeypatch.setattr(plan, "PACK_LIMIT", -1)
    for number in range(15):
        (tree / f"more{number}").write_bytes(b"%d" % number)

    report, run_id = migrate(tree, place)

    assert report.new_files == 21
    runs = task_runs(run_id, 7 + STEPS)
    assert runs["mltrack-upload-batch", 1] == 7
    assert runs.total() == 7 + STEPS


@pytest.mark.parametrize("size", [0, 1, 100 * KiB, 1 << 30])
@pytest.mark.parametrize("files", [10, 10_000, 100_000])
def test_task_runs_stay_few_however_many_files(files: int, size: int) -> None:
    """Batches of what is sent, of runs with a file each, and of what is deleted, of runs with ten each."""
    entry = Entry("x", "f", 0o644, size)
    sent = len(plan.batches_of([entry] * files, True))
    runs = -(-files // max(runplan.RUNS_PER_BATCH, -(-files // runplan.MAX_BATCHES)))
    deleted = len(delete_batches([RunFiles(None, (entry,) * 10)] * (files // 10), {}))
    of_models = 2 * len(plan.batches_of([entry] * files, True, share=2))
    assert max(sent, of_models) + runs + deleted + STEPS < MOST_TASK_RUNS
    assert -(-files // max(selecting.BATCH_FILES, -(-files // selecting.MAX_BATCHES))) < MOST_TASK_RUNS


# by hand


def test_the_steps_in_a_flow_of_the_users(tree: Path, block: MLTrackStore, tmp_path: Path) -> None:
    """Submitted and mapped, results and futures passed on, the block unmapped."""

    @flow
    def pipeline(path: str) -> tuple[Any, list[int], dict[str, Any]]:
        scan = tasks.scan_source.submit(path, name="by-hand")
        planned = tasks.plan_migration.submit(scan, store=block).result()
        origin = scan.result().origin
        given = {"origin": unmapped(origin), "store": unmapped(block)}
        sent = tasks.upload_batch.map(planned.batches, **given)
        known = tasks.find_existing.submit({"0" * 64}, store=block)
        proven = tasks.verify_batch.map(planned.batches, sent, **given)
        work = tasks.plan_manifests.submit(planned, proven).result()
        written = tasks.write_manifests.map(work.batches, **given)
        models = tasks.write_models.submit(work, written, store=block)
        finished = tasks.finish_migration.submit(work, written, models=models, store=block).result()
        restore = tasks.plan_restore.submit(migration="by-hand", store=block)
        target = tmp_path / "back"
        parts = tasks.restore_batch.map(restore.result().batches, unmapped(target), store=unmapped(block))
        restored = [part.files for part in parts.result()]
        tasks.finish_restore.submit(restore, target).wait()
        return finished, restored, known.result()

    finished, restored, known = pipeline(str(tree))

    assert (finished.manifest.number, finished.manifest.files, finished.failed) == (1, 8, ())
    assert (restored, known) == ([8], {})
    assert seen(tmp_path / "back") == seen(tree)
    assert tasks.plan_migration.fn(tasks.scan_source.fn(tree, name="by-hand"), store=block).unchanged
