"""Audits that are stopped, go on, and build on earlier ones."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import layout
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import AccessError, ConflictError, TransientError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from mltrack_tasks.testing import RawObjects
from mltrack_tasks.trust import audit, journal, references
from mltrack_tasks.trust.findings import VerifyReport
from mltrack_tasks.trust.journal import read_findings
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import quiet
from tests.floor3.test_roots import fill, keys


def verify(store: Store, level: str = "read", **options: Any) -> VerifyReport:
    return verify_store(store, level=level, observe=quiet, **options)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "STEP_OBJECTS", 3)
    monkeypatch.setattr(audit, "_BATCH", 1)


@pytest.fixture
def damaged(memory_place: Place, tmp_path: Path) -> Place:
    """A store of which several things are wrong, all over it."""
    fill(memory_place.store, tmp_path)
    blobs = sorted(key for key in memory_place.raw.list() if layout.parse_blob_key(key))
    for key in blobs[::3]:
        memory_place.raw.put(key, b"#" + (memory_place.raw.get(key) or b"")[1:])
    memory_place.raw.delete(blobs[1])
    memory_place.raw.put("notes", b"x")
    memory_place.raw.put("data/notes", b"x")
    memory_place.raw.put("manifests/forged.json", b"{}")
    [weights] = [key for key in keys(memory_place, "models/registry/") if key.endswith("/weights")]
    memory_place.raw.put(weights, b"WEIGHTS")
    return memory_place


def bare(report: VerifyReport) -> tuple[Any, ...]:
    return report.counts, report.findings, report.blobs, report.checked, report.records


def test_an_audit_that_is_killed_anywhere_goes_on(damaged: Place, small_steps: None) -> None:
    """Whatever request it died at: the whole finds the same, once, and what was done is not done again."""
    whole = verify(damaged.store, keep=False)
    assert set(whole.counts) >= {"corrupt", "missing", "foreign_object", "unreadable_record"}
    counted = CountingStore(damaged.store)
    verify(counted, resume=False)
    requests = counted.calls.total()
    for fail_at in range(2, requests + 1, 5):
        for key in keys(damaged, "audits/"):
            damaged.raw.delete(key)
        with pytest.raises(TransientError):
            verify(FaultyStore(damaged.store, fail_at, "crash"))
        begun = keys(damaged, "begun.json")
        steps = [key for key in keys(damaged, "audits/") if key not in begun]
        again = CountingStore(damaged.store)
        report = verify(again)
        assert bare(report) == bare(whole), fail_at
        assert keys(damaged, "begun.json") == (begun or keys(damaged, "begun.json"))
        assert report.resumed == bool(begun)
        assert sorted(map(str, read_findings(damaged.store, report.audit))) == sorted(
            map(str, whole.findings)
        )
        read = sum(key.startswith("data/") for verb, key in again.log if verb == "get")
        assert read <= whole.checked.objects + 10 - max(0, 3 * (len(steps) - 3))


def test_only_the_same_call_goes_on(damaged: Place, small_steps: None) -> None:
    with pytest.raises(TransientError):
        verify(FaultyStore(damaged.store, 60, "crash"))
    assert keys(damaged, "begun.json")
    for options in ({"part": "1/2"}, {"level": "attested"}, {"resume": False}, {"keep": False}):
        assert not verify(damaged.store, **options).resumed  # type: ignore[arg-type]


def test_an_old_audit_is_begun_anew(
    damaged: Place, small_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TransientError):
        verify(FaultyStore(damaged.store, 60, "crash"))
    monkeypatch.setattr(journal, "RESUMED_FOR", timedelta(0))
    assert not verify(damaged.store).resumed


def test_two_calls_at_one_audit(damaged: Place, small_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second to a step that says something else stops; equal steps are no conflict."""
    with pytest.raises(TransientError):
        verify(FaultyStore(damaged.store, 60, "crash"))
    found = journal._unfinished(damaged.store, journal.Scope("read"))
    assert found is not None
    found.go_on(audit.REST)
    tally = journal.Tally()
    found.step("data", "0" * 64, tally)
    other = journal._unfinished(damaged.store, journal.Scope("read"))
    assert other is not None
    monkeypatch.setattr(journal, "_read_step", lambda *any: None)
    other.go_on(audit.REST)
    tally.count("blobs", 1)
    with pytest.raises(ConflictError, match="Another call goes on with the audit"):
        other.step("data", "1" * 64, tally)


FORGED = (
    *(b"{}", b"[", b'{"format": 2}', {"section": "data", "after": "../x"}, {"section": "rest", "after": 1}),
    *({"section": "models", "after": "elsewhere"}, {"section": "x", "after": ""}, {"findings": [["x"]]}),
    *({"counts": {"x": 1}}, {"counts": []}, {"blobs": [-1, 0]}, {"blobs": "x"}),
)


