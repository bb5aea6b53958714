"""Healing: whatever an audit found is mended from each source, proven, never over what is intact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import layout
from mltrack_tasks.blobs import read_blob
from mltrack_tasks.content import retrieve_data, store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import AccessError, InvalidInputError, NotFoundError, TransientError
from mltrack_tasks.registry import download_model, promote_model, remove_alias
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.base import Older, Store, WrapperStore
from mltrack_tasks.stores.cache import CachedStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from mltrack_tasks.stores.retry import RetryingStore
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import Raw, RawObjects, RawS3
from mltrack_tasks.trust.heal import heal_store
from mltrack_tasks.trust.healing import HealReport
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import migrate, quiet, restored
from tests.floor3.test_roots import fill, keys


def verify(store: Store, level: str = "read") -> Any:
    return verify_store(store, level=level, observe=quiet)


def heal(store: Store, **options: Any) -> HealReport:
    return heal_store(store, observe=quiet, **options)


def copy_of(raw: Raw) -> Store:
    """A replica: every object, as it is."""
    replica = MemoryStore()
    for key in raw.list():
        replica.create(key, raw.get(key) or b"")
    return GuardedStore(replica)


@pytest.fixture
def filled(memory_place: Place, tmp_path: Path) -> Place:
    fill(memory_place.store, tmp_path)
    return memory_place


def blobs(raw: Raw) -> list[str]:
    return sorted(key for key in raw.list() if layout.parse_blob_key(key))


def damage(raw: Raw) -> dict[str, bytes]:
    """One bit, a truncation, a deletion, a swap -> what was there."""
    flipped, short, gone, one, other, *_ = blobs(raw)
    before = {key: raw.get(key) or b"" for key in (flipped, short, gone, one, other)}
    raw.put(flipped, bytes([before[flipped][0] ^ 1]) + before[flipped][1:])
    raw.put(short, before[short][:-1])
    raw.delete(gone)
    raw.put(one, before[other])
    raw.put(other, before[one])
    return before


def test_all_kinds_of_damage_are_healed_from_a_replica(place: Place, tmp_path: Path) -> None:
    fill(place.store, tmp_path)
    replica = copy_of(place.raw)
    before = damage(place.raw)
    assert not verify(place.store).ok

    report = heal(place.store, replicas=[replica])

    assert report.ok
    assert {each.key for each in report.healed} >= set(before)
    assert {key: place.raw.get(key) for key in before} == before
    assert verify(place.store).ok
    again = heal(place.store, audit=report.audit, replicas=[replica])
    assert again.healed == ()
    assert set(again.intact) == set(before)


def test_forged_records_are_healed_from_a_replica(filled: Place) -> None:
    """No record; of a newer format; one that names another blob; one that says another size."""
    for number in range(4):
        store_run(filled.store, f"f{number}", {"x": b"bytes of %d" % number}, project="p")
    replica, manifests = copy_of(filled.raw), [f"manifests/f{number}.json" for number in range(4)]
    before = {key: filled.raw.get(key) for key in manifests}
    filled.raw.put(manifests[0], b"{}")
    filled.raw.put(manifests[1], b'{"format": 9}')
    record = json.loads(before[manifests[2]] or b"")
    never = sha256_hex(b"never stored")
    record["content"]["data"]["x"].update(hash=never, storage_path=layout.blob_key(never, "bin"))
    filled.raw.put(manifests[2], json.dumps(record).encode())
    record = json.loads(before[manifests[3]] or b"")
    record["content"]["data"]["x"]["size_bytes"] += 1
    filled.raw.put(manifests[3], json.dumps(record).encode())
    assert verify(filled.store, "structure").wrong == 4

    report = heal(filled.store, replicas=[replica])

    assert report.ok
    assert {key: filled.raw.get(key) for key in manifests} == before
    assert {each.key for each in report.healed} == set(manifests)
    assert verify(filled.store).ok


def test_one_digest_in_two_formats_is_two_blobs(memory_place: Place) -> None:
    """Only who needs the one that is lost is told to be broken."""
    value, plain = store_data(memory_place.store, {}, "value"), store_data(memory_place.store, b"{}", "plain")
    assert value.hash == plain.hash
    memory_place.raw.delete(plain.storage_path)
    [finding] = verify(memory_place.store).findings
    assert (finding.needed_by, finding.needs) == (("name plain",), 1)
    report = heal(memory_place.store)
    assert report.breaks == ("name plain",)
    assert [each.needed_by for each in report.lost] == [("name plain",)]


def test_the_promotions_of_an_alias_are_healed(filled: Place) -> None:
    """One is forged, one is another's, one is gone."""
    [version] = {key.split("/")[3] for key in keys(filled, "models/registry/churn/v") if key.count("/") > 3}
    for alias in ("staging", "canary", "staging"):
        promote_model(filled.store, "churn", version, alias, observe=quiet)
        remove_alias(filled.store, "churn", alias, observe=quiet)
    replica = copy_of(filled.raw)
    folder = "models/registry/churn/_aliases/staging/"
    events = keys(filled, folder)
    before = {key: filled.raw.get(key) for key in events}
    assert len(events) == 4
    filled.raw.put(events[1], b"{}")
    filled.raw.put(events[2], before[events[3]] or b"")
    filled.raw.delete(events[0])
    assert [each.key for each in verify(filled.store).findings if each.wrong] == [folder]
    assert {each.key for each in heal(filled.store).lost} == set(events[:3])
    report = heal(filled.store, replicas=[replica])
    assert report.ok
    assert {key: filled.raw.get(key) for key in events} == before
    assert report.intact == (events[3],)
    assert verify(filled.store).ok


