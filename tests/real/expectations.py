"""What each server is known to do: docs/s3_servers.md has the measurements.

Where a server does less than AWS, the tests do not look away: they check what happens instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mltrack_tasks.stores.probe import Capabilities
from mltrack_tasks.testing import DEFAULT_CAPABILITIES


@dataclass(frozen=True)
class Expected:
    """One server's answers to what the library relies on."""

    capabilities: Capabilities
    replaces_parts_by_etag: bool
    """honours ``If-Match`` when an upload in parts is completed"""
    one_upload_wins: bool
    """judges racing completions with ``If-None-Match: *`` one after the other"""
    lists_after_any_key: bool
    """begins a listing with ``encoding-type=url`` after the right key, also where that needs encoding"""
    refuses_flipped_bytes: bool
    """refuses a body or part that was damaged on its way, be it by checksum or by signed payload"""
    attests_parts: bool
    """keeps the composite SHA-256 of an upload in parts"""
    proves_copies: Literal["sha256", "etag"]
    """what proves a copy of a blob of one PUT without reading it"""
    proves_large_copies: Literal["composite", "etag"]
    """what proves a copy of a blob in parts without reading it"""
    checks_credentials: bool
    """refuses a wrong secret, and a user without rights"""
    gives_policies: bool
    """gives a user a policy by IAM's requests. MinIO does by its own, and to sessions: of up to 2,048
    characters, fewer than a writer's policy has"""
    checks_region: bool
    """refuses what was signed for another region"""
    has_storage_classes: bool
    encrypts: bool
    """takes ``ServerSideEncryption`` as it is set up here"""


EXPECTED: dict[str, Expected] = {
    "aws": Expected(
        capabilities=DEFAULT_CAPABILITIES,
        replaces_parts_by_etag=True,
        one_upload_wins=True,
        lists_after_any_key=True,
        refuses_flipped_bytes=True,
        attests_parts=True,
        proves_copies="sha256",
        proves_large_copies="composite",
        checks_credentials=True,
        gives_policies=False,
        checks_region=True,
        has_storage_classes=True,
        encrypts=True,
    ),
    "minio": Expected(
        capabilities=Capabilities(
            create_only=True,
            create_only_parts=True,
            refuses_damage=True,
            keeps_checksums=True,
            conditional_delete=False,
            versioning=False,
        ),
        replaces_parts_by_etag=True,
        one_upload_wins=True,
        lists_after_any_key=True,
        refuses_flipped_bytes=True,
        attests_parts=True,
        proves_copies="sha256",
        proves_large_copies="etag",
        checks_credentials=True,
        gives_policies=False,
        checks_region=True,
        has_storage_classes=False,
        encrypts=False,  # it would need a key server
    ),
    "localstack": Expected(
        capabilities=Capabilities(
            create_only=True,
            create_only_parts=True,
            refuses_damage=True,
            keeps_checksums=True,
            conditional_delete=False,
            versioning=False,
        ),
        replaces_parts_by_etag=True,
        one_upload_wins=False,
        lists_after_any_key=False,
        refuses_flipped_bytes=True,
        attests_parts=True,
        proves_copies="sha256",
        proves_large_copies="etag",
        checks_credentials=False,
        gives_policies=False,
        checks_region=False,
        has_storage_classes=True,
        encrypts=True,
    ),
    "ceph": Expected(
        capabilities=Capabilities(
            create_only=True,
            create_only_parts=False,
            refuses_damage=False,
            keeps_checksums=False,
            conditional_delete=False,
            versioning=False,
        ),
        replaces_parts_by_etag=False,
        one_upload_wins=False,
        lists_after_any_key=True,
        refuses_flipped_bytes=True,  # by the signature, over plain HTTP
        attests_parts=False,
        proves_copies="etag",
        proves_large_copies="etag",
        checks_credentials=True,
        gives_policies=True,
        checks_region=False,
        has_storage_classes=False,
        encrypts=False,  # it would need TLS
    ),
    "moto": Expected(
        capabilities=Capabilities(
            create_only=True,
            create_only_parts=True,
            refuses_damage=False,
            keeps_checksums=False,
            conditional_delete=True,
            versioning=False,
        ),
        replaces_parts_by_etag=False,
        one_upload_wins=False,
        lists_after_any_key=True,
        refuses_flipped_bytes=False,
        attests_parts=True,
        proves_copies="sha256",
        proves_large_copies="etag",
        checks_credentials=False,
        gives_policies=False,
        checks_region=False,
        has_storage_classes=True,
        encrypts=True,
    ),
}
