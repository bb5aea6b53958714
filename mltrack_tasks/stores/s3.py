"""S3 store: small objects through obstore, parts and checksums through boto3.

No verb retries here: ``RetryingStore`` does, for all stores alike.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PreconditionError,
)
from obstore.exceptions import (
    NotFoundError as ObjectNotFoundError,
)
from obstore.store import S3Store as Objects

from mltrack_tasks import layout
from mltrack_tasks.digest import hex_from_base64, is_composite, part_size_for
from mltrack_tasks.errors import MLTrackError, NotFoundError
from mltrack_tasks.stores import s3_settings
from mltrack_tasks.stores.base import Stat, Store, Upload
from mltrack_tasks.stores.s3_errors import (
    Failure,
    botocore_errors,
    failure_of_botocore,
    failure_of_obstore,
    translate,
)
from mltrack_tasks.stores.s3_settings import CredentialSource, S3Settings, build_client, build_session
from mltrack_tasks.stores.s3_upload import S3Upload

DELETE_BATCH = 1_000
"""Keys of one DeleteObjects request."""


class S3Store(Store):
    """One prefix of one bucket."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self.location = settings.location
        self.max_workers = settings.max_workers
        self.verify_reads = settings.verify_reads
        self.session = build_session(settings)
        self.client: Any = build_client(self.session, settings)
        self._credentials = CredentialSource(self.session)
        self._attributes: Any = {"Storage-Class": settings.storage_class} if settings.storage_class else None
        self._plain = self._objects()
        self._answered = False
        self._bucket_seen = False
        self._owner_checked = settings.expected_owner is None
        self._owner_lock = threading.Lock()

    def create(self, key: str, body: bytes | memoryview) -> bool:
        try:
            self._put(key, body, "create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        try:
            self._put(key, body, {"e_tag": etag})
        except (PreconditionError, ObjectNotFoundError):
            return False
        return True

    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        self._check_owner()
        return S3Upload(self.client, self.settings, self._full(key), part_size_for(size), replacing)

    def get(self, key: str) -> bytes:
        with self._errors("get", key):
            return bytes(obstore.get(self._plain, self._full(key)).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        with self._errors("get", key):
            try:
                found = obstore.get_range(self._plain, self._full(key), start=start, length=length)
                return memoryview(found)  # not copied: ranges are large and several are in flight
            except BaseError as error:
                if failure_of_obstore(error).code in ("InvalidRange", "416"):
                    return b""
                raise

    def head(self, key: str, *, checksum: bool = False) -> Stat | None:
        full = self._full(key)
        try:
            return self._head_checksum(key, full) if checksum else self._head(key, full)
        except NotFoundError:
            self._require_bucket()
            return None

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        last = after
        try:
            for stat in self._list_fast(prefix, after):
                last = stat.key
                yield stat
        except InvalidPathError:
            # A foreign key (a//b, a/../b) that obstore refuses to name ends its listing; boto3 shows all.
            yield from self._list_all(prefix, last)

    def delete(self, keys: Iterable[str]) -> None:
        full = [self._full(key) for key in keys]
        for start in range(0, len(full), DELETE_BATCH):
            with self._errors("delete", full[start]):
                obstore.delete(self._plain, full[start : start + DELETE_BATCH])

    def outer(self) -> Iterator[Store]:
        parts = self.settings.prefix.split("/") if self.settings.prefix else []
        for count in reversed(range(len(parts))):
            yield S3Store(replace(self.settings, prefix="/".join(parts[:count])))

    def _objects(self) -> Objects:
        """An obstore client; every setting is given, so that no AWS_* variable changes what it does."""
        settings = self.settings
        endpoint: str = self.client.meta.endpoint_url
        config: dict[str, Any] = {
            "endpoint": endpoint,
            "region": self.client.meta.region_name or "us-east-1",
            "virtual_hosted_style_request": False,
            "checksum_algorithm": "sha256",
            "conditional_put": "etag",
            "skip_signature": False,
            "request_payer": settings.request_payer,
            "disable_tagging": True,
        }
        if settings.encryption:
            config["server_side_encryption"] = settings.encryption
        if settings.kms_key_id:
            config["sse_kms_key_id"] = settings.kms_key_id
        if settings.bucket_key is not None:
            config["sse_bucket_key_enabled"] = settings.bucket_key
        return Objects(
            settings.bucket,
            config=config,  # type: ignore[arg-type]
            client_options=_client_options(settings, endpoint),
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
            credential_provider=self._credentials,
        )

    def _full(self, key: str) -> str:
        prefix = self.settings.prefix
        layout.check_key(key, prefix)
        return f"{prefix}/{key}" if prefix else key

    def _put(self, key: str, body: bytes | memoryview, mode: Any) -> None:
        self._check_owner()
        attributes = self._attributes if layout.parse_blob_key(key) else None
        with self._errors("put", key):
            obstore.put(
                self._plain, self._full(key), body, mode=mode, attributes=attributes, use_multipart=False
            )

    def _head(self, key: str, full: str) -> Stat:
        with self._errors("head", key):
            meta = obstore.head(self._plain, full)
        return Stat(key, meta["size"], meta["e_tag"], meta["last_modified"])

    def _head_checksum(self, key: str, full: str) -> Stat:
        extra = {"RequestPayer": "requester"} if self.settings.request_payer else {}
        where = f"{self.location}/{key}"
        with botocore_errors("head", where, answered=self._answered):
            raw = self.client.head_object(
                Bucket=self.settings.bucket, Key=full, ChecksumMode="ENABLED", **extra
            )
        self._answered = True
        return _stat(key, raw)

    def _list_fast(self, prefix: str, after: str) -> Iterator[Stat]:
        base = self._full(prefix.rstrip("/")) + "/" if prefix else f"{self.settings.prefix}/".lstrip("/")
        cut = len(self.settings.prefix) + 1 if self.settings.prefix else 0
        offset = self._full(after) if after else None
        with self._errors("list", prefix):
            for chunk in obstore.list(self._plain, base or None, offset=offset):
                for meta in chunk:
                    if meta["path"].startswith(base):  # not the folder's own placeholder object
                        yield Stat(meta["path"][cut:], meta["size"], meta["e_tag"], meta["last_modified"])

    def _list_all(self, prefix: str, after: str) -> Iterator[Stat]:
        base = f"{self.settings.prefix}/".lstrip("/")
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.settings.bucket, Prefix=base + prefix, StartAfter=base + after if after else ""
        )
        with botocore_errors("list", f"{self.location}/{prefix}"):
            for page in pages:
                for raw in page.get("Contents", ()):
                    yield Stat(raw["Key"][len(base) :], raw["Size"], raw["ETag"], raw["LastModified"])

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        """Translate what obstore raises in this block; note that the server has answered."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError, InvalidPathError):
            self._answered = True
            raise
        except (BaseError, FileNotFoundError) as error:
            raise self._translated(error, verb, key) from error
        self._answered = True

    def _translated(self, error: Exception, verb: str, key: str) -> MLTrackError:
        where = f"{self.location}/{key}"
        failure = failure_of_obstore(error)
        if self._credentials.error is not None:
            failure = failure_of_botocore(self._credentials.error)
        result = translate(failure, verb, where, answered=self._answered)
        self._answered = self._answered or not failure.unreachable
        return result

    def _require_bucket(self) -> None:
        """Tell a missing bucket from a missing key: a HEAD says 404 for both. Asked once a store."""
        if self._bucket_seen:
            return
        with botocore_errors("list", self.location, answered=self._answered):
            try:
                self.client.head_bucket(Bucket=self.settings.bucket)
            except self.client.exceptions.ClientError as error:
                if failure_of_botocore(error).code == "404":
                    missing = Failure("NoSuchBucket", f"there is no bucket {self.settings.bucket}")
                    raise translate(missing, "head", self.location, answered=True) from error
                # A role without s3:ListBucket may not ask; the key's own 404 stands.
                if failure_of_botocore(error).code != "403":
                    raise
        self._bucket_seen = True

    def _check_owner(self) -> None:
        """Refuse to write into somebody else's bucket, once a store.

        obstore cannot sign ``x-amz-expected-bucket-owner`` on each request, so it is asked for up front.
        """
        with self._owner_lock:
            if self._owner_checked:
                return
            with botocore_errors("list", self.location, answered=self._answered):
                self.client.head_bucket(
                    Bucket=self.settings.bucket, ExpectedBucketOwner=self.settings.expected_owner
                )
            self._owner_checked = True


def _client_options(settings: S3Settings, endpoint: str) -> Any:
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=s3_settings.CONNECT_TIMEOUT),
        "read_timeout": timedelta(seconds=s3_settings.READ_TIMEOUT),
        "timeout": timedelta(seconds=s3_settings.REQUEST_TIMEOUT),
        "pool_max_idle_per_host": str(settings.max_workers + 2),
    }
    if settings.verify is False:
        options["allow_invalid_certificates"] = True
    elif isinstance(settings.verify, str):
        options["root_certificate"] = Path(settings.verify).read_bytes()
    return options


def _stat(key: str, raw: dict[str, Any]) -> Stat:
    whole, composite = _checksums(raw)
    return Stat(
        key,
        raw["ContentLength"],
        raw.get("ETag"),
        raw["LastModified"],
        storage_class=raw.get("StorageClass"),
        restored='ongoing-request="false"' in raw.get("Restore", ""),
        sha256=whole,
        composite=composite,
    )


def _checksums(raw: dict[str, Any]) -> tuple[str | None, str | None]:
    """Read a HEAD's answer -> (digest of the whole object, composite checksum); at most one is there.

    Some servers leave the number of parts off a composite; the ETag has it too.
    """
    checksum = raw.get("ChecksumSHA256")
    if not checksum:
        return None, None
    if is_composite(checksum):
        return None, checksum
    parts = raw.get("ETag", "").strip('"').partition("-")[2]
    if parts and raw.get("ChecksumType") != "FULL_OBJECT":
        return None, f"{checksum}-{parts}"
    return hex_from_base64(checksum), None
