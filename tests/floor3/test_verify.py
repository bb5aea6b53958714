"""Verification: each kind of damage is found by the level that promises it, and nothing else is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import layout, modelkeys
from mltrack_tasks.blobs import write_blob
from mltrack_tasks.content import store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.runs import store_run
from mltrack_tasks.sources import BytesSource
from mltrack_tasks.stores.base import Store
from mltrack_tasks.trust import audit, findings, walk
from mltrack_tasks.trust.findings import Finding, VerifyReport
from mltrack_tasks.trust.journal import read_findings
from mltrack_tasks.trust.verify import in_part, verify_store
from mltrack_tasks.views import rebuild_views
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_roots import fill, keys

BODY = b"the bytes of one blob" * 50


def verify(store: Store, level: str = "structure", **options: Any) -> VerifyReport:
    return verify_store(store, level=level, observe=quiet, **options)


def told(report: VerifyReport) -> list[tuple[str, str]]:
    return [(finding.kind, finding.key) for finding in report.findings]


@pytest.fixture
def filled(memory_place: Place, tmp_path: Path) -> Place:
    fill(memory_place.store, tmp_path)
    return memory_place


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left behind counts from the first moment on."""
    monkeypatch.setattr(audit, "RECENT", timedelta(seconds=-60))


@pytest.mark.parametrize("level", findings.LEVELS)
def test_a_whole_store_has_no_findings(place: Place, tmp_path: Path, level: str) -> None:
    fill(place.store, tmp_path)
    before = set(place.raw.list())
    report = verify(place.store, level)
    assert report.ok
    assert {kind for kind, _ in told(report)} <= {"unattested"}  # the S3 of the tests keeps no checksums
    assert len(report.findings) == report.unattested.objects
    blobs = [key for key in before if layout.parse_blob_key(key)]
    assert report.blobs.objects == len(blobs)
    real = [key for key in before if modelkeys.is_file_of_version(key)]
    assert report.checked.objects == (0 if level == "structure" else len(blobs) + len(real))
    assert report.records > 10
    assert {key for key in set(place.raw.list()) - before if not key.startswith("audits/")} == set()
    assert verify(place.store, level).ok  # its own records are known to it


def test_an_empty_place_is_not_made_a_store(memory_place: Place) -> None:
    report = verify(memory_place.store)
    assert (report.ok, report.audit, report.records) == (True, "", 0)
    assert memory_place.raw.list() == []


# blobs


def flip(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:]


@pytest.mark.parametrize(
    ("damage", "structure", "attested", "read"),
    [
        (lambda body: flip(body), "", "wrong_checksum", "corrupt"),
        (lambda body: body[:-1], "wrong_size", "wrong_size", "wrong_size"),
        (lambda body: None, "missing", "missing", "missing"),
    ],
    ids=["flip one bit", "truncate", "delete"],
)
def test_damage_is_found_by_its_level(
    place: Place, damage: Callable[[bytes], bytes | None], structure: str, attested: str, read: str
) -> None:
    """On S3 the attacker writes over the object, so the server's own checksum is that of other bytes."""
    ref = store_data(place.store, BODY, "kept")
    store_run(place.store, "r1", {"x": ref}, project="p")
    damaged = damage(BODY)
    if damaged is None:
        place.raw.delete(ref.storage_path)
    else:
        place.raw.put(ref.storage_path, damaged)
    for level, kind in zip(findings.LEVELS, (structure, attested, read), strict=True):
        report = verify(place.store, level)
        if kind == "":
            assert report.ok
            continue
        kinds = {finding.kind for finding in report.findings}
        if kind == "wrong_checksum" and report.unattested.objects:
            assert told(report) == [("unattested", ref.storage_path)]  # another tool wrote it, without one
            continue
        assert kind in kinds, level
        assert {finding.key for finding in report.findings} == {ref.storage_path}
        assert not report.ok
        [finding] = [finding for finding in report.findings if finding.kind == kind]
        assert set(finding.needed_by) == {"run r1", "name kept"}
        assert finding.needs == 2


def test_two_blobs_that_were_swapped(memory_place: Place) -> None:
    """Of equal size, so that only their bytes tell."""
    one, other = (store_data(memory_place.store, body * 9, "kept") for body in (b"a", b"b"))
    memory_place.raw.put(one.storage_path, b"b" * 9)
    memory_place.raw.put(other.storage_path, b"a" * 9)
    both = {one.storage_path, other.storage_path}
    assert verify(memory_place.store).ok
    for level, kind in (("attested", "wrong_checksum"), ("read", "corrupt")):
        assert {key for found, key in told(verify(memory_place.store, level)) if found == kind} == both


