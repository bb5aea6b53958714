"""What is damaged on a real server is found by the level that promises it, and healed from a replica."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mltrack_tasks.content import store_data
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.s3_settings import S3Settings
from mltrack_tasks.testing import RawS3
from mltrack_tasks.trust.heal import heal_store
from mltrack_tasks.trust.verify import verify_store
from tests.real.collecting import quiet
from tests.real.expectations import Expected

LEVELS = ("structure", "attested", "read")
BODIES = [b"body %d of a few bytes" % number for number in range(3)]
MANIFEST = "manifests/r.json"


@pytest.fixture
def keys(store: Store) -> list[str]:
    """The blobs of a run."""
    refs = [store_data(store, body, f"b{number}", observe=quiet) for number, body in enumerate(BODIES)]
    store_run(store, "r", {f"b{n}": ref for n, ref in enumerate(refs)}, storage_mode="flat", observe=quiet)
    return [ref.storage_path for ref in refs]


def flipped(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:]


def forged(raw: RawS3) -> bytes:
    record = json.loads(raw.get(MANIFEST) or b"")
    record["content"]["data"]["b0"]["size_bytes"] += 1
    return json.dumps(record).encode()


DAMAGE: dict[str, tuple[str, str]] = {
    "truncated": ("structure", "wrong_size"),
    "deleted": ("structure", "missing"),
    "forged": ("structure", "wrong_size"),
    "flipped": ("attested", "wrong_checksum"),
    "swapped": ("attested", "wrong_checksum"),
}
"""The first level that promises to find it, and as what."""


def damage(kind: str, raw: RawS3, keys: list[str], put: Any) -> set[str]:
    """Do it -> the keys of what is not what it was."""
    first, second = keys[:2]
    if kind == "truncated":
        put(first, BODIES[0][:-1])
    elif kind == "deleted":
        raw.delete(first)
    elif kind == "flipped":
        put(first, flipped(BODIES[0]))
    elif kind == "swapped":
        put(first, BODIES[1])
        put(second, BODIES[0])
        return {first, second}
    else:
        put(MANIFEST, forged(raw))
        return {MANIFEST}
    return {first}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_by_its_level_and_healed(
    kind: str,
    store: Store,
    raw: RawS3,
    keys: list[str],
    client: Any,
    settings: S3Settings,
    expected: Expected,
) -> None:
    def put(key: str, body: bytes) -> None:
        """As a tool would that has checksums made: the server attests the wrong bytes."""
        place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{key}"}
        client.put_object(**place, Body=body, ChecksumAlgorithm="SHA256")

    before = {key: raw.get(key) for key in raw.list()}
    replica = MemoryStore()
    for key, body in before.items():
        replica.create(key, body or b"")
    wrong = damage(kind, raw, keys, put)
    level, found_as = DAMAGE[kind]
    if level == "attested" and not expected.capabilities.keeps_checksums:
        level, found_as = "read", "corrupt"
    for each in LEVELS:
        found = verify_store(store, level=each, resume=False, observe=quiet)
        assert found.ok is (LEVELS.index(each) < LEVELS.index(level)), (each, found.findings)
        if each == level:
            kinds = {finding.kind for finding in found.findings if finding.wrong}
            assert kinds == {found_as}, found.findings
    healed = heal_store(store, replicas=[GuardedStore(replica)], observe=quiet)
    assert healed.ok
    assert {each.key for each in healed.healed} == wrong
    assert {key: raw.get(key) for key in before} == before
    assert verify_store(store, level="read", resume=False, observe=quiet).ok
    print(f"{kind}: found by {level}, healed from a replica")