def test_what_no_source_has_is_named_with_what_it_breaks(filled: Place) -> None:
    store = filled.store
    shared = store_data(store, b"shared by many", "name")
    for number in range(30):
        store_run(store, f"run{number}", {"x": shared}, project="p")
    filled.raw.delete(shared.storage_path)
    filled.raw.put("manifests/r9.json", b"{}")
    verify(store, "structure")
    report = heal(store)
    assert not report.ok
    assert {each.key for each in report.lost} == {shared.storage_path, "manifests/r9.json"}
    assert set(report.breaks) == {"name name", *(f"run run{number}" for number in range(30))}
    assert "2 lost, which 31" in str(report)
    assert [row["became"] for row in report.rows()] == ["lost", "lost"]


# sources


def test_from_the_read_cache(tmp_path: Path) -> None:
    bare = MemoryStore()
    store, raw = GuardedStore(CachedStore(bare, tmp_path / "cache", 10**9)), RawObjects(bare.objects)
    small = store_data(store, b"small", "small")
    large = store_data(store, bytes(9_000_000) + b"!", "large")
    for ref in (small, large):
        retrieve_data(store, ref)
        raw.put(ref.storage_path, b"broken")
    verify(store)
    report = heal(store)
    assert {each.source for each in report.healed} == {"the read cache"}
    assert raw.get(small.storage_path) == b"small"
    assert verify(store).ok


def test_a_cache_without_the_bytes_is_no_source(tmp_path: Path) -> None:
    bare = MemoryStore()
    store = GuardedStore(CachedStore(bare, tmp_path / "cache", 10**9))
    ref = store_data(store, b"small", "small")
    RawObjects(bare.objects).put(ref.storage_path, b"broken")
    verify(store)
    [lost] = heal(store).lost
    assert (lost.key, lost.tried) == (ref.storage_path, ("the read cache holds other bytes.",))
    assert store.get(ref.storage_path) == b"broken"


