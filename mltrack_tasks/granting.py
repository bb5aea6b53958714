"""``iam_policy``: what the credentials of a store are to be allowed."""

from __future__ import annotations

from typing import Any

from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.resolve import find_store
from mltrack_tasks.roles import role_policy


def iam_policy(role: str, *, store: MLTrackStore | str | None = None) -> dict[str, Any]:
    """Make the IAM policy of a role in a store: ``reader``, ``writer``, ``promoter`` or ``admin``.

    It allows the requests that the tasks of the role send, in this bucket below this prefix, and no others;
    docs/access.md has the tasks of each. All statements allow, so whoever has two roles gets both documents.
    The same store gives the same document. Nothing is asked, so it needs no credentials:
    ``json.dumps(iam_policy("reader", store="s3://bucket/prefix"))``.

    Raises InvalidInputError for an unknown role, and for a store in a directory, which has no policies.
    """
    block = find_store(store)
    if block.bucket is None:
        raise InvalidInputError(
            f"{block.location} is a directory: the file system says who may do what there."
        )
    settings = block.s3_settings()
    return role_policy(
        role,
        settings.bucket,
        settings.prefix,
        kms_key=settings.kms_key_id,
        region=settings.region,
    )