@pytest.mark.parametrize("forged", FORGED, ids=str)
@pytest.mark.parametrize("name", ["00000001.json", "begun.json"])
def test_a_forged_journal_is_not_gone_on_with(
    damaged: Place, small_steps: None, forged: Any, name: str
) -> None:
    whole = verify(damaged.store, keep=False)
    with pytest.raises(TransientError):
        verify(FaultyStore(damaged.store, 60, "crash"))
    [key] = [key for key in keys(damaged, "audits/") if key.endswith(name)]
    body = forged
    if isinstance(forged, dict):
        record = json.loads(damaged.raw.get(key) or b"")
        record["content"] = forged if name == "begun.json" else {**record["content"], **forged}
        body = json.dumps(record).encode()
    damaged.raw.put(key, body)
    report = verify(damaged.store)
    assert not report.resumed
    assert bare(report) == bare(whole)


# since


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until the store's clock shows another moment than that of what was written before."""
    now = datetime.now()
    while datetime.now() == now:
        time.sleep(0.001)


def heads(counted: CountingStore) -> set[str]:
    return {key for verb, key in counted.log if verb == "head" and key.startswith("data/")}


def test_what_was_attested_is_not_asked_again(memory_place: Place, tmp_path: Path) -> None:
    fill(memory_place.store, tmp_path)
    first = verify(memory_place.store, "attested")
    added = store_data(memory_place.store, b"added later", "kept")
    counted = CountingStore(memory_place.store)
    second = verify(counted, "attested", since="last")
    assert second.since == first.audit
    assert heads(counted) == {added.storage_path}
    assert second.checked.objects == 1
    assert second.unchanged == first.checked
    third = verify(memory_place.store, "attested", since=second.audit)
    assert (third.checked.objects, third.unchanged.objects) == (0, first.checked.objects + 1)


def test_what_was_written_over_since_is_asked(memory_place: Place, tmp_path: Path) -> None:
    ref = store_data(memory_place.store, b"as it was", "kept")
    verify(memory_place.store, "attested")
    memory_place.raw.put(ref.storage_path, b"AS IT WAS")
    report = verify(memory_place.store, "attested", since="last")
    assert [finding.kind for finding in report.findings] == ["wrong_checksum"]


def test_what_was_wrong_then_is_asked_again(damaged: Place) -> None:
    first = verify(damaged.store, "attested")
    second = verify(damaged.store, "attested", since="last")
    assert second.counts == first.counts
    assert verify(damaged.store, "attested", since="last").counts == first.counts
    assert second.unchanged.objects > 0


def test_the_first_of_all_has_nothing_to_build_on(damaged: Place) -> None:
    assert verify(damaged.store, "attested", since="last").since is None


# bounds


def test_it_reads_past_the_cache(tmp_path: Path) -> None:
    """What lies in the bucket is in question, not what a cache has of it."""
    bare = MemoryStore()
    store = GuardedStore(CachedStore(bare, tmp_path / "cache", 10**6))
    ref = store_data(store, b"intact", "kept")
    store.get(ref.storage_path)
    RawObjects(bare.objects).put(ref.storage_path, b"INTACT")
    assert store.get(ref.storage_path) == b"intact"
    assert [finding.kind for finding in verify(store).findings] == ["corrupt"]


def test_a_report_holds_only_so_many(damaged: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong comes first; the records of the audit have all."""
    whole = verify(damaged.store)
    monkeypatch.setattr("mltrack_tasks.trust.findings.MAX_FINDINGS", 2)
    monkeypatch.setattr(audit, "STEP_FINDINGS", 1)
    monkeypatch.setattr(audit, "_BATCH", 1)
    report = verify(damaged.store)
    assert report.findings == whole.findings[:2]
    assert report.counts == whole.counts
    assert len(list(read_findings(damaged.store, report.audit))) == len(whole.findings)


def test_a_full_temporary_folder_is_told_as_such(damaged: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_SCHEMA", references._SCHEMA + "PRAGMA max_page_count=12;")
    with pytest.raises(AccessError, match=r"TMPDIR.* full"):
        verify(damaged.store, "structure")


def test_records_are_named_up_to_a_limit(memory_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = [store_data(memory_place.store, b"shared", f"name {number}") for number in range(5)]
    memory_place.raw.delete(refs[0].storage_path)
    monkeypatch.setattr(references, "MAX_NAMED", 3)
    [finding] = verify(memory_place.store, "structure").findings
    assert (len(finding.needed_by), finding.needs) == (3, 5)


def test_what_comes_back_while_it_is_missed_is_not_told(memory_place: Place) -> None:
    """A blob that is healed, and a run that is removed, between the listing and the second look."""
    ref = store_data(memory_place.store, b"shared", "kept")
    memory_place.raw.delete(ref.storage_path)

    class Healed(CountingStore):
        def head(self, key: str, *, checksum: bool = False) -> Any:
            if key == ref.storage_path:
                memory_place.raw.put(key, b"shared")
            return super().head(key, checksum=checksum)

    assert verify(Healed(memory_place.store), "structure").ok
    memory_place.raw.delete(ref.storage_path)
    [record] = keys(memory_place, "names/")

    class Removed(CountingStore):
        def head(self, key: str, *, checksum: bool = False) -> Any:
            memory_place.raw.delete(record)
            return super().head(key, checksum=checksum)

    assert verify(Removed(memory_place.store), "structure").ok
