"""The statements that we add to a bucket's policy: only denials, so that they open nothing."""

from __future__ import annotations

from typing import Any

from mltrack_tasks.bucket.naming import root_of, sid_base

Statement = dict[str, Any]


def _deny(prefix: str, name: str, action: str, resource: Any, condition: dict[str, Any]) -> Statement:
    return {
        "Sid": f"{sid_base(prefix)}{name}",
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": resource,
        "Condition": condition,
    }


def tls_only(arn: str, prefix: str, *, whole_bucket: bool) -> Statement:
    """Refuse requests without TLS. ``arn`` is the bucket's."""
    resource: Any = [arn, f"{arn}/*"] if whole_bucket else f"{arn}/{root_of(prefix)}*"
    return _deny(prefix, "TlsOnly", "s3:*", resource, {"Bool": {"aws:SecureTransport": "false"}})


def encrypted_as(arn: str, prefix: str, algorithm: str) -> Statement:
    """Refuse objects whose request asks for another encryption.

    One that asks for none is encrypted as the bucket's default says, and passes.
    """
    header = "s3:x-amz-server-side-encryption"
    condition = {"StringNotEquals": {header: algorithm}, "Null": {header: "false"}}
    return _deny(prefix, "Encryption", "s3:PutObject", f"{arn}/{root_of(prefix)}*", condition)


def encrypted_by(arn: str, prefix: str, key: str) -> Statement:
    """Refuse objects whose request names another KMS key."""
    header = "s3:x-amz-server-side-encryption-aws-kms-key-id"
    condition = {"StringNotEquals": {header: key}, "Null": {header: "false"}}
    return _deny(prefix, "KmsKey", "s3:PutObject", f"{arn}/{root_of(prefix)}*", condition)


def create_only(arn: str, prefix: str) -> Statement:
    """Refuse blobs that are written without a condition.

    Parts of an upload carry none (its completion does), hence ObjectCreationOperation. A blob is healed with
    If-Match. Copies cannot be conditional: none can be made into ``data/``, and this library makes none.
    """
    condition = {
        "Null": {"s3:if-none-match": "true", "s3:if-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }
    return _deny(prefix, "CreateOnly", "s3:PutObject", f"{arn}/{root_of(prefix)}data/*", condition)


def queue_policy(queue_arn: str, bucket_arn: str, account: str | None = None) -> dict[str, Any]:
    """The policy that an SQS queue needs so that S3 may send a bucket's messages to it."""
    condition: dict[str, Any] = {"ArnLike": {"aws:SourceArn": bucket_arn}}
    if account:
        condition["StringEquals"] = {"aws:SourceAccount": account}
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": condition,
    }
    return {"Version": "2012-10-17", "Statement": [statement]}
