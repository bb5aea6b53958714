"""What a request to S3 asks for in terms of IAM: actions, resources and condition keys.

The table is that of AWS's Service Authorization Reference for S3, for the requests that this library sends; a
request that is not in it is an error, so that a new one is looked up and not passed over.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote


class Asked(NamedTuple):
    """One permission that a request needs: ``resource`` is an ARN, ``prefix`` the condition key s3:prefix."""

    action: str
    resource: str
    prefix: str | None = None


DOCUMENTS: Mapping[str, tuple[str, str]] = {
    "versioning": ("s3:GetBucketVersioning", "s3:PutBucketVersioning"),
    "encryption": ("s3:GetEncryptionConfiguration", "s3:PutEncryptionConfiguration"),
    "publicAccessBlock": ("s3:GetBucketPublicAccessBlock", "s3:PutBucketPublicAccessBlock"),
    "ownershipControls": ("s3:GetBucketOwnershipControls", "s3:PutBucketOwnershipControls"),
    "policy": ("s3:GetBucketPolicy", "s3:PutBucketPolicy"),
    "lifecycle": ("s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration"),
    "intelligent-tiering": ("s3:GetIntelligentTieringConfiguration", "s3:PutIntelligentTieringConfiguration"),
    "accelerate": ("s3:GetAccelerateConfiguration", "s3:PutAccelerateConfiguration"),
    "logging": ("s3:GetBucketLogging", "s3:PutBucketLogging"),
    "replication": ("s3:GetReplicationConfiguration", "s3:PutReplicationConfiguration"),
    "notification": ("s3:GetBucketNotification", "s3:PutBucketNotification"),
}
"""Bucket documents by their query: what reads one, and what writes or deletes it."""
_DELETED_APART = {"policy": "s3:DeleteBucketPolicy"}


class Request(NamedTuple):
    """One request in the path style."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.query.items())
        return f"{self.method} /{self.bucket}/{self.key}?{query}"


def request_of(environ: dict[str, Any]) -> Request | None:
    """Read a WSGI environment -> the request, or None if it is for another service than S3."""
    if "/s3/" not in environ.get("HTTP_AUTHORIZATION", ""):
        return None
    path, _, query = environ["REQUEST_URI"].partition("?")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    headers = {
        name.removeprefix("HTTP_").lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    found = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
    body = b""
    if environ["REQUEST_METHOD"] == "POST" and "delete" in found:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = io.BytesIO(body)
    return Request(environ["REQUEST_METHOD"], bucket, key, found, headers, body)


def asked_elsewhere(environ: Mapping[str, Any]) -> Iterator[Asked]:
    """Name what a request to CloudTrail or SQS needs; STS tells everybody who they are."""
    operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    if "/cloudtrail/" in environ["HTTP_AUTHORIZATION"]:
        yield Asked(f"cloudtrail:{operation}", "arn:aws:cloudtrail:us-east-1:123456789012:trail/audit")
    elif "/sqs/" in environ["HTTP_AUTHORIZATION"]:
        yield Asked(f"sqs:{operation}", "arn:aws:sqs:us-east-1:123456789012:arrivals")
    elif "/sts/" not in environ["HTTP_AUTHORIZATION"]:
        raise AssertionError(f"{environ['HTTP_AUTHORIZATION']}: which service is this?")


def asked(request: Request) -> Iterator[Asked]:
    """Name what a request needs to be allowed."""
    bucket = f"arn:aws:s3:::{request.bucket}"
    if request.key:
        yield from _of_object(request, f"{bucket}/{request.key}")
    elif request.method == "POST" and "delete" in request.query:
        for each in ElementTree.fromstring(request.body).iter():
            if each.tag.rpartition("}")[2] == "Object":
                names = {child.tag.rpartition("}")[2]: child.text for child in each}
                action = "s3:DeleteObjectVersion" if names.get("VersionId") else "s3:DeleteObject"
                yield Asked(action, f"{bucket}/{names['Key']}")
    else:
        yield _of_bucket(request, bucket)
        if "x-amz-object-ownership" in request.headers:
            yield Asked("s3:PutBucketOwnershipControls", bucket)


def _of_object(request: Request, target: str) -> Iterator[Asked]:
    method, query, headers = request.method, request.query, request.headers
    version = "Version" if "versionId" in query else ""
    if method == "GET" and "uploadId" in query:
        yield Asked("s3:ListMultipartUploadParts", target)
    elif method in ("GET", "HEAD"):
        yield Asked(f"s3:GetObject{version}", target)
    elif method == "DELETE" and "uploadId" in query:
        yield Asked("s3:AbortMultipartUpload", target)
    elif method == "DELETE":
        yield Asked(f"s3:DeleteObject{version}", target)
        if "if-match" in headers:
            yield Asked("s3:GetObject", target)
    elif method == "POST" and "restore" in query:
        yield Asked("s3:RestoreObject", target)
    elif method == "PUT" or (method == "POST" and ("uploads" in query or "uploadId" in query)):
        yield Asked("s3:PutObject", target)
        if "if-match" in headers:
            yield Asked("s3:GetObject", target)
        if source := headers.get("x-amz-copy-source"):
            yield Asked("s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/')}")
        if forbidden := {"x-amz-tagging", "x-amz-acl"} & set(headers):
            raise AssertionError(f"{request} has {forbidden}: that needs a permission of its own")
    else:
        raise AssertionError(f"{request}: look up which permission this needs")


def _of_bucket(request: Request, bucket: str) -> Asked:
    method, query = request.method, request.query
    for name, (reads, writes) in DOCUMENTS.items():
        if name in query:
            deletes = _DELETED_APART.get(name, writes)
            return Asked({"GET": reads, "PUT": writes, "DELETE": deletes}[method], bucket)
    if method == "GET" and "versions" in query:
        return Asked("s3:ListBucketVersions", bucket, query.get("prefix", ""))
    if method == "GET" and "uploads" in query:
        return Asked("s3:ListBucketMultipartUploads", bucket)
    if method == "GET" and query.get("list-type") == "2":
        return Asked("s3:ListBucket", bucket, query.get("prefix", ""))
    if method == "HEAD":
        return Asked("s3:ListBucket", bucket)
    if method == "PUT" and not query:
        return Asked("s3:CreateBucket", bucket)
    raise AssertionError(f"{request}: look up which permission this needs")
