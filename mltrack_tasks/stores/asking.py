"""Asking a server for permissions, by requests that can change nothing.

Reads are of what is there, writes under conditions that cannot hold, deletions of what is not there. Whether
a server keeps conditions is tried first among the trials of ``.probe/``, where what it does all the same can
be removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from mltrack_tasks.errors import MLTrackError, NotFoundError, TransientError
from mltrack_tasks.stores.retry import tried
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_documents import APIS, Api
from mltrack_tasks.stores.s3_errors import botocore_errors, failure_of_botocore, translate
from mltrack_tasks.stores.s3_settings import build_client

Verdict = Literal["allowed", "refused", "not probed"]

_REFUSED = ("AccessDenied", "AccessDeniedException", "403", "AllAccessDisabled")
_MISSING = ("NoSuchKey", "NoSuchVersion", "NoSuchUpload", "404")
_NOT_WRITTEN = (
    *("BadDigest", "InvalidDigest", "PreconditionFailed", "412", "NoSuchKey", "404"),
    "XAmzContentChecksumMismatch",
)
_ARCHIVED = ("InvalidObjectState", "ObjectNotInActiveTierError")
_NOT_DELETED = ("PreconditionFailed", "412", *_MISSING)
_WRONG_MD5 = "AAAAAAAAAAAAAAAAAAAAAA=="
"""What no body of ours hashes to: a server that looks refuses it, as S3 always has."""
_NO_ETAG = '"00000000000000000000000000000000"'
_NO_VERSION = "mltrack000000000000000000version"
_NO_VERSION_ID = ("InvalidArgument", "InvalidVersionId", "400")
_WOULD_MARK = (
    "where versions are kept, to delete what is not there leaves a delete marker; no trial showed that this "
    "bucket keeps none, or that the server heeds If-Match"
)
_NO_UPLOAD = "mltrack-no-such-upload"


@dataclass(frozen=True)
class Heard:
    """What a server made of a question: ``why`` says why it was refused, or could not be asked."""

    verdict: Verdict
    why: str = ""


ALLOWED = Heard("allowed")
READS = {f"s3:Get{api.action}": api for api in APIS.values()}
_WAYS: tuple[dict[str, str], ...] = (
    {"IfNoneMatch": "*", "ContentMD5": _WRONG_MD5},
    {"IfMatch": _NO_ETAG},
)
"""Ways of a PUT that must not write. The first also passes a policy that asks for create-only writes."""


class Asker:
    """Asks for one permission at a time, below one prefix of one bucket.

    ``trial`` is what full keys among the trials begin with. ``begin`` is called before writes and deletions
    are asked for. ``left`` names what a server did against the condition, elsewhere, and would not undo.
    """

    def __init__(self, store: S3Store, trial: str) -> None:
        # One of its own: others must not see what it listens for.
        self._client: Any = build_client(store.session, store.settings)
        self._client.meta.events.register("before-parse.s3", self._keep_body)
        self._body = b""
        self._trial, self._where = trial, store.location
        owner, payer = store.settings.expected_owner, store.settings.request_payer
        self._bucket = {"Bucket": store.settings.bucket, **({"ExpectedBucketOwner": owner} if owner else {})}
        self._payer = {"RequestPayer": "requester"} if payer else {}
        self._put_way: dict[str, str] | None = None
        self._delete_way: dict[str, str] | None = None
        self._denied_put = False
        self._denied_delete: Heard | None = None
        self.left: list[str] = []

    def begin(self) -> None:
        """Find out by which requests this server can be asked for writes and deletions."""
        self._find_put_way()
        self._find_delete_way()

    def listing(self, action: str, prefix: str | None) -> Heard:
        """Ask to list objects, versions or uploads below a full prefix, or without naming one."""
        if prefix is None:  # as when S3 is asked for what is not there
            return self._ask("head_bucket", ())
        if action == "s3:ListBucketVersions":
            return self._ask("list_object_versions", (), Prefix=prefix, MaxKeys=1, **self._payer)
        if action == "s3:ListBucketMultipartUploads":
            return self._ask("list_multipart_uploads", (), Prefix=prefix, MaxUploads=1, **self._payer)
        return self._ask("list_objects_v2", (), Prefix=prefix, MaxKeys=1, **self._payer)

    def reading(self, action: str, key: str, missing: str) -> Heard:
        """Ask to read an object that is there: it, a version of it, or the parts of an upload to it.

        Without one (``key`` is empty) only a refusal is an answer: some servers say of a ``missing`` object
        that it is missing before they look whether it may be read.
        """
        if not key:
            heard = self._reading(action, missing)
            return heard if heard.verdict == "refused" else Heard("not probed", "nothing is there to be read")
        return self._reading(action, key)

    def _reading(self, action: str, key: str) -> Heard:
        options = {"Key": key, **self._payer}
        if action == "s3:ListMultipartUploadParts":
            return self._ask("list_parts", _MISSING, **options, UploadId=_NO_UPLOAD)
        if action == "s3:GetObjectVersion":
            sent = self._send("head_object", (), **options)
            options["VersionId"] = "null" if isinstance(sent, Heard) else sent.get("VersionId", "null")
        return self._ask("get_object", (*_MISSING, *_ARCHIVED), **options, Range="bytes=0-0")

    def make(self) -> str:
        """Write an object among the trials, to be read -> its key, or nothing where that is refused."""
        key = f"{self._trial}-read"
        sent = self._send("put_object", (), Key=key, Body=b"probe", IfNoneMatch="*", **self._payer)
        return "" if isinstance(sent, Heard) else key

    def document(self, api: Api) -> Heard:
        """Ask to read a document of the bucket's configuration."""
        heard = self._ask(api.get, api.absent)
        if heard == ALLOWED and b"<ListBucketResult" in self._body[:200]:
            # Ceph takes a document that it does not know for a listing of the bucket.
            return Heard("not probed", "this server does not have it")
        return heard

    def writing(self, key: str) -> Heard:
        """Ask to write an object, which must not come to be."""
        if self._put_way is None and not self._denied_put:
            return Heard("not probed", "this server writes whatever the condition says")
        way = self._put_way or _WAYS[0]
        sent = self._send("put_object", _NOT_WRITTEN, Key=key, Body=b"probe", **way, **self._payer)
        self._undo(key, sent, written=True)
        return sent if isinstance(sent, Heard) else ALLOWED

    @property
    def writes_safely(self) -> bool:
        """Whether the server was seen to keep a condition, so that even a key in use can be asked for."""
        return self._put_way is not None

    def dropping(self, key: str) -> Heard:
        """Ask to abort an upload that was never begun."""
        return self._ask("abort_multipart_upload", _MISSING, Key=key, UploadId=_NO_UPLOAD, **self._payer)

    def deleting(self, key: str) -> Heard:
        """Ask to delete what is not there."""
        if self._delete_way is None:
            if self._denied_delete and key.startswith(self._trial):
                return self._denied_delete
            return Heard("not probed", _WOULD_MARK)
        sent = self._send("delete_object", _NOT_DELETED, Key=key, **self._delete_way)
        self._undo(key, sent, written=False)
        return sent if isinstance(sent, Heard) else ALLOWED

    def deleting_version(self, key: str) -> Heard:
        """Ask to delete a version that is not there."""
        heard = self._ask("delete_object", _MISSING, Key=key, VersionId="null", **self._payer)
        if heard != ALLOWED:
            return heard
        # To Ceph `null` is no version: so also by an id that nothing has, which others may not even read.
        fine = (*_MISSING, *_NO_VERSION_ID)
        return self._ask("delete_object", fine, Key=key, VersionId=_NO_VERSION, **self._payer)

    def restoring(self, key: str) -> Heard:
        """Ask to restore what is not there."""
        return self._ask("restore_object", _MISSING, Key=key, RestoreRequest={"Days": 1}, **self._payer)

    def _find_put_way(self) -> None:
        """A condition that the server keeps for a key that is not there."""
        for number, way in enumerate(_WAYS):
            key = f"{self._trial}-put-{number}"
            sent = self._send("put_object", _NOT_WRITTEN, Key=key, Body=b"probe", **way, **self._payer)
            if isinstance(sent, Heard):
                self._denied_put = sent.verdict == "refused"
                self._put_way = way if sent == ALLOWED else None
                return

    def _find_delete_way(self) -> None:
        """A condition that the server keeps; none at all in a bucket that keeps no versions."""
        if self._never_versioned():
            self._delete_way = dict(self._payer)
            return
        way = {"IfMatch": _NO_ETAG, **self._payer}
        sent = self._send("delete_object", _NOT_DELETED, Key=f"{self._trial}-deleted", **way)
        if isinstance(sent, Heard) and sent.verdict == "refused":
            self._denied_delete = sent
        unmade = sent == ALLOWED if isinstance(sent, Heard) else not {"VersionId", "DeleteMarker"} & set(sent)
        self._delete_way = way if unmade else None

    def _never_versioned(self) -> bool:
        sent = self._send("get_bucket_versioning", ())
        return not isinstance(sent, Heard) and "Status" not in sent

    def _ask(self, method: str, fine: Sequence[str], **options: Any) -> Heard:
        """Send a request: allowed if it succeeds, or fails for one of the reasons that are ``fine``."""
        sent = self._send(method, fine, **options)
        return sent if isinstance(sent, Heard) else ALLOWED

    def _send(self, method: str, fine: Sequence[str], **options: Any) -> Heard | dict[str, Any]:
        """Send a request -> its answer, or what its failure says."""
        try:
            return tried(lambda: self._sent(method, fine, options))
        except TransientError as error:
            return Heard("not probed", str(error))

    def _sent(self, method: str, fine: Sequence[str], options: dict[str, Any]) -> Heard | dict[str, Any]:
        call: Callable[..., dict[str, Any]] = getattr(self._client, method)
        try:
            answer = call(**self._bucket, **options)
        except (BotoCoreError, ClientError) as error:
            return self._judge(error, method, fine)
        if method == "get_object":
            answer["Body"].close()
        return answer

    def _undo(self, key: str, sent: Heard | dict[str, Any], *, written: bool) -> None:
        """Take back what a request did although its condition did not hold; what stays is ``left``."""
        if isinstance(sent, Heard):
            return
        if not written and "VersionId" not in sent:
            return
        which = {"VersionId": sent["VersionId"]} if "VersionId" in sent else {}
        heard = self._ask("delete_object", _MISSING, Key=key, **which, **self._payer)
        if heard != ALLOWED:
            self.left.append(f"{key}: {heard.why}")

    def _keep_body(self, response_dict: dict[str, Any], **_: Any) -> None:
        self._body = response_dict.get("body") or b""

    def _judge(self, error: Exception, method: str, fine: Sequence[str]) -> Heard:
        failure = failure_of_botocore(error)
        if failure.code in fine:
            return ALLOWED
        if failure.code in _REFUSED:
            return Heard("refused", f"{failure.code}: {failure.message}".rstrip(": "))
        told: MLTrackError = translate(failure, method, self._where, answered=True)
        if isinstance(told, TransientError):
            raise told from error
        return Heard("not probed", str(told))


def is_refusal(error: MLTrackError) -> bool:
    """Tell whether an error says that a permission is missing, and not that nothing works at all."""
    return error.details.get("code") in _REFUSED


def expiry_of(store: S3Store, key: str) -> str | None:
    """Ask when a lifecycle rule lets an object expire: S3's own words, with the rule; None if none does."""
    settings = store.settings
    full = f"{settings.prefix}/{key}".lstrip("/")
    try:
        with botocore_errors("head", f"{store.location}/{key}"):
            answer = store.client.head_object(Bucket=settings.bucket, Key=full)
    except NotFoundError:
        return None
    return str(answer["Expiration"]) if answer.get("Expiration") else None
