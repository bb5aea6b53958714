"""One table from what S3 says to what a handler does about it. No other module knows service codes."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mltrack_tasks.errors import (
    AccessError,
    ArchivedError,
    InvalidInputError,
    MLTrackError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.stores.redirects import REDIRECTED

ACTIONS = {
    "put": "s3:PutObject",
    "upload": "s3:PutObject",
    "abort": "s3:AbortMultipartUpload",
    "get": "s3:GetObject",
    "head": "s3:GetObject",
    "list": "s3:ListBucket",
    "versions": "s3:ListBucketVersions",
    "version": "s3:GetObjectVersion",
    "uploads": "s3:ListBucketMultipartUploads",
    "delete": "s3:DeleteObject",
    "copy": "s3:GetObject and s3:PutObject",
    "restore": "s3:RestoreObject",
}
"""The IAM action behind each verb of the store."""

_RENEW = "Renew the credentials: for SSO run `aws sso login`, else fetch a new session token."
_CHECK_KEYS = "Check the access key and secret of the block, profile or environment."
_CHECK_CLOCK = "Set this machine's clock: it is off by more than 15 minutes."
_CHECK_BUCKET = "Check the bucket's name, region and endpoint_url, or create it."
_CHECK_REGION = "Set region_name to the bucket's region."
_GRANT = (
    "Grant {action} on this bucket and prefix to these credentials; "
    "without s3:ListBucket a missing key is denied too."
)
_CHECK_WAY = (
    "What answered is no S3 server: check endpoint_url (https://?), and proxies and login pages on the way."
)
_CHECK_PROXY = "Give HTTPS_PROXY the proxy's user and password, or put the server's host into NO_PROXY."
_CHECK_TLS = (
    "Check that endpoint_url speaks TLS, and name the file of the authority that its certificate is from in "
    "ca_bundle."
)
_AGAIN = "Try again; nothing was lost."
_RESTORE = "Restore it first (restore_data), then read it."
_DAMAGED = "The body was damaged on its way and refused; send it again."

NO_S3 = "NoS3Answer"
"""Code of our own: an answer that is no XML of S3's."""

_Row = tuple[type[MLTrackError], str]
CODES: dict[str, _Row] = {
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AccountProblem", "403"),
        (AccessError, _GRANT),
    ),
    **dict.fromkeys(
        ("InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidSecurity"),
        (AccessError, _CHECK_KEYS),
    ),
    **dict.fromkeys(
        (
            "ExpiredToken",
            "ExpiredTokenException",
            "TokenRefreshRequired",
            "InvalidToken",
            "InvalidTokenId",
            "RequestExpired",
        ),
        (AccessError, _RENEW),
    ),
    **dict.fromkeys(("RequestTimeTooSkewed",), (AccessError, _CHECK_CLOCK)),
    **dict.fromkeys(("NoSuchBucket", "InvalidBucketName"), (AccessError, _CHECK_BUCKET)),
    **dict.fromkeys(
        (
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
            "301",
            "307",
        ),
        (AccessError, _CHECK_REGION),
    ),
    **dict.fromkeys((REDIRECTED, NO_S3, "302", "303", "308"), (AccessError, _CHECK_WAY)),
    **dict.fromkeys(("407", "511"), (AccessError, _CHECK_PROXY)),
    **dict.fromkeys(
        ("NoSuchKey", "NoSuchUpload", "NoSuchVersion", "404"), (NotFoundError, "Check the name.")
    ),
    **dict.fromkeys(
        (
            *("SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Busy", "Throttling"),
            *("InternalError", "RequestTimeout", "OperationAborted", "ConditionalRequestConflict"),
            *("ConcurrentModification", "RequestTimeTooLarge", "BandwidthLimitExceeded"),
            *("500", "502", "503", "504", "429", "408", "409"),
        ),
        (TransientError, _AGAIN),
    ),
    **dict.fromkeys(
        ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"), (TransientError, _DAMAGED)
    ),
    **dict.fromkeys(("InvalidObjectState", "ObjectNotInActiveTierError"), (ArchivedError, _RESTORE)),
    "GlacierExpeditedRetrievalNotAvailable": (TransientError, "Try again, or choose Standard or Bulk."),
    **dict.fromkeys(
        ("KMS.DisabledException", "KMS.NotFoundException", "KMSAccessDenied"),
        (AccessError, "Check kms_key_id and grant kms:GenerateDataKey and kms:Decrypt on it."),
    ),
    **dict.fromkeys(
        (
            "InvalidStorageClass",
            "InvalidArgument",
            "InvalidRequest",
            "InvalidRange",
            "EntityTooLarge",
            "EntityTooSmall",
            "KeyTooLongError",
            "400",
            "416",
        ),
        (InvalidInputError, "Check the store's options (storage class, encryption, KMS key)."),
    ),
    **dict.fromkeys(
        (
            *("MalformedXML", "MalformedPolicy", "InvalidPolicyDocument", "InvalidTag", "InvalidBucketState"),
            *("InvalidTargetBucketForLogging", "InvalidBucketAclWithObjectOwnership"),
            *("InvalidLocationConstraint", "InvalidEventSelectorsException", "IllegalLocationConstraint"),
        ),
        (InvalidInputError, "Check the settings of the bucket (docs/bucket.md)."),
    ),
    **dict.fromkeys(
        ("BucketAlreadyExists", "BucketAlreadyOwnedByYou", "BucketNameUnavailable", "TooManyBuckets"),
        (AccessError, "Choose another name for the bucket, or use the one that is there."),
    ),
    **dict.fromkeys(
        ("NotImplemented", "XNotImplemented", "MethodNotAllowed", "501", "405"),
        (AccessError, "This server lacks the operation; use one that has it (see check_access)."),
    ),
    **dict.fromkeys(
        ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "InvalidAddress"),
        (AccessError, "Check the queue's name, region and account, or create it (docs/bucket.md)."),
    ),
    "NoRegionError": (AccessError, "Set region_name, or AWS_DEFAULT_REGION."),
    "InvalidRegionError": (AccessError, _CHECK_REGION),
    "ParamValidationError": (
        InvalidInputError,
        "Check the options of the credentials block, such as assume_role_kwargs.",
    ),
    **dict.fromkeys(
        ("QuotaExceeded", "XMinioStorageFull", "507"), (AccessError, "The server is full; free some space.")
    ),
}

