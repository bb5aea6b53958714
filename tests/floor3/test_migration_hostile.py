"""What a bucket says of a migration may be forged: it is refused by name and leads nowhere else."""

from __future__ import annotations

import base64
import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical, layout, migrations
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ConflictError, IntegrityError, MLTrackError
from mltrack_tasks.migrated import FIELD
from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.records import Record
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.testing import Raw, RawObjects
from tests.floor2.localtrees import seen
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import NAME, fill, kept, migrate, quiet, stored

BODY = b"#!/bin/sh\n"
DIGEST = sha256_hex(BODY)
AT = {"at": "2024-01-01T00:00:00Z"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))


class Box:
    """A target for restores in a folder that must stay as it is."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "box" / "target"
        self.outside = folder / "box" / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "kept").write_bytes(b"kept")

    def restore(self, store: Store, **options: Any) -> None:
        """Restore; afterwards there is nothing new beside the target, nor changed."""
        before = self._around()
        try:
            download_from_s3(store, self.target, observe=quiet, **options)
        finally:
            assert self._around() == before

    def inside(self) -> list[tuple[Any, ...]]:
        return seen(self.target) if self.target.exists() else []

    def _around(self) -> list[tuple[Any, ...]]:
        return [item for item in seen(self.target.parent) if item[0].split("/")[0] != "target"]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def row(path: Any, kind: Any = "f", *rest: Any) -> list[Any]:
    """An entry as a record spells it; a small executable file unless told otherwise."""
    return [path, kind, *(rest or (0o755, len(BODY), 0, DIGEST))]


def spelled(raw: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(raw).decode()}


BELOW = [row("a", "d", 0o755)]
TREES: dict[str, list[Any]] = {
    "above the target": [row("../outside/x")],
    "above, from within": [row("a/../../outside/x")],
    "the folder above": [row("..", "d", 0o777)],
    "above, in base64": [row(spelled(b"../outside/x"))],
    "above, and no UTF-8": [row(spelled(b"../outside/\xff"))],
    "absolute": [row("/tmp/mltrack-hostile-x")],
    "the target itself": [row(".", "d", 0o777)],
    "no name": [row("")],
    "an empty segment": [row("a//x")],
    "a dot segment": [row("a/./x")],
    "a folder's slash": [row("x/")],
    "a zero byte": [row("x\0y")],
    "a lone surrogate": [row("x\ud800")],
    "a number": [row(5)],
    "no path": [row(None)],
    "below a link": [row("l", "l", "../outside"), row("l/x")],
    "below a link, at a distance": [row("l", "l", "../outside"), row("l/sub/sub/x")],
    "a folder below a link": [row("l", "l", "../outside"), row("l/x", "d", 0o755)],
    "a link below a link": [row("l", "l", "../outside"), row("l/x", "l", "y")],
    "below a file": [row("a"), row("a/x")],
    "twice": [row("a"), row("a")],
    "a file and a folder": [row("a"), row("a", "d", 0o755)],
    "out of order": [row("b"), row("a")],
    "set-user-id": [row("x", "f", 0o4755, len(BODY), 0, DIGEST)],
    "sticky": [row("x", "d", 0o1777)],
    "a negative mode": [row("x", "f", -1, len(BODY), 0, DIGEST)],
    "a boolean mode": [row("x", "f", True, len(BODY), 0, DIGEST)],
    "a text as mode": [row("x", "f", "755", len(BODY), 0, DIGEST)],
    "a negative size": [row("x", "f", 0o644, -1, 0, DIGEST)],
    "a huge size": [row("x", "f", 0o644, 2**80, 0, DIGEST)],
    "a fraction as size": [row("x", "f", 0o644, 10.0, 0, DIGEST)],
    "a huge time": [row("x", "f", 0o644, len(BODY), 2**80, DIGEST)],
    "no digest": [row("x", "f", 0o644, len(BODY), 0, "")],
    "a path as digest": [row("x", "f", 0o644, len(BODY), 0, "../" * 21 + "x")],
    "a device": [row("x", "b", 0o644, 0, 0, DIGEST)],
    "a link to nothing": [row("l", "l", "")],
    "a link to a zero byte": [row("l", "l", "a\0b")],
    "a link to 5,000 bytes": [row("l", "l", "x" * 5_000)],
    "too short": [["x"]],
    "too long": [[*row("x"), 1]],
    "no row": [{}],
    "no rows": [7],
}


def put_blob(raw: Raw, body: bytes) -> str:
    digest = sha256_hex(body)
    raw.put(layout.blob_key(digest, "bin"), body)
    return digest


def put_state(
    raw: Raw, name: str, body: bytes, entries: int, *, receipts: Sequence[str] = (), **changes: Any
) -> None:
    """Write what would be the manifest of a migration, with one part of its tree."""
    content = {
        "migration": name,
        "number": 1,
        "source": "directory",
        "tree": [[put_blob(raw, body), len(body), entries]],
        "removed": [],
        "runs": [],
        "receipts": list(receipts),
        "files": 1,
        "size_bytes": len(BODY),
        "left_out": [],
        **changes,
    }
    raw.put(migrations.manifest_key(name, 1), Record(content, AT).to_bytes())


def put_receipt(raw: Raw, name: str, **content: Any) -> str:
    """Write a receipt that says where BODY lies; ``content`` changes it."""
    batch = "ab" * 16
    blob = put_blob(raw, BODY)
    there = {"batch": batch, "blobs": [[blob, "bin", len(BODY)]], "packs": [], "digests": [], **content}
    forged = {**there, "check": sha256_hex(canonical.dumps(there))}
    raw.put(migrations.receipt_key(name, batch), Record(forged, AT).to_bytes())
    return batch


def encoded(rows: Any) -> bytes:
    """JSON bytes, also of what canonical JSON refuses to write."""
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=True).encode()


def put_tree(raw: Raw, name: str, rows: list[Any], **changes: Any) -> None:
    put_state(raw, name, encoded(rows), len(rows), receipts=[put_receipt(raw, name)], **changes)


@pytest.mark.parametrize("kind", TREES)
def test_a_forged_tree(memory_place: Place, box: Box, kind: str) -> None:
    put_tree(memory_place.raw, "evil", TREES[kind])
    with pytest.raises(IntegrityError):
        box.restore(memory_place.store)
    assert not box.inside()


@pytest.mark.parametrize("kind", TREES)
def test_a_forged_tree_of_what_was_removed(memory_place: Place, box: Box, kind: str) -> None:
    body = encoded(TREES[kind])
    part = [put_blob(memory_place.raw, body), len(body), len(TREES[kind])]
    put_tree(memory_place.raw, "evil", [row("good")], removed=[part])
    with pytest.raises(IntegrityError):
        box.restore(memory_place.store)
    assert not box.inside()


@pytest.mark.parametrize("kind", TREES)
def test_forged_files_of_a_run(memory_place: Place, box: Box, tmp_path: Path, kind: str) -> None:
    forge_run(memory_place, tmp_path, files=TREES[kind])
    with pytest.raises(IntegrityError):
        box.restore(memory_place.store, run_ids=["run"])
    assert not box.inside()


def forge_run(place: Place, tmp_path: Path, **changes: Any) -> None:
    """Migrate a run, and forge what its manifest says of its files."""
    migrate(place.store, fill(tmp_path / "source", {"run/x": BODY}))
    record = json.loads(place.raw.get("manifests/run.json") or b"")
    content = record["content"]
    content[FIELD] |= changes
    place.raw.put("manifests/run.json", encoded({**record, "content": content}))


def test_what_is_not_forged_comes_back(memory_place: Place, box: Box) -> None:
    """The same forger, and nothing wrong: the tests above fail for what they forge."""
    put_tree(memory_place.raw, "good", [row("a", "d", 0o750), row("a/l", "l", "../../outside"), row("a/x")])
    box.restore(memory_place.store)
    assert [(item[0], item[1]) for item in box.inside()] == [("a", "d"), ("a/l", "l"), ("a/x", "f")]
    assert (box.target / "a" / "x").read_bytes() == BODY


@pytest.mark.parametrize("entries", [0, 1, 3, 2**40, 2**80])
def test_a_part_of_another_number_of_entries(memory_place: Place, box: Box, entries: Any) -> None:
    body = encoded([row("a"), row("b")])
    part = [put_blob(memory_place.raw, body), len(body), entries]
    put_tree(memory_place.raw, "evil", [row("good")], tree=[part])
    with pytest.raises(IntegrityError):
        box.restore(memory_place.store)
    assert not box.inside()


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[" * 100_000, b"\xff", b'[["a","f"]]', b"[NaN]"])
def test_a_part_that_is_none(memory_place: Place, box: Box, body: bytes) -> None:
    put_state(memory_place.raw, "evil", body, 1)
    with pytest.raises(IntegrityError):
        box.restore(memory_place.store)


def test_a_link_of_one_migration_is_no_way_for_another(memory_place: Place, box: Box) -> None:
    put_tree(memory_place.raw, "first", [row("l", "l", "../outside")])
    put_tree(memory_place.raw, "second", [row("l", "d", 0o777), row("l/x")])
    with pytest.raises(ConflictError):
        box.restore(memory_place.store)
    assert not box.inside()
    box.restore(memory_place.store, migration="first")
    for overwrite in (False, True):
        with pytest.raises(ConflictError):
            box.restore(memory_place.store, migration="second", overwrite=overwrite)
    assert [(item[0], item[1]) for item in box.inside()] == [("l", "l")]


@pytest.mark.parametrize("overwrite", [False, True])
def test_links_in_the_target_are_not_followed(memory_place: Place, box: Box, overwrite: bool) -> None:
    put_tree(memory_place.raw, "m", [row("file"), row("folder", "d", 0o700), row("folder/x")])
    box.target.mkdir()
    (box.target / "file").symlink_to(box.outside / "kept")
    if overwrite:
        box.restore(memory_place.store, overwrite=True)
        assert not (box.target / "file").is_symlink()
    else:
        with pytest.raises(ConflictError):
            box.restore(memory_place.store)
    shutil.rmtree(box.target)
    box.target.mkdir()
    (box.target / "folder").symlink_to(box.outside)
    with pytest.raises(ConflictError):
        box.restore(memory_place.store, overwrite=overwrite)


def packed(*members: tuple[str, int, int], size: int, body: bytes = BODY * 3) -> dict[str, Any]:
    pack = {"digest": sha256_hex(body), "size_bytes": size, "members": [list(member) for member in members]}
    return {"blobs": [], "packs": [pack]}


WRONG_PLACES: dict[str, dict[str, Any]] = {
    "a member outside": packed((DIGEST, 25, 10), size=30),
    "a member beyond the bytes": packed((DIGEST, 1_000, 10), size=2_000),
    "a member far beyond": packed((DIGEST, 2**70, 10), size=2**71),
    "a member beyond a signed word": packed((DIGEST, 2**63, 10), size=2**63 + 10),
    "a negative offset": packed((DIGEST, -10, 10), size=30),
    "the wrong bytes": packed((DIGEST, 5, 10), size=30),
    "too few bytes": packed((DIGEST, 0, 9), size=30),
    "too many bytes": packed((DIGEST, 0, 11), size=30),
    "a huge member": packed((DIGEST, 0, 2**70), size=2**70),
    "a member larger than any memory": packed((DIGEST, 0, 2**50), size=2**50),
    "a pack that is a path": {"blobs": [], "packs": [{"digest": "../x", "size_bytes": 1, "members": []}]},
    "a blob that is a path": {"blobs": [["../../x", "bin", 10]]},
    "another format": {"blobs": [[DIGEST, "exe", 10]]},
    "a size that is none": {"blobs": [[DIGEST, "bin", -1]]},
    "no blob": {"blobs": 7},
    "another batch": {"batch": "cd" * 16},
}


@pytest.mark.parametrize("where", ["memory_place", "directory_place"])
@pytest.mark.parametrize("kind", WRONG_PLACES)
def test_a_forged_receipt(request: pytest.FixtureRequest, where: str, box: Box, kind: str) -> None:
    place: Place = request.getfixturevalue(where)
    put_blob(place.raw, BODY * 3)
    batch = put_receipt(place.raw, "evil", **WRONG_PLACES[kind])
    put_state(place.raw, "evil", encoded([row("x")]), 1, receipts=[batch])
    with pytest.raises(IntegrityError):
        box.restore(place.store)
    assert not box.inside()


@pytest.mark.parametrize("size", [0, 11, 2**62])
def test_right_bytes_of_a_wrong_size_are_right(memory_place: Place, box: Box, size: int) -> None:
    batch = put_receipt(memory_place.raw, "m", blobs=[[DIGEST, "bin", size]])
    put_state(memory_place.raw, "m", encoded([row("x")]), 1, receipts=[batch])
    box.restore(memory_place.store)
    assert (box.target / "x").read_bytes() == BODY


RUN_PLACES: dict[str, list[Any]] = {
    "outside": [DIGEST, sha256_hex(BODY * 3), "bin", 10, 30],
    "across the end": [DIGEST, sha256_hex(BODY * 3), "bin", 10, 25],
    "far outside": [DIGEST, sha256_hex(BODY * 3), "bin", 10, 2**70],
    "beyond a signed word": [DIGEST, sha256_hex(BODY * 3), "bin", 10, 2**63],
    "negative": [DIGEST, sha256_hex(BODY * 3), "bin", 10, -1],
    "the wrong bytes": [DIGEST, sha256_hex(BODY * 3), "bin", 10, 3],
    "huge": [DIGEST, sha256_hex(BODY * 3), "bin", 2**70, 0],
    "another blob": [DIGEST, sha256_hex(BODY * 3), "bin", 30, None],
}


@pytest.mark.parametrize("kind", RUN_PLACES)
def test_forged_places_of_a_run(memory_place: Place, box: Box, tmp_path: Path, kind: str) -> None:
    put_blob(memory_place.raw, BODY * 3)
    forge_run(memory_place, tmp_path, contents={}, places=[RUN_PLACES[kind]])
    with pytest.raises(IntegrityError):
        box.restore(memory_place.store, run_ids=["run"])
    assert [item for item in box.inside() if item[1] != "d"] == []


CONTENTS: dict[str, Any] = {
    "other bytes": {DIGEST: "#!/bin/sh -x\n"},
    "other bytes in base64": {DIGEST: {"base64": "AAAA"}},
    "no base64": {DIGEST: {"base64": "%"}},
    "a number": {DIGEST: 7},
    "a path": {"../x": "x"},
    "a list": [],
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_forged_contents_of_a_run(memory_place: Place, box: Box, tmp_path: Path, kind: str) -> None:
    forge_run(memory_place, tmp_path, contents=CONTENTS[kind])
    for options in ({"run_ids": ["run"]}, {}):
        with pytest.raises(IntegrityError):
            box.restore(memory_place.store, **options)
    assert [item for item in box.inside() if item[1] != "d"] == []


def test_a_state_in_the_wrong_place_is_not_believed(memory_place: Place, box: Box, tmp_path: Path) -> None:
    migrate(memory_place.store, fill(tmp_path / "source", {"run/x": BODY}))
    key = migrations.manifest_key("other", 1)
    memory_place.raw.put(key, memory_place.raw.get(migrations.manifest_key(NAME, 1)) or b"")
    with pytest.raises(MLTrackError):
        box.restore(memory_place.store, migration="other")
    assert not box.inside()


HOSTILE: list[Any] = [
    *(None, True, -1, 0, 1, 2**63, 2**70, 1.5, "", ".", "..", "../outside/x", "/tmp/mltrack-hostile-y"),
    *("a/../../outside/x", "a\0b", "x" * 5_000, "l", "d", "f", DIGEST, "bin", [], {}, [[]], {"a": {}}),
    *({"base64": "Li4vb3V0c2lkZS94"}, {"base64": 5}, ["../outside", "l", "../outside"], "running", 0o4755),
]


def _places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _places_in(item, (*path, key))


def _changed(value: Any, path: Sequence[Any], new: Any) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return changed


@pytest.fixture(scope="session")
def intact(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[tuple[Any, ...]]]:
    """The objects of a real migration: a run with a link, a small file, packed ones and one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLTRACK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        root = tmp_path_factory.mktemp("intact")
        fill(root, {"run/x": BODY, "run/p": b"p" * 5_000, "run/q": b"q" * 6_000, "loose": b"b" * 40_000})
        (root / "run" / "l").symlink_to("../../outside")
        bare = MemoryStore()
        migrate(GuardedStore(bare), root)
        return stored(bare), kept(root)


