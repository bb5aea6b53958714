"""Answers that lead elsewhere without naming a region: no bucket's, and boto3 would follow them for ever."""

from __future__ import annotations

from typing import Any

REDIRECTED = "Redirected"
"""Code of our own: something between here and S3 sends requests elsewhere."""


def stop_redirects(client: Any) -> None:
    """Let a client of S3 fail with REDIRECTED where it would ask for the bucket's region without end.

    After a redirect botocore asks for the region by HeadBucket, and again when that is redirected, up to
    Python's limit of recursion. S3 names the region in every redirect; a login page, or a server that sends
    http to https, does not.
    """
    client.meta.events.register("before-parse.s3.HeadBucket", _look)


def _look(response_dict: dict[str, Any], **_: Any) -> None:
    from botocore.exceptions import ClientError

    status, headers = response_dict["status_code"], response_dict["headers"]
    if status not in (301, 302, 307) or "x-amz-bucket-region" in headers:
        return
    where = str(headers.get("location") or "nowhere").partition("?")[0][:200]
    answer: Any = {
        "Error": {"Code": REDIRECTED, "Message": f"HTTP {status} leads to {where}"},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
    }
    raise ClientError(answer, "HeadBucket")