_XML_CODE = re.compile(r"<Code>([^<]{1,80})</Code>|\(code: (\w{1,80})\)")
_XML_MESSAGE = re.compile(r"<Message>([^<]{0,300})</Message>")
_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_KIND = re.compile(r"kind: (\w+)")
_EXPIRED_LOGIN = ("SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "SSOError")
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "MetadataRetrievalError",
)
_BAD_CONFIG = (
    "ProfileNotFound",
    "ConfigParseError",
    "ConfigNotFound",
    "InvalidConfigError",
    "InfiniteLoopConfigError",
)
_UNREACHABLE = (
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError"),
    *("ProxyConnectionError", "SSLError"),
)


@dataclass(frozen=True)
class Failure:
    """What one failed request said: a service code or HTTP status, a message, and how it broke off."""

    code: str
    message: str
    unreachable: bool = False


def failure_of_obstore(error: BaseException) -> Failure:
    """Read an obstore error's text -> the service's code and message."""
    text = str(error)
    if "redirect without LOCATION" in text:
        return Failure("PermanentRedirect", "the bucket is in another region")
    code, message, status, kind = (
        next(filter(None, found.groups()), "") if (found := pattern.search(text)) else ""
        for pattern in (_XML_CODE, _XML_MESSAGE, _STATUS, _KIND)
    )
    if not code and not status and kind in ("Connect", "Timeout"):
        return Failure(kind, _first_line(text), unreachable=True)
    if not code:
        return Failure(status or kind or type(error).__name__, _first_line(text))
    return Failure(code, _plain(message))


def failure_of_botocore(error: BaseException) -> Failure:
    """Read a botocore error -> the service's code and message, or the name of its class."""
    answer: dict[str, Any] = getattr(error, "response", None) or {}
    said = answer.get("Error", {})
    if said.get("Code"):
        return Failure(str(said["Code"]), _plain(str(said.get("Message") or ""))[:300])
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 300:  # with a body that is none of S3's
        return Failure(str(status), "")
    name = type(error).__name__
    return Failure(name, _first_line(str(error)), unreachable=name in _UNREACHABLE)


def translate(failure: Failure, verb: str, where: str, *, answered: bool) -> MLTrackError:
    """Choose the error for a failed request.

    ``where`` names bucket and key. An endpoint that never ``answered`` in the life of the store is an
    AccessError at once; one that did is a TransientError.
    """
    action = ACTIONS.get(verb, verb)
    said = f"{failure.code}: {failure.message}" if failure.message else failure.code
    what = f"{action} on {where} failed: {said}."
    kind, advice = _row(failure, answered)
    fix = advice.format(action=action)
    details = {"code": failure.code, "action": action, "where": where, "fix": fix}
    return kind(f"{what} {fix}", details=details)


def _row(failure: Failure, answered: bool) -> _Row:
    if failure.code == "SSLError" and not answered:
        return AccessError, _CHECK_TLS
    if failure.unreachable and not answered:
        return (
            AccessError,
            "The endpoint cannot be reached: check endpoint_url, region, DNS, proxy and network.",
        )
    if failure.code in CODES:
        return CODES[failure.code]
    if failure.code in _EXPIRED_LOGIN or (
        "sso" in failure.message.lower() and "expired" in failure.message.lower()
    ):
        return AccessError, "The SSO login has expired: run `aws sso login` (with --profile if you use one)."
    if failure.code in _NO_CREDENTIALS:
        return (
            AccessError,
            "No usable credentials: give the block some, or set AWS_PROFILE, AWS_ACCESS_KEY_ID or a role.",
        )
    if failure.code in _BAD_CONFIG:
        return AccessError, "Check the profile in ~/.aws/config and AWS_PROFILE."
    return TransientError, _AGAIN


@contextmanager
def botocore_errors(verb: str, where: str, *, answered: bool = True) -> Iterator[None]:
    """Translate what boto3 raises in this block."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise translate(failure_of_botocore(error), verb, where, answered=answered) from error


def _plain(message: str) -> str:
    """A message out of XML, to stand before a full stop of ours."""
    return html.unescape(message).strip().rstrip(".")


def _first_line(text: str) -> str:
    line = text.split("\n", 1)[0].strip()
    return line.rsplit(" - ", 1)[-1][:300]
