"""What an S3 store is made of, and the sessions and clients built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mltrack_tasks import layout
from mltrack_tasks.errors import AccessError, InvalidInputError
from mltrack_tasks.stores.redirects import stop_redirects
from mltrack_tasks.stores.s3_errors import botocore_errors

if TYPE_CHECKING:
    import boto3
    import botocore.client
    from obstore.store import S3Credential

CONNECT_TIMEOUT = 5
"""[s] to reach the server."""
READ_TIMEOUT = 12
"""[s] without a byte from the server. MinIO sends a blank every 10 s while it completes a large upload."""
REQUEST_TIMEOUT = 600
"""[s] for one whole request: 64 MiB on a slow line (1 Mbit/s) take 540 s."""
CREDENTIALS_TTL = timedelta(minutes=8)
"""How long obstore keeps what the provider gave. botocore renews at the latest 10 minutes before the end."""

STORAGE_CLASSES = (
    *("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"),
    "REDUCED_REDUNDANCY",
)
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes that exist, but not for what must be readable at once."""
ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")
ADDRESSING = ("path", "virtual")
EXTRA_ARGS = ("ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled", "StorageClass", "RequestPayer")
"""Keys of ``s3_extra_args`` that this store honours on every write."""


@dataclass(frozen=True)
class Keys:
    """Where credentials come from. All empty: the AWS default chain (environment, profile, SSO, role)."""

    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    assume_role_arn: str | None = None
    assume_role_options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class S3Settings:
    """One S3 store: bucket, prefix and how to speak to them. Hashable, so that stores can be reused."""

    bucket: str
    prefix: str = "mltrack"
    keys: Keys = Keys()
    region: str | None = None
    endpoint_url: str | None = None
    verify: bool | str = True
    """Whether certificates are checked, or a file of those of a CA of one's own."""
    addressing: str | None = None
    """``path``, or ``virtual``: the bucket is in the host. None: path for an endpoint, else boto3's way."""
    accelerate: bool = False
    """Whether requests go to S3's Transfer Acceleration, which the bucket must have enabled."""
    storage_class: str | None = None
    encryption: str | None = None
    kms_key_id: str | None = None
    bucket_key: bool | None = None
    request_payer: bool = False
    expected_owner: str | None = None
    max_workers: int = 8
    verify_reads: bool = True

    def __post_init__(self) -> None:
        if not self.bucket or "/" in self.bucket:
            raise InvalidInputError(
                f"The bucket {self.bucket!r} is not a bucket's name (no slashes, no s3://)."
            )
        if self.storage_class in ARCHIVES:
            raise InvalidInputError(
                f"Objects in {self.storage_class} cannot be read until they are restored, and a ref must be "
                "readable when it is handed out. Choose GLACIER_IR, or archive old blobs by a lifecycle rule."
            )
        if self.storage_class is not None:
            layout.check_choice(self.storage_class, STORAGE_CLASSES, "The storage class")
        if self.encryption is not None:
            layout.check_choice(self.encryption, ENCRYPTIONS, "server_side_encryption")
        if self.kms_key_id and not str(self.encryption).startswith("aws:kms"):
            raise InvalidInputError("kms_key_id needs server_side_encryption='aws:kms' (or 'aws:kms:dsse').")
        self._check_endpoint()
        object.__setattr__(self, "prefix", layout.check_prefix(self.prefix))

    def _check_endpoint(self) -> None:
        if self.addressing is not None:
            layout.check_choice(self.addressing, ADDRESSING, "addressing_style")
        if self.accelerate and (self.endpoint_url or self.addressing == "path" or "." in self.bucket):
            raise InvalidInputError(
                "transfer_acceleration is of AWS alone, in the virtual style, for buckets without dots in "
                "their names: leave it out, or endpoint_url and addressing_style."
            )

    @property
    def location(self) -> str:
        """``s3://bucket/prefix``, for messages."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def with_extra_args(self, extra: Mapping[str, Any]) -> S3Settings:
        """Apply ``s3_extra_args``; InvalidInputError names a key that this store does not honour."""
        unknown = sorted(set(extra) - set(EXTRA_ARGS))
        if unknown:
            raise InvalidInputError(
                f"s3_extra_args has {', '.join(unknown)}, which this store does not set on its objects. "
                f"It honours {', '.join(EXTRA_ARGS)}."
            )
        if extra.get("RequestPayer", "requester") != "requester":
            raise InvalidInputError("s3_extra_args: RequestPayer can only be 'requester'.")
        return replace(
            self,
            encryption=extra.get("ServerSideEncryption", self.encryption),
            kms_key_id=extra.get("SSEKMSKeyId", self.kms_key_id),
            bucket_key=extra.get("BucketKeyEnabled", self.bucket_key),
            storage_class=extra.get("StorageClass", self.storage_class),
            request_payer=self.request_payer or "RequestPayer" in extra,
        )


def build_session(settings: S3Settings) -> boto3.Session:
    """Open a boto3 session; a role is assumed with credentials that renew themselves."""
    import boto3

    keys = settings.keys
    with botocore_errors("s3:*", settings.location):
        session = boto3.Session(
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.session_token,
            profile_name=keys.profile,
            region_name=settings.region,
        )
        _limit_waiting(session)
        return _assume_role(session, keys, keys.assume_role_arn) if keys.assume_role_arn else session


def _limit_waiting(session: boto3.Session) -> None:
    """Give the clients by which botocore fetches credentials (STS, SSO) our patience, not its 5 x 60 s."""
    from botocore.config import Config

    core: Any = session._session
    core.set_default_client_config(
        Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": 1})
    )


def _assume_role(session: boto3.Session, keys: Keys, role: str) -> boto3.Session:
    import boto3
    import botocore.session
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    core: Any = session._session
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=core.create_client,
        source_credentials=_require_credentials(session),
        role_arn=role,
        extra_args={"RoleSessionName": "mltrack-tasks", **dict(keys.assume_role_options)},
    )
    renewing = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    assumed: Any = botocore.session.get_session()
    assumed._credentials = renewing  # botocore's documented way in for credentials that renew themselves
    return boto3.Session(botocore_session=assumed, region_name=session.region_name)


def _require_credentials(session: boto3.Session) -> Any:
    found = session.get_credentials()
    if found is None:
        raise AccessError(
            "No AWS credentials were found. Give the block credentials, or set AWS_PROFILE or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached."
        )
    return found


def build_client(
    session: boto3.Session,
    settings: S3Settings,
    *,
    sign_bodies: bool | None = None,
    patient: bool = False,
) -> botocore.client.BaseClient:
    """Make the S3 client for what obstore does not do. Its retries are the store's, so it has none.

    ``sign_bodies`` None: boto3's own rule, which is to hash bodies for the signature over plain HTTP. A
    ``patient`` one waits up to REQUEST_TIMEOUT for an answer: a server may be silent while it copies.
    """
    from botocore.config import Config

    style = settings.addressing or ("path" if settings.endpoint_url else None)
    options: Any = {"addressing_style": style} if style else {}
    if settings.accelerate:
        options["use_accelerate_endpoint"] = True
    if sign_bodies is not None:
        options["payload_signing_enabled"] = sign_bodies
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=REQUEST_TIMEOUT if patient else READ_TIMEOUT,
        max_pool_connections=settings.max_workers + 2,
        # Some S3-compatible servers reject the CRC32 trailers that boto3 adds by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3=options,
    )
    endpoint = settings.endpoint_url
    try:
        with botocore_errors("s3:*", settings.location):
            client = session.client("s3", endpoint_url=endpoint, verify=settings.verify, config=config)
            stop_redirects(client)
            return client
    except ValueError as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"endpoint_url {endpoint!r:.200} is no address that boto3 takes: parts of a host's name are 1 to "
            "63 letters, digits and hyphens, without underscores."
        ) from error


class CredentialSource:
    """Credentials for obstore out of a boto3 session, renewed as botocore renews them.

    obstore turns an exception from here into text; ``error`` keeps the exception itself.
    """

    def __init__(self, session: boto3.Session) -> None:
        self._credentials = _require_credentials(session)
        self.error: Exception | None = None

    def __call__(self) -> S3Credential:
        try:
            frozen = self._credentials.get_frozen_credentials()
        except Exception as error:
            self.error = error
            raise
        self.error = None
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_TTL,
        }
