"""S3 store: small objects through obstore, parts and checksums through boto3.

No verb retries here: ``RetryingStore`` does, for all stores alike.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy as shallow_copy
from dataclasses import replace
from functools import partial
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

from mltrack_tasks import layout
from mltrack_tasks.digest import part_size_for
from mltrack_tasks.errors import InvalidInputError, MLTrackError, NotFoundError
from mltrack_tasks.stores.base import Level, Older, Stat, Store, Upload, require_two_keys, sorted_folders
from mltrack_tasks.stores.lastlook import delete_watched, is_asked_for, watch_deletions
from mltrack_tasks.stores.s3_answers import BucketFolder, stat_of
from mltrack_tasks.stores.s3_copy import Copier
from mltrack_tasks.stores.s3_errors import (
    Failure,
    botocore_errors,
    failure_of_botocore,
    failure_of_obstore,
    translate,
)
from mltrack_tasks.stores.s3_heads import HeadClient
from mltrack_tasks.stores.s3_objects import build_objects, require_same_process
from mltrack_tasks.stores.s3_parts import PartClient
from mltrack_tasks.stores.s3_settings import CredentialSource, S3Settings, build_client, build_session
from mltrack_tasks.stores.s3_upload import S3Upload
from mltrack_tasks.stores.s3_versions import older_versions, undelete

LARGE_BODY = 512 * 1024
"""[bytes] A larger body may take longer to send than an answer may take to begin (READ_TIMEOUT)."""
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
        watch_deletions(self.client)
        self._parts = PartClient(
            self.client, partial(build_client, self.session, settings, sign_bodies=False)
        )
        self._heads = HeadClient(self.client, settings.bucket, request_payer=settings.request_payer)
        self._copier = Copier(self.client, partial(build_client, self.session, settings, patient=True))
        self._credentials = CredentialSource(self.session)
        self._attributes: Any = {"Storage-Class": settings.storage_class} if settings.storage_class else None
        self._objects = build_objects(self.client, settings, self._credentials)
        self._large_objects = build_objects(self.client, settings, self._credentials, large=True)
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
        if self._put_over(key, body, etag):
            return True
        # Ceph RGW compares If-Match with the ETag as it is without quotes, and refuses every quoted one.
        now = self.head(key)
        return now is not None and now.etag == etag and self._put_over(key, body, etag.strip('"'))

    def upload(self, key: str, size: int, *, replacing: str | None = None) -> Upload:
        self._check_owner()
        part_size_for(size)
        upload = S3Upload(
            self.client, self._parts, self.settings, self._full(key), replacing, answered=self._answered
        )
        self._answered = True
        return upload

    def get(self, key: str) -> bytes:
        with self._errors("get", key):
            return bytes(obstore.get(self._objects, self._full(key)).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes | memoryview:
        with self._errors("get", key):
            try:
                found = obstore.get_range(self._objects, self._full(key), start=start, length=length)
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
        folder, last = self._folder(prefix), after
        try:
            for stat in self._list_fast(folder, after):
                last = stat.key
                yield stat
        except (InvalidPathError, InvalidInputError):
            # A foreign key (a//b, a/../b), which obstore can neither name nor begin after; boto3 can.
            with botocore_errors("list", f"{self.location}/{prefix}"):
                yield from folder.list(self.client, last)

    def level(self, prefix: str) -> Level:
        folder = self._folder(prefix)
        try:
            objects, names = self._level_fast(folder)
        except InvalidPathError:
            with botocore_errors("list", f"{self.location}/{prefix}"):
                objects, names = folder.level(self.client)
        return sorted(objects, key=lambda stat: stat.key), sorted_folders(self, prefix, names)

    def unfinished(self) -> Iterator[Stat]:
        with botocore_errors("uploads", self.location):
            yield from self._folder("").uploads(self.client)

    def older(self, key: str) -> Iterator[Older]:
        return older_versions(self.client, self.settings.bucket, self._full(key))

    def undelete(self, folder: str) -> int:
        self._check_owner()
        return undelete(self.client, self.settings.bucket, self._full(folder.rstrip("/")) + "/")

    def copy(self, source: str, target: str, size: int) -> Stat:
        require_two_keys(source, target)
        self._check_owner()
        raw = self._copier.copy(
            self.settings, self._full(source), self._full(target), size, answered=self._answered
        )
        self._answered = True
        return stat_of(target, raw)

    def delete(self, keys: Iterable[str]) -> None:
        batch = list(keys)
        full = [self._full(key) for key in batch]
        for start in range(0, len(full), DELETE_BATCH):
            part = full[start : start + DELETE_BATCH]
            if is_asked_for():
                delete_watched(self.client, self.settings.bucket, part, self.settings.request_payer)
                continue
            with self._errors("delete", batch[start]):
                obstore.delete(self._objects, part)

    def check(self, key: str) -> None:
        layout.check_key(key, self.settings.prefix)

    def placing(self, storage_class: str) -> Store:
        other = shallow_copy(self)
        other.settings = replace(self.settings, storage_class=storage_class)
        other._attributes = {"Storage-Class": storage_class}
        return other

    def outer(self) -> Iterator[Store]:
        parts = self.settings.prefix.split("/") if self.settings.prefix else []
        for count in reversed(range(len(parts))):
            outer = shallow_copy(self)  # of the same bucket: session and clients are shared
            outer.settings = replace(self.settings, prefix="/".join(parts[:count]))
            outer.location = outer.settings.location
            yield outer

    def _full(self, key: str) -> str:
        require_same_process()
        self.check(key)
        return f"{self.settings.prefix}/{key}" if self.settings.prefix else key

    def _folder(self, prefix: str) -> BucketFolder:
        require_same_process()
        base = self._full(prefix.rstrip("/")) + "/" if prefix else f"{self.settings.prefix}/".lstrip("/")
        return BucketFolder(self.settings.bucket, f"{self.settings.prefix}/".lstrip("/"), base)

    def _put(self, key: str, body: bytes | memoryview, mode: Any) -> None:
        self._check_owner()
        attributes = self._attributes if layout.parse_blob_key(key) else None
        objects = self._objects if len(body) <= LARGE_BODY else self._large_objects
        with self._errors("put", key):
            obstore.put(objects, self._full(key), body, mode=mode, attributes=attributes, use_multipart=False)

    def _put_over(self, key: str, body: bytes | memoryview, etag: str) -> bool:
        try:
            self._put(key, body, {"e_tag": etag})
        except (PreconditionError, AlreadyExistsError, ObjectNotFoundError, NotFoundError):
            return False  # obstore calls the 409 of two replacements that cross AlreadyExists
        return True

    def _head(self, key: str, full: str) -> Stat:
        with self._errors("head", key):
            meta = obstore.head(self._objects, full)
        return Stat(key, meta["size"], meta["e_tag"], meta["last_modified"])

    def _head_checksum(self, key: str, full: str) -> Stat:
        with botocore_errors("head", f"{self.location}/{key}", answered=self._answered):
            raw = self._heads.head(full)
        self._answered = True
        return stat_of(key, raw)

    def _list_fast(self, folder: BucketFolder, after: str) -> Iterator[Stat]:
        offset = self._full(after) if after else None
        with self._errors("list", folder.key):
            for chunk in obstore.list(self._objects, folder.base or None, offset=offset):
                yield from folder.stats(chunk)

    def _level_fast(self, folder: BucketFolder) -> Level:
        with self._errors("list", folder.key):
            found = obstore.list_with_delimiter(self._objects, folder.base or None)
        names = [path[len(folder.base) :] for path in found["common_prefixes"]]
        return [*folder.stats(found["objects"])], names

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        """Translate what obstore raises in this block; note that the server has answered."""
        try:
            yield
        except InvalidPathError:
            raise
        except (BaseError, FileNotFoundError) as error:
            # A refused condition of a PUT is an answer for its caller; elsewhere obstore calls any 409 so.
            if verb == "put" and isinstance(error, (AlreadyExistsError, PreconditionError)):
                self._answered = True
                raise
            translated = self._translated(error, verb, key)
            # obstore quotes the whole answer, and that of SignatureDoesNotMatch repeats the signed headers,
            # session token included: neither a traceback nor what else looks at the chain may show it.
            error.args = (str(translated),)
            raise translated from self._credentials.error
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
