"""What a network does between the library and a real server, and what becomes of it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from mltrack_tasks.content import list_data, retrieve_data, retrieve_file, store_data, store_file
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores import Store
from mltrack_tasks.testing import RawS3
from tests.floor3 import invariants
from tests.real.expectations import Expected
from tests.servers.faultproxy import Fault, FaultProxy

DATA = b"0123456789" * 2_000
BLOB = r"/data/.*/data\.bin\?"


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Just above the limit of one PUT: five parts."""
    path = tmp_path_factory.mktemp("parts") / "large.bin"
    path.write_bytes(random.Random(64).randbytes(64 * 1024 * 1024 + 1))
    return path


def test_a_body_damaged_on_its_way_is_refused_and_sent_again(
    proxied: Store, store: Store, raw: RawS3, proxy: FaultProxy, expected: Expected
) -> None:
    proxy.script(Fault("flip_byte", method="PUT", match=BLOB))
    ref = store_data(proxied, DATA)
    [first, *more] = [each for each in proxy.requests if each.method == "PUT" and "/data.bin" in each.path]
    if not expected.refuses_flipped_bytes:
        _is_found_later(store, raw)
        return
    assert first.fault == "flip_byte"
    assert first.status == 400
    assert [each.status for each in more] == [200]
    assert ref.created
    assert raw.get(ref.storage_path) == DATA
    invariants.check_finished(store)


def _is_found_later(store: Store, raw: RawS3) -> None:
    """A server that checks nothing keeps a damaged body: a reader sees it, the next writer heals it."""
    ref = list_data(store)[0].ref
    assert raw.get(ref.storage_path) != DATA
    with pytest.raises(IntegrityError, match="damaged"):
        retrieve_data(store, ref)
    assert store_data(store, DATA) == ref
    assert retrieve_data(store, ref) == DATA


def test_a_part_damaged_on_its_way_is_refused_and_sent_again(
    proxied: Store, store: Store, raw: RawS3, proxy: FaultProxy, expected: Expected, large: Path
) -> None:
    proxy.script(Fault("flip_byte", method="PUT", match="partNumber=3"))
    ref = store_file(proxied, large)
    tries = [each for each in proxy.requests if "partNumber=3" in each.query]
    assert [each.fault for each in tries] == ["flip_byte", None][: len(tries)]
    assert [each.status for each in tries] == ([400, 200] if expected.refuses_flipped_bytes else [200])
    intact = hashlib.sha256(raw.get(ref.storage_path) or b"").hexdigest() == ref.hash
    assert intact is expected.refuses_flipped_bytes
    assert not raw.open_uploads()


LOST = {
    "blob": Fault("lose_answer", method="PUT", match=BLOB),
    "metadata": Fault("lose_answer", method="PUT", match=r"/metadata\.json"),
    "record": Fault("lose_answer", method="PUT", match=r"/names/"),
    "pin": Fault("lose_answer", method="PUT", match=r"/by_data/"),
    "identity": Fault("lose_answer", method="PUT", match=r"/format\.json"),
}


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("what", LOST)
def test_a_lost_answer_ends_in_a_readable_ref(
    proxied: Store, store: Store, proxy: FaultProxy, what: str, ending: str
) -> None:
    data = {"a": [1, 2.5]} if what == "metadata" else DATA
    fault = LOST[what]
    proxy.script(Fault("lose_answer", method="PUT", match=fault.match, ending=ending))  # type: ignore[arg-type]
    ref = store_data(proxied, data, "n")
    assert not proxy.unfired()
    assert retrieve_data(store, ref) == data
    assert len(list_data(store, "n")) == 1
    invariants.check_finished(store)


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_lost_answer_to_a_completed_upload_ends_in_a_readable_ref(
    proxied: Store, store: Store, raw: RawS3, proxy: FaultProxy, large: Path, tmp_path: Path, ending: str
) -> None:
    proxy.script(Fault("lose_answer", method="POST", match=r"\?uploadId=", ending=ending))  # type: ignore[arg-type]
    ref = store_file(proxied, large)
    assert not proxy.unfired()
    assert proxy.count("PUT", "partNumber=") == 5
    assert retrieve_file(store, ref, tmp_path / "back").read_bytes() == large.read_bytes()
    assert not raw.open_uploads()
    invariants.check_finished(store)


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_lost_answer_to_a_manifest_ends_in_one_run(
    proxied: Store, store: Store, proxy: FaultProxy, ending: str
) -> None:
    proxy.script(Fault("lose_answer", method="PUT", match=r"/manifests/", ending=ending))  # type: ignore[arg-type]
    run = store_run(proxied, "r", {"a": 1, "b": DATA}, storage_mode="by_type")
    assert not proxy.unfired()
    assert get_run(store, "r") == run
    assert run.revision == 1
    invariants.check_finished(store)


def test_a_blob_that_goes_between_refusal_and_head_is_sent_again(
    proxied: Store, store: Store, raw: RawS3, proxy: FaultProxy
) -> None:
    ref = store_data(store, DATA)
    gone = Fault("custom", method="HEAD", match=BLOB, action=lambda request: raw.delete(ref.storage_path))
    proxy.script(gone)
    assert store_data(proxied, DATA).created
    assert not proxy.unfired()
    assert retrieve_data(store, ref) == DATA
    invariants.check_finished(store)


def test_an_answer_cut_short_is_not_taken_for_the_data(proxied: Store, proxy: FaultProxy) -> None:
    ref = store_data(proxied, DATA)
    proxy.script(Fault("truncate", method="GET", match=BLOB))
    assert retrieve_data(proxied, ref) == DATA
    assert not proxy.unfired()
