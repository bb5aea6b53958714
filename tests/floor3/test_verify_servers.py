"""What servers say of objects beside their bytes: composites, archives, uploads that were left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mltrack_tasks import layout
from mltrack_tasks.content import store_data
from mltrack_tasks.errors import AccessError
from mltrack_tasks.recordstore import read_record
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Stat, Store, WrapperStore
from mltrack_tasks.trust import audit
from mltrack_tasks.trust.findings import VerifyReport
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import quiet


def verify(store: Store, level: str, **options: Any) -> VerifyReport:
    return verify_store(store, level=level, observe=quiet, **options)


def kinds(report: VerifyReport) -> list[str]:
    return [finding.kind for finding in report.findings]


class Saying(WrapperStore):
    """Says of blobs what it was told to say."""

    def __init__(self, inner: Store, **said: Any) -> None:
        super().__init__(inner)
        self.said = said

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        found = self.inner.head(key, checksum=checksum)
        return replace(found, **self.said) if found and checksum and layout.parse_blob_key(key) else found


@pytest.fixture
def large(memory_place: Place, small_parts: None) -> DataRef:
    return store_data(memory_place.store, bytes(range(256)) * 40, "large")


def composite(place: Place, ref: DataRef) -> str:
    return str(read_record(place.store, layout.blob_parts_key(ref.hash)).content["composite"])


def test_a_composite_attests_what_was_noted(memory_place: Place, large: DataRef) -> None:
    noted = composite(memory_place, large)
    report = verify(Saying(memory_place.store, sha256=None, composite=noted), "attested")
    assert kinds(report) == []
    assert report.checked.objects == 1


def test_a_composite_of_other_bytes_is_told(memory_place: Place, large: DataRef) -> None:
    """As when two large blobs of one size are swapped by a tool that sends the same parts."""
    other = composite(memory_place, store_data(memory_place.store, bytes(reversed(range(256))) * 40, "other"))
    memory_place.raw.put(large.storage_path, bytes(reversed(range(256))) * 40)
    report = verify(Saying(memory_place.store, sha256=None, composite=other), "attested")
    assert kinds(report) == ["wrong_checksum"]
    assert report.findings[0].key == large.storage_path
    assert kinds(verify(memory_place.store, "read")) == ["corrupt"]


@pytest.mark.parametrize("said", ["other parts", "no composite"])
def test_what_cannot_be_compared_is_only_a_notice(memory_place: Place, large: DataRef, said: str) -> None:
    noted = composite(memory_place, large)
    parts = {"other parts": noted.rpartition("-")[0] + "-2", "no composite": None}[said]
    report = verify(Saying(memory_place.store, sha256=None, composite=parts), "attested")
    assert (kinds(report), report.ok) == (["unattested"], True)
    assert report.unattested.objects == 1


def test_a_note_that_is_gone_leaves_nothing_to_compare(memory_place: Place, large: DataRef) -> None:
    noted = composite(memory_place, large)
    memory_place.raw.delete(layout.blob_parts_key(large.hash))
    report = verify(Saying(memory_place.store, sha256=None, composite=noted), "attested")
    assert kinds(report) == ["unattested"]


def test_archived_blobs_are_attested_but_cannot_be_read(s3_place: Place, s3_store: Any) -> None:
    ref = store_data(s3_place.store, b"cold", "kept")
    settings = s3_store.settings
    s3_store.client.put_object(
        Bucket=settings.bucket,
        Key=f"{settings.prefix}/{ref.storage_path}",
        Body=b"cold",
        StorageClass="GLACIER",
        ChecksumAlgorithm="SHA256",
    )
    attested = verify(s3_place.store, "attested")
    assert (kinds(attested), attested.ok) == (["archived"], True)
    read = verify(s3_place.store, "read")
    assert (kinds(read), read.ok) == (["archived"], True)
    assert read.checked.objects == 0


def test_unfinished_uploads(s3_place: Place, s3_store: Any) -> None:
    """The S3 of the tests says of all uploads that they began in 2010."""
    store_data(s3_place.store, b"x", "kept")
    settings = s3_store.settings
    for key in ("data/ab/large", "elsewhere"):
        s3_store.client.create_multipart_upload(Bucket=settings.bucket, Key=f"{settings.prefix}/{key}")
    s3_store.client.create_multipart_upload(Bucket=settings.bucket, Key="of another store")
    report = verify(s3_place.store, "structure")
    assert [(each.kind, each.key) for each in report.findings] == [
        ("unfinished_upload", "data/ab/large"),
        ("unfinished_upload", "elsewhere"),
    ]
    assert report.ok


def test_files_that_a_writer_left_in_a_directory(directory_place: Place, tmp_path: Path) -> None:
    store_data(directory_place.store, b"x", "kept")
    left = tmp_path / "store" / ".tmp" / "0123"
    left.write_bytes(b"half")
    assert kinds(verify(directory_place.store, "structure")) == []
    os.utime(left, (0, 0))
    [finding] = verify(directory_place.store, "structure").findings
    assert (finding.kind, finding.key) == ("unfinished_upload", ".tmp/0123")


def test_names_that_are_no_text(
    directory_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Foreign files whose names no record can hold, where steps end at them."""
    monkeypatch.setattr(audit, "STEP_FINDINGS", 1)
    monkeypatch.setattr(audit, "_BATCH", 1)
    store_data(directory_place.store, b"x", "kept")
    root = bytes(tmp_path / "store")
    for folder in (b"data", b"models/development", b"manifests", b"runs/by_data", b"other", b""):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
        with open(os.path.join(root, folder, b"\xff\n"), "wb") as file:
            file.write(b"?")
    for level in ("structure", "read"):
        report = verify(directory_place.store, level)
        assert set(kinds(report)) == {"foreign_object"}
        assert report.ok


def test_what_may_not_be_asked_is_said(memory_place: Place) -> None:
    class Forbidding(WrapperStore):
        def unfinished(self) -> Iterator[Stat]:
            raise AccessError("s3:ListBucketMultipartUploads is not granted.")

    store_data(memory_place.store, b"x", "kept")
    report = verify(Forbidding(memory_place.store), "structure")
    assert report.ok
    assert report.left_out == ("Unfinished uploads: s3:ListBucketMultipartUploads is not granted.",)
