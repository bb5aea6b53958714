"""What verification costs: requests grow with the store in pages, and a kill costs what was not yet kept."""

from __future__ import annotations

import tracemalloc

import pytest

from mltrack_tasks.errors import TransientError
from mltrack_tasks.trust import audit
from mltrack_tasks.trust.findings import VerifyReport
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.migrationtrees import quiet
from tests.syntheticstore import OF_RUN, PAGE, SyntheticStore


def verify(store: SyntheticStore, level: str = "structure") -> VerifyReport:
    return verify_store(store, level=level, observe=quiet)


@pytest.mark.parametrize("blobs", [1_000, 4_000])
def test_structure_takes_pages_and_records_only(blobs: int) -> None:
    store = SyntheticStore(blobs)
    report = verify(store)
    assert report.ok
    assert (report.blobs.objects, report.records) == (blobs, blobs // OF_RUN)
    assert store.requests["get"] == blobs // OF_RUN
    assert store.requests["head"] <= 10
    pages = 2 * blobs // PAGE  # of blobs and pins
    assert store.requests["list"] <= pages + 40


def test_attested_takes_one_head_more_per_blob() -> None:
    plain, attested = SyntheticStore(2_000), SyntheticStore(2_000)
    verify(plain)
    report = verify(attested, "attested")
    assert report.checked.objects == 2_000
    assert attested.requests["head"] - plain.requests["head"] == 2_000


def test_only_what_is_missing_is_looked_for_again() -> None:
    store = SyntheticStore(2_000, bad=100)
    report = verify(store)
    assert report.counts == {"missing": 20}
    assert report.findings[0].needed_by == ("run r00000000",)
    assert store.requests["head"] <= 10 + 2 * 20


def test_memory_does_not_grow_with_the_store() -> None:
    """What Python holds at most, of a small store and one eight times its size."""
    peaks = []
    for blobs in (2_000, 16_000):
        store = SyntheticStore(blobs)
        verify(SyntheticStore(OF_RUN))
        tracemalloc.start()
        verify(store)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 1_000_000


def test_after_a_kill_only_the_rest_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "STEP_OBJECTS", 400)
    blobs = 3_000
    whole = SyntheticStore(blobs, bad=300)
    expected = verify(whole, "attested")
    assert expected.counts == {"missing": 10, "wrong_checksum": 10}
    store = SyntheticStore(blobs, bad=300, dies_after=whole.requests.total() // 2)
    with pytest.raises(TransientError):
        verify(store, "attested")
    store.dies_after = None
    before = store.requests["head"]
    report = verify(store, "attested")
    assert report.resumed
    assert (report.counts, report.findings) == (expected.counts, expected.findings)
    assert store.requests["head"] - before < 0.75 * blobs