def test_a_forged_manifest_is_named(filled: Place) -> None:
    """One that says another size, one that names a blob that never was, one that is no record."""
    record = json.loads(filled.raw.get("manifests/r1.json") or b"")
    ref = record["content"]["data"]["x"]
    ref["size_bytes"] += 1
    filled.raw.put("manifests/forged1.json", _renamed(record, "forged1"))
    digest = sha256_hex(b"never stored")
    ref.update(hash=digest, storage_path=layout.blob_key(digest, "bin"))
    filled.raw.put("manifests/forged2.json", _renamed(record, "forged2"))
    filled.raw.put("manifests/forged3.json", b'{"format": 1}')
    filled.raw.put("manifests/forged4.json", b'{"format": 2}')
    report = verify(filled.store)
    wrong = {finding.kind: finding for finding in report.findings if finding.wrong}
    assert set(wrong) == {"wrong_size", "missing", "unreadable_record", "unknown_format"}
    assert wrong["wrong_size"].needed_by == ("run forged1",)
    assert (wrong["missing"].needed_by, wrong["missing"].key) == (
        ("run forged2",),
        layout.blob_key(digest, "bin"),
    )
    assert wrong["unreadable_record"].key == "manifests/forged3.json"
    assert wrong["unknown_format"].key == "manifests/forged4.json"
    assert any("2 records could not be read" in said for said in report.left_out)


def _renamed(record: dict[str, Any], run_id: str) -> bytes:
    content = {**record["content"], "run_id": run_id, "storage_modes": ["flat"]}
    return json.dumps({**record, "content": content}).encode()


def test_orphans_and_what_holds_a_blob(memory_place: Place, at_once: None) -> None:
    store = memory_place.store
    write_blob(store, BytesSource(b"orphan"), "bin", observe=quiet)
    lost = store_data(store, b"pinned only", "gone")
    [record] = keys(memory_place, "names/gone/")
    memory_place.raw.delete(record)
    side = store_data(store, {"side": 1}, "kept")
    memory_place.raw.delete(side.storage_path)
    [record] = keys(memory_place, "names/kept/")
    memory_place.raw.delete(record)
    report = verify(store)
    assert report.ok
    assert set(told(report)) == {
        ("orphaned", layout.blob_key(sha256_hex(b"orphan"), "bin")),
        ("dangling_pin", layout.name_pin_key(lost.hash, "gone")),
        ("dangling_pin", layout.name_pin_key(side.hash, "kept")),
    }


def test_what_is_young_may_be_a_writers(memory_place: Place) -> None:
    write_blob(memory_place.store, BytesSource(b"orphan"), "bin", observe=quiet)
    assert told(verify(memory_place.store)) == []


# what else lies in a store


def test_views_that_do_not_match(filled: Place) -> None:
    """Missing and dangling ones are told, rebuild_views mends both, and the runs are not in danger."""
    [entry] = keys(filled, "runs/by_project/p/r1")
    filled.raw.delete(entry)
    filled.raw.put("runs/by_project/other/r1", b"")
    filled.raw.put("runs/by_type/experiment/nobody", b"")
    [pin, *_] = [key for key in keys(filled, "runs/by_data/") if key.endswith("/r1")]
    filled.raw.delete(pin)
    report = verify(filled.store)
    assert report.ok
    assert set(told(report)) == {
        ("missing_view", entry),
        ("dangling_view", "runs/by_project/other/r1"),
        ("dangling_view", "runs/by_type/experiment/nobody"),
        ("missing_pin", pin),
    }


def test_rebuilt_views_match(filled: Place) -> None:
    for key in keys(filled, "runs/by_project/"):
        filled.raw.delete(key)
    rebuild_views(filled.store, observe=quiet)
    assert told(verify(filled.store)) == []


FOREIGN = (
    *("notes.txt", "data/readme", "data/ab/notes", "manifests/x.txt", "names/kept/x.json", "migrations/x"),
    *("models/registry/churn/README.md", "models/development/churn/v1.json", "catalog/x", "runs/x"),
    *("models/x", "models/development/x", "models/registry/x", "models/registry/x/_aliases", "models/x/y/z"),
    *("runs/by_project/p/a/b", "runs/by_data/zz/x", "runs/log/today/x", "audits/x/1.json"),
)


@pytest.mark.parametrize("key", FOREIGN)
def test_foreign_objects(filled: Place, key: str) -> None:
    filled.raw.put(key, b"x")
    report = verify(filled.store)
    assert told(report) == [("foreign_object", key)]
    assert report.ok


def test_a_foreign_folder_is_one_finding(filled: Place) -> None:
    for number in range(5):
        filled.raw.put(f"backup/{number}", b"x")
        filled.raw.put(f"runs/mine/{number}", b"x")
    assert told(verify(filled.store)) == [("foreign_object", "backup/"), ("foreign_object", "runs/mine/")]


def test_many_foreign_objects_among_blobs_and_pins(filled: Place) -> None:
    blob, *_, last = sorted(key for key in filled.raw.list() if layout.parse_blob_key(key))
    strange = [f"{blob.rpartition('/')[0]}/data.txt", f"{last}.bak", "data/00/x", "data/zz/1", "data/zz/2"]
    strange += [f"runs/by_data/{name}" for name in ("00/a", "00/b", "zz/1", "zz/2")]
    strange.append(f"runs/by_data/{last.split('/')[1]}/{last.split('/')[2]}/not-empty")
    for key in strange:
        filled.raw.put(key, b"x")
    assert sorted(key for _, key in told(verify(filled.store))) == sorted(strange)


