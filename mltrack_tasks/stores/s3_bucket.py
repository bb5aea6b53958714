"""The bucket's own configuration: one document per API, read and written whole, as plain JSON.

Only what goes back exactly as it came is handed out: a field that this version of boto3 does not know would
be lost when the document is written, so that is found out when it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from mltrack_tasks.errors import AccessError, FormatError, MLTrackError
from mltrack_tasks.stores.queue_setup import read_queue, write_queue
from mltrack_tasks.stores.retry import tried
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_documents import APIS, Api, lost_of, plain
from mltrack_tasks.stores.s3_errors import botocore_errors
from mltrack_tasks.stores.s3_settings import build_client
from mltrack_tasks.stores.s3_tiers import read_tiers, write_tiers
from mltrack_tasks.stores.trails import read_selectors, write_selectors

State = Literal["there", "absent", "unsupported", "denied"]

_UNSUPPORTED = ("NotImplemented", "XNotImplemented", "MethodNotAllowed", "501", "405")


@dataclass(frozen=True)
class Found:
    """What a bucket says of one document: a JSON object, the text of a policy, or None. ``detail`` says "
    "why."""

    state: State
    document: Any = None
    detail: str = ""


class BucketAdmin:
    """The configuration of the bucket of a store. For one thread."""

    def __init__(self, store: S3Store) -> None:
        self.store, self.settings = store, store.settings
        self.client: Any = build_client(store.session, store.settings)
        self.trail: str | None = None
        self.queue: str | None = None
        self._body = b""
        self.client.meta.events.register("before-parse.s3", self._keep_body)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.settings.bucket

    def read(self, name: str) -> Found:
        """Read a document. Raises FormatError for one that could not be written again as it is."""
        return tried(lambda: self._read(name))

    def _read(self, name: str) -> Found:
        if name == "cloudtrail":
            return self._read_trail()
        if name == "queue":
            return self._read_queue()
        api = APIS[name]
        action = f"s3:Get{api.action}"
        try:
            with botocore_errors(action, f"s3://{self.bucket}"):
                if name == "archive_tiers":
                    answer = read_tiers(self.client, self._target())
                else:
                    answer = getattr(self.client, api.get)(**self._target())
        except MLTrackError as error:
            return _unread(error, api)
        answer.pop("ResponseMetadata", None)
        answer.pop("RequestCharged", None)
        document = plain(answer.get(api.member) if api.wrapped else answer)
        if not document:
            return Found("absent")
        if api.member and not isinstance(document, str):
            self._require_whole(api, document)
        return Found("there", document)

    def write(self, name: str, document: Any) -> None:
        """Write a document; None removes it, or switches off what cannot be removed."""
        tried(lambda: self._write(name, document))

    def _read_trail(self) -> Found:
        if self.settings.endpoint_url:
            return Found("unsupported", detail="an S3-compatible server has no CloudTrail")
        if self.trail is None:
            return Found("absent")
        return Found("there", plain(read_selectors(self.store, self.trail)))

    def _read_queue(self) -> Found:
        document = read_queue(self.store, self.queue) if self.queue else {}
        return Found("there", document) if document else Found("absent")

    def _write(self, name: str, document: Any) -> None:
        if name == "cloudtrail":
            write_selectors(self.store, document)
            return
        if name == "queue":
            write_queue(self.store, document)
            return
        api = APIS[name]
        with botocore_errors(f"s3:Put{api.action}", f"s3://{self.bucket}"):
            if name == "archive_tiers":
                write_tiers(self.client, self._target(), document)
                return
            if document is None and api.delete:
                getattr(self.client, api.delete)(**self._target())
                return
            rest = dict(api.off) if document is None else document
            if name == "versioning":
                rest = {"Status": rest["Status"]}  # MFADelete stays; to say it would ask for a device
            beside = {} if isinstance(rest, str) else {key: rest[key] for key in api.beside if key in rest}
            if beside:
                rest = {key: value for key, value in rest.items() if key not in beside}
            getattr(self.client, api.put)(**self._target(), **{api.member: rest}, **beside)

    def create(self, region: str | None, ownership: str | None) -> None:
        """Make the bucket in a region. Raises AccessError if somebody else has one of that name."""
        options: dict[str, Any] = {"Bucket": self.bucket}
        if region not in (None, "us-east-1") and not self.settings.endpoint_url:
            options["CreateBucketConfiguration"] = {"LocationConstraint": region}
        if ownership:
            options["ObjectOwnership"] = ownership
        where = f"s3://{self.bucket}"
        try:
            with botocore_errors("s3:CreateBucket", where):
                self.client.create_bucket(**options)
        except MLTrackError as error:
            code = error.details.get("code")
            if code == "BucketAlreadyOwnedByYou":
                return  # a call at the same time, or a lost answer of ours
            if code in ("BucketAlreadyExists", "BucketNameUnavailable"):
                raise AccessError(
                    f"There is a bucket {self.bucket!r} of somebody else; choose another name.",
                    details=error.details,
                ) from error
            raise

    def is_shared(self) -> bool:
        """Tell whether the bucket holds anything beside the store: two listings of one key."""
        root = f"{self.settings.prefix}/" if self.settings.prefix else ""
        if not root:
            return False
        with botocore_errors("list", f"s3://{self.bucket}"):
            first = self._first("")
            behind = self._first(f"{root}\U0010ffff")  # the last character that there is
        return any(key is not None and not key.startswith(root) for key in (first, behind))

    def versioned(self, bucket: str) -> bool | None:
        """Tell whether another bucket keeps versions; None if we may not ask."""
        try:
            with botocore_errors("s3:GetBucketVersioning", f"s3://{bucket}"):
                return bool(self.client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled")
        except AccessError as error:
            if error.details.get("code") == "NoSuchBucket":
                raise
            return None

    def _first(self, after: str) -> str | None:
        options = {"StartAfter": after} if after else {}
        found = tried(lambda: self.client.list_objects_v2(Bucket=self.bucket, MaxKeys=1, **options))
        return next((each["Key"] for each in found.get("Contents", ())), None)

    def _target(self) -> dict[str, str]:
        owner = self.settings.expected_owner
        return {"Bucket": self.bucket, **({"ExpectedBucketOwner": owner} if owner else {})}

    def _keep_body(self, response_dict: dict[str, Any], **_: Any) -> None:
        self._body = response_dict.get("body") or b""

    def _require_whole(self, api: Api, document: dict[str, Any]) -> None:
        sent = {key: value for key, value in document.items() if key not in api.beside}
        lost = lost_of(self._body, self._serialized(api, sent))
        if lost:
            raise FormatError(
                f"The {api.member} of the bucket {self.bucket} holds what this version of boto3 does not "
                f"know ({', '.join(lost[:5])}); written again, that would be lost. Upgrade boto3.",
                details={"unknown": lost},
            )

    def _serialized(self, api: Api, document: dict[str, Any]) -> bytes:
        from botocore.serialize import create_serializer

        method = self.client.meta.method_to_api_mapping[api.put]
        operation = self.client.meta.service_model.operation_model(method)
        request = create_serializer("rest-xml").serialize_to_request(
            {"Bucket": self.bucket, api.member: document}, operation
        )
        return bytes(request["body"])


def is_unsupported(error: MLTrackError) -> bool:
    """Tell whether a server refused a request because it lacks the operation."""
    return error.details.get("code") in _UNSUPPORTED


def _unread(error: MLTrackError, api: Api) -> Found:
    code = error.details.get("code")
    if code in api.absent:
        return Found("absent")
    if is_unsupported(error):
        return Found("unsupported", detail=f"this server does not have it ({code})")
    if code in ("AccessDenied", "403"):
        return Found("denied", detail=str(error))
    raise error