@given(data=st.data())
def test_one_value_of_a_migration_is_another(
    data: st.DataObject,
    intact: tuple[dict[str, bytes], list[tuple[Any, ...]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever stands in one place: an error of this library, or a tree in which every file is as it was."""
    objects, tree = intact
    bare = MemoryStore()
    raw, box = RawObjects(bare.objects), Box(tmp_path_factory.mktemp("forged"))
    for key, body in objects.items():
        raw.put(key, body)
    records = sorted(key for key in objects if key.startswith(("manifests/", "migrations/")))
    key = data.draw(st.sampled_from([*records, "tree"]))
    new = data.draw(st.sampled_from(HOSTILE))
    state_key = migrations.manifest_key(NAME, 1)
    if key == "tree":
        state = json.loads(objects[state_key])
        [[digest, _, count]] = state["content"]["tree"]
        rows = json.loads(objects[layout.blob_key(digest, "bin")])
        body = encoded(_changed(rows, data.draw(st.sampled_from(list(_places_in(rows)))), new))
        state["content"]["tree"] = [[put_blob(raw, body), len(body), count]]
        raw.put(state_key, encoded(state))
    else:
        record = json.loads(objects[key])
        raw.put(key, encoded(_changed(record, data.draw(st.sampled_from(list(_places_in(record)))), new)))
    contents = {item[6] for item in tree if item[1] == "f"}
    own = "run/manifest.json"  # what a run gets that no migration wrote, as this one now seems to be
    for options in ({}, {"run_ids": ["run"]}, {"migration": NAME}):
        try:
            box.restore(GuardedStore(bare), overwrite=True, **options)
        except MLTrackError:
            continue
        assert {item[6] for item in box.inside() if item[1] == "f" and item[0] != own} <= contents