def test_a_crowd_of_foreign_objects_is_counted(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told in one step of the journal, which is one record, and held in memory until then."""
    monkeypatch.setattr(walk, "MAX_FOREIGN", 3)
    for number in range(8):
        filled.raw.put(f"data/mine/{number}.png", b"12345")
        filled.raw.put(f"runs/by_data/zz/{number}", b"x")
    filled.raw.put("data/00/x", b"x")
    report = verify(filled.store)
    assert told(report) == [
        ("foreign_object", key)
        for key in (
            *("data/00/x", "data/mine/", "data/mine/0.png", "data/mine/1.png", "data/mine/2.png"),
            *("runs/by_data/zz/", "runs/by_data/zz/0", "runs/by_data/zz/1", "runs/by_data/zz/2"),
        )
    ]
    crowds = [(each.detail.split()[1], each.size_bytes) for each in report.findings if each.key[-1] == "/"]
    assert crowds == [("5", 25), ("5", 5)]


def test_a_since_that_is_none_leaves_nothing(filled: Place) -> None:
    """Else the next call would find an audit that was begun, and not the one that was stopped before."""
    before = set(filled.raw.list())
    for since in ("x", 5, f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-attested-00000000"):
        with pytest.raises(InvalidInputError, match="no finished audit"):
            verify(filled.store, "attested", since=since)
    assert set(filled.raw.list()) == before


def test_folders_of_models(filled: Place) -> None:
    """A file that is gone, one of another size, one that was changed, one that nobody registered."""
    [promoted] = keys(filled, "models/registry/churn/v")[:1]
    registered, *_ = [key for key in keys(filled, "models/development/churn/v") if key.endswith("/weights")]
    folder = promoted.rpartition("/")[0].removesuffix("/weights")
    [weights] = [key for key in keys(filled, "models/registry/") if key.endswith("/weights")]
    filled.raw.delete(weights)
    filled.raw.put(registered, b"WEIGHTS")
    extra = weights.replace("/weights", "/extra.py")
    filled.raw.put(extra, b"x")
    report = verify(filled.store)
    assert folder
    assert set(told(report)) == {("incomplete_model", weights), ("foreign_object", extra)}
    assert not report.ok
    read = verify(filled.store, "read")
    assert ("corrupt", registered) in told(read)
    filled.raw.put(weights, b"longer than before")
    assert ("incomplete_model", weights) in told(verify(filled.store))


def test_an_alias_whose_version_is_gone(filled: Place) -> None:
    for key in keys(filled, "models/registry/churn/v"):
        filled.raw.delete(key)
    report = verify(filled.store)
    assert told(report) == [("dangling_alias", "models/registry/churn/_aliases/production/")]


@pytest.mark.parametrize("part", ["_ids/", "_by_digest/"])
def test_other_records_must_be_readable_too(filled: Place, part: str) -> None:
    [key] = keys(filled, part)
    filled.raw.put(key, b"{")
    filled.raw.put("gc/deleting/x.json", b'{"format": 3}')
    assert set(told(verify(filled.store))) == {
        ("unreadable_record", key),
        ("unknown_format", "gc/deleting/x.json"),
    }


def test_parts_cover_everything_once(filled: Place) -> None:
    digests = {place[0] for key in filled.raw.list() if (place := layout.parse_blob_key(key))}
    parts = [{digest for digest in digests if in_part(digest, number, 3)} for number in (1, 2, 3)]
    assert set().union(*parts) == digests
    assert sum(map(len, parts)) == len(digests)
    sums = [verify(filled.store, "read", part=f"{number}/3").checked for number in (1, 2, 3)]
    whole = verify(filled.store, "read").checked
    assert sum(each.objects for each in sums) == whole.objects
    assert sum(each.size_bytes for each in sums) == whole.size_bytes


def test_the_part_of_the_week(filled: Place) -> None:
    week = (datetime.now(UTC).toordinal() - 1) // 7
    assert verify(filled.store, "read", part="week/4").part == f"{week % 4 + 1}/4"


@pytest.mark.parametrize(
    "options",
    [
        *({"level": "deep"}, {"level": "structure", "part": "1/2"}, {"level": "read", "part": "3/2"}),
        *({"level": "read", "part": "0/2"}, {"level": "read", "part": "1"}, {"level": "read", "part": "1/0"}),
        *({"level": "read", "since": "last"}, {"level": "attested", "since": "yesterday"}),
    ],
)
def test_what_means_nothing_is_refused(filled: Place, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        verify(filled.store, **options)


def test_the_findings_are_kept_with_the_audit(filled: Place) -> None:
    filled.raw.delete(keys(filled, "data/")[0].rpartition("/")[0] + "/data.bin")
    report = verify(filled.store)
    assert list(read_findings(filled.store, report.audit)) == list(report.findings)
    assert [Finding.from_json(finding.to_json()) for finding in report.findings] == list(report.findings)


def test_without_keeping_nothing_is_written(filled: Place) -> None:
    before = set(filled.raw.list())
    report = verify(filled.store, "read", keep=False)
    assert report.audit == ""
    assert set(filled.raw.list()) == before
