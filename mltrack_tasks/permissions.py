"""What a role's policy allows, one permission at a time: the list that check_access goes through."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mltrack_tasks import layout
from mltrack_tasks.bucket.naming import root_of
from mltrack_tasks.roles import role_policy

_SIGNS = re.compile(r"\$\{([*?$])\}|\*")


class Permission(NamedTuple):
    """One action on one resource, as a policy names it.

    ``unprefixed`` is about listings: whether it is the permission to list without naming a prefix.
    """

    action: str
    resource: str
    unprefixed: bool = False

    def key(self, bucket: str, prefix: str, name: str) -> str | None:
        """Make a key of the bucket that the permission is about; None if it is about the bucket, or no S3.

        ``name`` stands for what the policy leaves open. What is allowed everywhere is asked of blobs.
        """
        _, found, pattern = self.resource.partition(f":{bucket}/")
        if not found:
            return None
        key = _SIGNS.sub(lambda sign: sign[1] or name, pattern)
        root = root_of(prefix)
        return f"{root}{layout.BLOBS}{name}" if key == f"{root}{name}" else key

    @property
    def exact(self) -> bool:
        """Whether it is about one key alone."""
        return not self.resource.endswith("*")


def permissions_of(
    role: str, bucket: str, prefix: str, *, kms_key: str | None = None, region: str | None = None
) -> list[Permission]:
    """List what the policy of a role allows, in its order; the arguments are those of ``role_policy``."""
    policy = role_policy(role, bucket, prefix, kms_key=kms_key, region=region)
    return [each for statement in policy["Statement"] for each in _allowed(statement)]


def _allowed(statement: Mapping[str, Any]) -> Iterator[Permission]:
    unprefixed = "Null" in statement.get("Condition", {})
    for action in _listed(statement["Action"]):
        for resource in _listed(statement["Resource"]):
            yield Permission(action, resource, unprefixed)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
