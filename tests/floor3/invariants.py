"""What must hold of a store's content at any moment, each as a function that names what breaks it.

They look at the store itself, past the functions under test, and parse keys and records on their own.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq

from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.memory import MemoryStore

_NAME, _VERSION = "[A-Za-z0-9._%-]+", "v[0-9]{8}_[0-9a-f]{6,64}"
_OF_VERSION = re.compile(rf"models/development/{_NAME}/{_VERSION}\.json")
_KNOWN = re.compile(
    r"format\.json"
    r"|audits/[0-9]{8}T[0-9]{12}Z-[a-z]+(-[0-9]+of[0-9]+)?-[0-9a-f]{8}/(begun|report|[0-9]{8})\.json"
    r"|data/(?P<dd>[0-9a-f]{2})/(?P=dd)[0-9a-f]{62}/(data\.(parquet|npy|json|bin)|metadata\.json|multipart\.json)"
    r"|names/[A-Za-z0-9._%-]+/[0-9a-f]{64}\.json"
    r"|manifests/[A-Za-z0-9._%-]+(~[0-9]{8})?\.json"
    r"|catalog/snapshots/[0-9]{8}\.json|catalog/parts/[0-9a-f]{64}~[0-9a-f]{16}\.parquet"
    r"|runs/log/[0-9]{4}-[0-9]{2}-[0-9]{2}/[A-Za-z0-9._%-]+~[0-9]{8}"
    r"|runs/(by_project|by_date|by_type|by_model)/[A-Za-z0-9._%-]+/[A-Za-z0-9._%-]+"
    rf"|models/development/{_NAME}/({_VERSION}(\.json|/.+)|_(ids|materialized)/{_VERSION}|_by_digest/[0-9a-f]{{64}}"
    rf"|_removed/{_VERSION}/[0-9]{{8}}\.(json|done)"
    rf"|_deprecated/{_VERSION}\.json|_registrations/{_VERSION}/[0-9a-f]{{64}}\.json)"
    rf"|models/registry/{_NAME}/({_VERSION}(\.json|/.+)|_(aliases|policies)/{_NAME}/[0-9]{{8}}\.json)"
    r"|runs/by_data/(?P<pp>[0-9a-f]{2})/(?P=pp)[0-9a-f]{62}/(~name~|~model~)?[A-Za-z0-9._%-]+"
)


def check_always(store: Store) -> None:
    """What holds even right after a crash."""
    store = snapshot(store)
    every_key_is_known(store)
    every_blob_hashes_to_its_key(store)
    every_ref_resolves(store)
    every_ref_is_pinned(store)
    every_manifest_is_found(store)
    every_described_blob_has_metadata(store)
    every_view_has_a_manifest(store)
    every_version_is_whole(store)
    every_promotion_is_complete(store)


def check_finished(store: Store) -> None:
    """What holds when the last call on everything has succeeded."""
    store = snapshot(store)
    check_always(store)
    views_equal_records(store)
    nothing_is_there_twice(store)


def snapshot(store: Store) -> Store:
    """Copy what is there into memory, so that many questions cost each object one request."""
    copy = MemoryStore()
    for stat in store.list(""):
        if not stat.key.startswith(".tmp/"):
            copy.create(stat.key, store.get(stat.key) if stat.size else b"")
    return copy


def every_key_is_known(store: Store) -> None:
    strange = [key for key in keys(store) if not _KNOWN.fullmatch(key)]
    assert not strange, strange


def every_blob_hashes_to_its_key(store: Store) -> None:
    for key in blobs(store):
        assert hashlib.sha256(store.get(key)).hexdigest() == key.split("/")[2], key


def every_ref_resolves(store: Store) -> None:
    for key, ref in refs(store):
        stat = store.head(ref["storage_path"])
        assert stat is not None, (key, ref)
        assert stat.size == ref["size_bytes"], (key, ref)


def every_ref_is_pinned(store: Store) -> None:
    for key, ref in refs(store):
        digest = ref["hash"]
        holder = f"~name~{key.split('/')[1]}" if key.startswith("names/") else _run_of(key)
        pin = f"runs/by_data/{digest[:2]}/{digest}/{holder}"
        assert store.head(pin) is not None, (key, pin)


def every_manifest_is_found(store: Store) -> None:
    """The log names each revision, unless the newest snapshot of the catalogue covers it."""
    logged = {key.rsplit("/", 1)[1] for key in keys(store) if key.startswith("runs/log/")}
    covered = _covered(store)
    for key in keys(store):
        if key.startswith("manifests/") and _revision_of(key) > covered.get(_run_of(key), 0):
            assert f"{_run_of(key)}~{_revision_of(key):08d}" in logged, key


def every_described_blob_has_metadata(store: Store) -> None:
    """Metadata comes before the data that it describes."""
    there = set(keys(store))
    for key in blobs(store):
        if not key.endswith(".bin"):
            assert f"{key.rsplit('/', 1)[0]}/metadata.json" in there, key


def every_version_is_whole(store: Store) -> None:
    """Each file of a version is a blob that is held for the model, and what has its name has its bytes."""
    there = set(keys(store))
    for key in filter(_OF_VERSION.fullmatch, there):
        model = key.split("/")[2]
        for file in json.loads(store.get(key))["content"]["files"]:
            digest = file["digest"]
            place = f"{digest[:2]}/{digest}"
            assert f"data/{place}/data.{file['format']}" in there, (key, file)
            assert f"runs/by_data/{place}/~model~{model}" in there, (key, file)
            registered = f"{key.removesuffix('.json')}/{file['path']}"
            for copy in (registered, registered.replace("development", "registry", 1)):
                if copy in there:
                    assert hashlib.sha256(store.get(copy)).hexdigest() == digest, copy


def every_promotion_is_complete(store: Store) -> None:
    """What an alias ever stood for has its record in the registry, and each of its files."""
    there = set(keys(store))
    for key in there:
        if "/_aliases/" not in key:
            continue
        event = json.loads(store.get(key))["content"]
        if event["version"] is None:
            continue
        record = f"models/registry/{key.split('/')[2]}/{event['version']}.json"
        assert record in there, (key, record)
        for file in json.loads(store.get(record))["content"]["files"]:
            assert f"{record.removesuffix('.json')}/{file['path']}" in there, (key, file)


def every_view_has_a_manifest(store: Store) -> None:
    runs = {_run_of(key) for key in keys(store) if key.startswith("manifests/")}
    for key in _views(store):
        assert key.rsplit("/", 1)[1] in runs, key


def views_equal_records(store: Store) -> None:
    """Each run has the entries of its current revision; others are left of older ones, and nothing else."""
    manifests = [key for key in keys(store) if key.startswith("manifests/")]
    entries = {key: set(_views_of(key, json.loads(store.get(key)))) for key in manifests}
    newest: dict[str, str] = {}
    for key in manifests:
        newest[_run_of(key)] = max(key, newest.get(_run_of(key), key), key=_revision_of)
    found = _views(store)
    assert set().union(*(entries[key] for key in newest.values())) <= found
    assert found <= set().union(*entries.values())


def nothing_is_there_twice(store: Store) -> None:
    """One record for one thing: a name holds equal contents once, a revision differs from the one before."""
    named = Counter(
        (key.rsplit("/", 1)[0], _content(store, key)) for key in records(store) if key.startswith("names/")
    )
    assert set(named.values()) <= {1}, named
    runs = {(_run_of(key), _revision_of(key)): key for key in records(store) if key.startswith("manifests/")}
    for (run, revision), key in runs.items():
        if revision > 1:
            assert _content(store, key) != _content(store, runs[run, revision - 1]), key
    assert max(Counter(keys(store)).values(), default=1) == 1


def keys(store: Store) -> list[str]:
    return [stat.key for stat in store.list("") if not stat.key.startswith((".tmp/", "gc/"))]


def blobs(store: Store) -> list[str]:
    return [key for key in keys(store) if key.startswith("data/") and "/data." in key]


def records(store: Store) -> list[str]:
    return [key for key in keys(store) if key.startswith(("names/", "manifests/"))]


def refs(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every ref of every record, with the record's key."""
    for key in records(store):
        content = json.loads(store.get(key))["content"]
        if key.startswith("names/"):
            yield key, content["ref"]
        else:
            for group in ("data", "inputs", "outputs"):
                for ref in content[group].values():
                    yield key, ref


