"""What a server can do, found out by trying: not all that speak S3 keep its promises."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from mltrack_tasks.digest import base64_from_raw
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.identity import s3_of
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import botocore_errors, failure_of_botocore
from mltrack_tasks.stores.traces import remove_traces

PROBE_FOLDER = ".probe/"


@dataclass(frozen=True)
class Capabilities:
    """What the server of a store does; None where it could not be tried (``notes`` say why)."""

    create_only: bool | None
    create_only_parts: bool | None
    refuses_damage: bool | None
    keeps_checksums: bool | None
    conditional_delete: bool | None
    versioning: bool | None
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """What of the trial could not be removed, and why."""
    unseen: tuple[str, ...] = ()
    """What of the trial could not be looked for."""


def probe_capabilities(store: Store) -> Capabilities:
    """Try the server with small objects under ``.probe/``, which are deleted again.

    A directory or memory store needs no trial: what it does is known.
    """
    bare = s3_of(store)
    if bare is None:
        return Capabilities(True, True, None, True, None, False, ("not an S3 server",))
    trial = _Trial(bare)
    try:
        found = Capabilities(
            create_only=trial.ask("create-only PUT", trial.create_only),
            create_only_parts=trial.ask("create-only multipart", trial.create_only_parts),
            refuses_damage=trial.ask("refusal of damaged bodies", trial.refuses_damage),
            keeps_checksums=trial.ask("checksums on HEAD", trial.keeps_checksums),
            conditional_delete=trial.ask("conditional delete", trial.conditional_delete),
            versioning=trial.ask("versioning", trial.versioning),
        )
    finally:
        traces = remove_traces(bare, f"{trial.folder}/")
    return replace(found, notes=tuple(trial.notes), left=traces.left, unseen=traces.unseen)


class _Trial:
    def __init__(self, store: S3Store) -> None:
        self._store, self._client = store, store.client
        self.folder = f"{PROBE_FOLDER}{secrets.token_hex(8)}"
        self._bucket = store.settings.bucket
        prefix = store.settings.prefix
        self._base = f"{prefix}/{self.folder}" if prefix else self.folder
        self.notes: list[str] = []

    def ask(self, what: str, trial: Callable[[], bool]) -> bool | None:
        """Answer, or note what kept us from one (a policy, a missing operation)."""
        try:
            with botocore_errors("put", self._store.location):
                return trial()
        except MLTrackError as error:
            self.notes.append(f"{what}: {error}")
            return None

    def create_only(self) -> bool:
        key = f"{self.folder}/create"
        return self._store.create(key, b"1") and not self._store.create(key, b"2")

    def create_only_parts(self) -> bool:
        key = f"{self.folder}/parts"
        self._store.create(key, b"1")
        with self._store.upload(key, 1) as upload:
            upload.part(1, b"2", _digest(b"2"))
            return not upload.complete()

    def refuses_damage(self) -> bool:
        wrong = base64_from_raw(_digest(b"something else"))
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=f"{self._base}/damaged", Body=b"body", ChecksumSHA256=wrong
            )
        except self._client.exceptions.ClientError as error:
            return failure_of_botocore(error).code not in ("AccessDenied", "403")
        return False

    def keeps_checksums(self) -> bool:
        key = f"{self.folder}/checksum"
        self._store.create(key, b"body")
        stat = self._store.head(key, checksum=True)
        return stat is not None and stat.sha256 == _digest(b"body").hex()

    def conditional_delete(self) -> bool:
        key = f"{self._base}/create"
        try:
            self._client.delete_object(Bucket=self._bucket, Key=key, IfMatch='"0123456789abcdef"')
        except self._client.exceptions.ClientError as error:
            return failure_of_botocore(error).code in ("PreconditionFailed", "412")
        return False

    def versioning(self) -> bool:
        answer = self._client.get_bucket_versioning(Bucket=self._bucket)
        return bool(answer.get("Status") == "Enabled")


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