def test_from_the_folder_that_was_migrated(memory_place: Place, tmp_path: Path) -> None:
    """Single files and packs, under other names by now; what is not among the files stays lost."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"small{number}").write_bytes(b"%d" % number * (5_000 + number))
    (tree / "large").write_bytes(b"L" * 2_000_000)
    migrate(memory_place.store, tree)
    whole = restored(memory_place.store)
    lists = {
        digest
        for key in keys(memory_place, "migrations/nightly/manifests/")
        for digest, *_ in json.loads(memory_place.raw.get(key) or b"")["content"]["tree"]
    }
    for key in blobs(memory_place.raw):
        if key.split("/")[2] not in lists:
            memory_place.raw.delete(key)
    assert verify(memory_place.store, "structure").wrong == 2  # a pack, and the large one
    (tree / "sub").mkdir()
    (tree / "large").rename(tree / "sub" / "renamed")
    report = heal(memory_place.store, local_path=tree)
    assert report.ok
    assert len(report.healed) == 2
    assert restored(memory_place.store) == whole
    (tree / "small3").unlink()
    [pack] = [each.key for each in report.healed if "20 files" in each.source]
    memory_place.raw.delete(pack)
    verify(memory_place.store, "structure")
    assert [lost.key for lost in heal(memory_place.store, local_path=tree).lost] == [pack]


@pytest.fixture
def versioned(s3_store: S3Store) -> Iterator[Place]:
    """A store in a bucket that keeps earlier versions."""
    bucket = "mltrack-versioned"
    client = s3_store.client
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    settings: S3Settings = replace(s3_store.settings, bucket=bucket)
    store = S3Store(settings)
    yield Place(GuardedStore(RetryingStore(store)), RawS3(client, bucket, settings.prefix))
    pages = client.list_object_versions(Bucket=bucket)
    for each in [*pages.get("Versions", ()), *pages.get("DeleteMarkers", ())]:
        client.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])
    client.delete_bucket(Bucket=bucket)


def test_from_earlier_versions_of_the_object(versioned: Place) -> None:
    """Of a deleted one, one that was written over twice, and a manifest."""
    ref = store_data(versioned.store, b"first", "kept")
    gone = store_data(versioned.store, b"deleted", "kept")
    store_run(versioned.store, "r1", {"x": ref}, project="p")
    before = versioned.raw.get("manifests/r1.json")
    versioned.raw.put(ref.storage_path, b"other")
    versioned.raw.put(ref.storage_path, b"again")
    versioned.raw.delete(gone.storage_path)
    versioned.raw.put("manifests/r1.json", b"{}")
    assert verify(versioned.store).wrong == 3
    report = heal(versioned.store)
    assert report.ok
    assert all(each.source.startswith("the version of ") for each in report.healed)
    assert versioned.raw.get(ref.storage_path) == b"first"
    assert versioned.raw.get(gone.storage_path) == b"deleted"
    assert versioned.raw.get("manifests/r1.json") == before
    assert verify(versioned.store).ok


def test_a_source_that_cannot_be_asked_does_not_hide_the_next(filled: Place) -> None:
    replica = copy_of(filled.raw)
    before = damage(filled.raw)
    verify(filled.store)

    class Forbidding(WrapperStore):
        def older(self, key: str) -> Iterator[Older]:
            raise AccessError("s3:ListBucketVersions is not granted.")

        def head(self, key: str, *, checksum: bool = False) -> Any:
            if key.startswith("data/"):
                raise TransientError("busy")
            return super().head(key, checksum=checksum)

    broken = copy_of(filled.raw)
    report = heal(filled.store, replicas=[Forbidding(broken), broken, replica])
    assert report.ok
    assert set(before) == {each.key for each in report.healed}
    filled.raw.delete(next(iter(before)))
    verify(filled.store)

    class NoVersions(WrapperStore):
        def older(self, key: str) -> Iterator[Older]:
            raise AccessError("s3:ListBucketVersions is not granted.")

    [lost] = heal(NoVersions(filled.store), replicas=[Forbidding(broken)]).lost
    assert lost.tried == ("busy", "s3:ListBucketVersions is not granted.")


# large blobs, models, races


def test_large_blobs_are_healed_in_parts(place: Place, small_parts: None) -> None:
    body = bytes(range(256)) * 40
    ref = store_data(place.store, body, "large")
    replica = copy_of(place.raw)
    for broken in (b"#" + body[1:], None):
        if broken is None:
            place.raw.delete(ref.storage_path)
        else:
            place.raw.put(ref.storage_path, broken)
        verify(place.store)
        assert len(heal(place.store, replicas=[replica]).healed) == 1
        assert read_blob(place.store, ref.hash, "bin", ref.size_bytes) == body
        assert verify(place.store).ok


def test_folders_of_models_are_copied_anew(filled: Place, tmp_path: Path) -> None:
    replica = copy_of(filled.raw)
    real = [key for key in keys(filled, "models/") if key.endswith("/weights")]
    filled.raw.delete(real[0])
    filled.raw.put(real[1], b"WEIGHTS")
    filled.raw.put(layout.blob_key(sha256_hex(b"weights"), "bin"), b"weight?")
    verify(filled.store)
    [blob, *rest] = heal(filled.store).lost
    assert {each.key for each in (blob, *rest)} == {layout.blob_key(sha256_hex(b"weights"), "bin"), *real}
    report = heal(filled.store, replicas=[replica])
    assert report.ok
    assert verify(filled.store).ok
    download_model(filled.store, "churn", "production", tmp_path / "back")
    assert (tmp_path / "back" / "weights").read_bytes() == b"weights"


def test_a_dry_run_writes_nothing(filled: Place) -> None:
    replica = copy_of(filled.raw)
    damage(filled.raw)
    [weights, *_] = [key for key in keys(filled, "models/registry/") if key.endswith("/weights")]
    filled.raw.delete(weights)
    filled.raw.put("manifests/r1.json", b"{}")
    verify(filled.store)
    before = {key: filled.raw.get(key) for key in filled.raw.list()}
    report = heal(filled.store, replicas=[replica], dry_run=True)
    assert {key: filled.raw.get(key) for key in filled.raw.list()} == before
    assert len(report.healed) == 7
    done = heal(filled.store, replicas=[replica])
    assert {each.key for each in done.healed} == {each.key for each in report.healed}


def test_what_somebody_mends_meanwhile_is_not_written_over(filled: Place) -> None:
    """Between our look and our write: the condition fails, and the second look finds it intact."""
    replica = copy_of(filled.raw)
    before = damage(filled.raw)
    verify(filled.store)

    class Racing(WrapperStore):
        def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
            filled.raw.put(key, before[key])
            return super().replace(key, body, etag)

        def create(self, key: str, body: bytes | memoryview) -> bool:
            filled.raw.put(key, before[key])
            return super().create(key, body)

    report = heal(Racing(filled.store), replicas=[replica])
    assert report.healed == ()
    assert set(report.intact) == set(before)


def test_healing_that_dies_anywhere_is_finished_by_the_next(filled: Place) -> None:
    replica = copy_of(filled.raw)
    damage(filled.raw)
    filled.raw.put("manifests/r1.json", b"{}")
    broken = {key: filled.raw.get(key) for key in filled.raw.list()}
    verify(filled.store)
    audits = {key: filled.raw.get(key) for key in keys(filled, "audits/")}
    counted = CountingStore(filled.store)
    heal(counted, replicas=[replica], dry_run=True)
    for fail_at in range(1, counted.calls.total() + 8, 4):
        for key in filled.raw.list():
            filled.raw.delete(key)
        for key, body in {**broken, **audits}.items():
            filled.raw.put(key, body or b"")
        try:
            heal(FaultyStore(filled.store, fail_at, "crash"), replicas=[replica])
        except TransientError:
            assert heal(filled.store, replicas=[replica]).ok
        assert verify_store(filled.store, level="read", keep=False, observe=quiet).ok


def test_server_checksums_are_not_believed(memory_place: Place) -> None:
    """A server whose disk rots keeps saying what it was told when the bytes came."""
    ref = store_data(memory_place.store, b"as sent", "kept")
    replica = copy_of(memory_place.raw)
    memory_place.raw.put(ref.storage_path, b"rotten!")

    class Rotting(WrapperStore):
        def head(self, key: str, *, checksum: bool = False) -> Any:
            found = super().head(key, checksum=checksum)
            return replace(found, sha256=ref.hash) if found and key == ref.storage_path else found

    store = Rotting(memory_place.store)
    assert verify(store, "attested").ok
    assert not verify(store, "read").ok
    assert heal(store, replicas=[replica]).ok
    assert memory_place.raw.get(ref.storage_path) == b"as sent"


def test_audits_that_are_none(filled: Place) -> None:
    with pytest.raises(NotFoundError, match="Run verify_store first"):
        heal(filled.store)
    for audit in ("", "x", "../x"):
        with pytest.raises(InvalidInputError):
            heal(filled.store, audit=audit)
    with pytest.raises(NotFoundError):
        heal(filled.store, audit=f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-read-00000000")


def test_one_store_is_no_list_of_replicas(filled: Place) -> None:
    verify(filled.store)
    for replicas in ("prod", None, filled.store):
        with pytest.raises(InvalidInputError, match="give a list"):
            heal(filled.store, replicas=replicas)


def test_a_later_audit_of_the_structure_does_not_hide_what_was_read(filled: Place) -> None:
    """Each night the structure, each week the bytes: what is asked for by no id is what both found."""
    replica = copy_of(filled.raw)
    flipped, gone, *_ = blobs(filled.raw)
    body = filled.raw.get(flipped) or b""
    filled.raw.put(flipped, bytes([body[0] ^ 1]) + body[1:])
    read = verify(filled.store)
    filled.raw.delete(gone)
    nightly = verify(filled.store, "structure")
    assert set(nightly.counts) == {"missing"}
    assert heal(filled.store, audit=nightly.audit, dry_run=True).audit == nightly.audit
    report = heal(filled.store, replicas=[replica])
    assert (report.ok, {each.key for each in report.healed}) == (True, {flipped, gone})
    assert report.audit == f"{nightly.audit}, {read.audit}"
    assert verify(filled.store).ok


def test_a_run_is_whole_again(filled: Place) -> None:
    replica = copy_of(filled.raw)
    whole = get_run(filled.store, "r1")
    damage(filled.raw)
    filled.raw.delete("manifests/r1~00000002.json")
    filled.raw.put("manifests/r1~00000002.json", b"[")
    verify(filled.store)
    heal(filled.store, replicas=[replica])
    assert get_run(filled.store, "r1") == whole