def without_days(found: list[str]) -> list[str]:
    """Leave the day of storing out of log entries, which a test may cross."""
    return sorted({re.sub(r"^runs/log/[^/]+/", "runs/log/", key) for key in found})


def _views(store: Store) -> set[str]:
    return {key for key in keys(store) if re.match(r"runs/by_(project|date|type|model)/", key)}


def _views_of(key: str, record: dict[str, Any]) -> Iterator[str]:
    content, at = record["content"], record["provenance"]["at"]
    values = {
        "by_project": content["project"],
        "by_type": content["run_type"],
        "by_model": content["model"],
        "by_date": datetime.fromisoformat(content["started_at"] or at).date().isoformat(),
    }
    for mode in content["storage_modes"]:
        if mode != "flat":
            yield f"runs/{mode}/{_segment(values[mode])}/{_run_of(key)}"


def _segment(name: str) -> str:
    plain = re.compile(rb"[A-Za-z0-9._-]")
    return "".join(chr(b) if plain.match(bytes([b])) else f"%{b:02X}" for b in name.encode())


def _covered(store: Store) -> dict[str, int]:
    """The highest revision of each run (as a key segment) in the newest snapshot."""
    snapshots = [key for key in keys(store) if key.startswith("catalog/snapshots/")]
    if not snapshots:
        return {}
    covered: dict[str, int] = {}
    for part in json.loads(store.get(max(snapshots)))["content"]["parts"]:
        body = store.get(part["key"])
        assert hashlib.sha256(body).hexdigest() == part["key"].split("/")[-1].partition("~")[0]
        for row in pq.read_table(io.BytesIO(body), columns=["run_id", "revision"]).to_pylist():
            segment = _segment(row["run_id"])
            covered[segment] = max(covered.get(segment, 0), row["revision"])
    return covered


def _run_of(key: str) -> str:
    return key.removeprefix("manifests/").removesuffix(".json").partition("~")[0]


def _revision_of(key: str) -> int:
    return int(key.removesuffix(".json").partition("~")[2] or 1)


def _content(store: Store, key: str) -> str:
    return json.dumps(json.loads(store.get(key))["content"], sort_keys=True)
