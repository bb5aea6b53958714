"""Local files go only when the store has just been shown to have them, and a crash in between loses none."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mltrack_tasks import layout, migrations
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.events import MIGRATION_COMPLETED, Event
from mltrack_tasks.migration import hashcache, migrate_to_s3
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.observed import SteppedStore
from mltrack_tasks.testing import Raw
from tests.floor2.localtrees import SECOND, in_child
from tests.floor3.conftest import Place
from tests.floor3.migrationtrees import AT_ONCE, NAME, fill, kept, migrate, restored
from tests.settings import some

T = TypeVar("T")

WHERE = ["memory_place", "directory_place"]
INSIDE, PACKED, SINGLE = b"i" * 100, b"p" * 10_000, b"s" * 50_000
CONTENTS = {
    "run/inside": INSIDE,
    "run/sub/packed": PACKED,
    "run/sub/single": SINGLE,
    "other/inside": b"o" * 50,
    "other/packed": b"q" * 20_000,
    "loose": b"l" * 30_000,
}
EXPERIMENT = "artifact_location: ./0\nexperiment_id: '0'\nlifecycle_stage: active\nname: Default\n"
RUN = (
    "artifact_uri: ./0/{id}/artifacts\nend_time: {end}\nentry_point_name: ''\nexperiment_id: '0'\n"
    "lifecycle_stage: active\nrun_id: {id}\nrun_name: r\nrun_uuid: {id}\nsource_name: ''\nsource_type: 4\n"
    "source_version: ''\nstart_time: 1700000000000\nstatus: {status}\ntags: []\nuser_id: u\n"
)
DONE, RUNNING = "d" * 32, "e" * 32


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs, a loose file, links and an empty folder, all old."""
    root = fill(tmp_path / "tree", CONTENTS)
    (root / "run" / "link").symlink_to("sub/packed")
    (root / "run" / "dangling").symlink_to("../../nowhere")
    (root / "other" / "empty").mkdir()
    return aged(root)


def aged(root: Path) -> Path:
    """Make every file old enough to go."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, ns=(SECOND * 10**9, SECOND * 10**9))
    return root


def delete(store: Store, root: Path, **options: Any) -> Any:
    return migrate(store, root, delete_after_upload=True, **options)


def when_stored(call: Callable[[], object]) -> Callable[[Event], None]:
    """An observer that calls once everything is stored, before anything is deleted."""

    def observe(event: Event) -> None:
        if event.name == MIGRATION_COMPLETED:
            call()

    return observe


def names(root: Path) -> list[str]:
    return [item[0] for item in kept(root)]


@pytest.mark.parametrize("earlier", [False, True], ids=["at once", "stored earlier"])
@pytest.mark.parametrize("pack", [True, False], ids=["packed", "not packed"])
@pytest.mark.parametrize("where", WHERE)
def test_what_is_stored_goes_and_comes_back(
    request: pytest.FixtureRequest, where: str, root: Path, earlier: bool, pack: bool
) -> None:
    there, place = kept(root), request.getfixturevalue(where)
    if earlier:
        migrate(place.store, root, pack_small_files=pack)
    report = delete(place.store, root, pack_small_files=pack)
    assert (report.deleted_files, report.kept) == (len(CONTENTS), ())
    assert report.deleted_bytes == sum(map(len, CONTENTS.values()))
    assert names(root) == []
    assert root.is_dir()
    assert restored(place.store) == there
    assert not delete(place.store, root).deleted_files
    assert restored(place.store) == there
    assert {item[0] for item in restored(place.store, run_ids=["run"])} >= {"run/inside", "run/link"}


def test_life_goes_on_where_files_were_deleted(store: Store, root: Path) -> None:
    """What is new where old files lay is kept beside them; where both had a path, the new one counts."""
    before = kept(root)
    delete(store, root)
    fill(root, {"run/inside": b"again", "run/new": b"n" * 60, "top": b"t", "other": b"a file now"})
    report = migrate(store, root)
    assert not report.failed
    after = {item[0]: item for item in restored(store)}
    assert {item[0]: item for item in kept(root) if item[1] == "f"}.items() <= after.items()
    gone = {"run/inside", "other", "other/inside", "other/packed", "other/empty", "run"}
    assert {item[0]: item for item in before if item[0] not in gone}.items() <= after.items()
    delete(store, aged(root))
    assert names(root) == []
    assert {path: item[6] for path, item in after.items() if item[1] == "f"} == {
        item[0]: item[6] for item in restored(store) if item[1] == "f"
    }


def blob_of(body: bytes) -> Callable[[Raw], str]:
    """Key of the blob that holds this body, alone or in a pack."""

    def find(raw: Raw) -> str:
        [key] = [key for key in raw.list() if key.endswith("/data.bin") and body in (raw.get(key) or b"")]
        return key

    return find


def _part(raw: Raw) -> str:
    [key] = [key for key in raw.list() if key.startswith("data/") and (raw.get(key) or b"").startswith(b"[[")]
    return key


def _receipt(raw: Raw) -> str:
    [key] = [key for key in raw.list() if "/receipts/" in key]
    return key


TARGETS: dict[str, tuple[Callable[[Raw], str], set[str]]] = {
    "pack": (blob_of(PACKED), {"run/sub/packed", "other/packed", "loose"}),
    "blob": (blob_of(SINGLE), {"run/sub/single"}),
    "run manifest": (lambda raw: layout.manifest_key("run"), {path for path in CONTENTS if "run" in path}),
}
"""What is damaged, and the files that depend on it."""
LISTS: dict[str, Callable[[Raw], str]] = {
    "receipt": _receipt,
    "tree": _part,
    "finished state": lambda raw: migrations.manifest_key(NAME, 1),
}
"""What a restore of the whole depends on."""


def _gone(raw: Raw, key: str) -> None:
    raw.delete(key)


def _emptied(raw: Raw, key: str) -> None:
    raw.put(key, b"")


def _flipped(raw: Raw, key: str) -> None:
    """In a manifest a byte of a file that stands in it: elsewhere it may be one that no file depends on."""
    body = raw.get(key) or b""
    inside = body.find(b'"contents":{') if key.startswith(layout.MANIFESTS) else -1
    place = len(body) // 2 if inside < 0 else body.index(b'":"', inside) + len(b'":"')
    raw.put(key, body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :])


DAMAGES = {"gone": _gone, "emptied": _emptied, "flipped": _flipped}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", TARGETS)
def test_what_was_damaged_earlier_keeps_its_files(
    memory_place: Place, root: Path, what: str, damage: str
) -> None:
    """What depends on it stays. All else goes, and with the lost object put back it is all there again."""
    there, raw = kept(root), memory_place.raw
    migrate(memory_place.store, root)
    find, lost = TARGETS[what]
    key = find(raw)
    body = raw.get(key) or b""
    DAMAGES[damage](raw, key)
    report = delete(memory_place.store, root)
    assert {item[0] for item in kept(root) if item[1] == "f"} == lost
    assert lost <= {path for path, _ in report.kept}
    raw.put(key, body)
    assert restored(memory_place.store) == there


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", LISTS)
def test_without_a_list_of_what_is_stored_nothing_goes(
    memory_place: Place, root: Path, what: str, damage: str
) -> None:
    """Or only what comes back when the next call has made the list again."""
    there = kept(root)
    migrate(memory_place.store, root)
    DAMAGES[damage](memory_place.raw, LISTS[what](memory_place.raw))
    try:
        delete(memory_place.store, root)
    except MLTrackError:
        assert kept(root) == there
    else:
        migrate(memory_place.store, root)
        assert restored(memory_place.store) == there


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", TARGETS)
@pytest.mark.parametrize("where", WHERE)
def test_what_is_damaged_before_the_deletion_keeps_its_files(
    request: pytest.FixtureRequest, where: str, root: Path, what: str, damage: str
) -> None:
    (find, lost), place = TARGETS[what], request.getfixturevalue(where)
    report = delete(
        place.store, root, observe=when_stored(lambda: DAMAGES[damage](place.raw, find(place.raw)))
    )
    left = {item[0] for item in kept(root) if item[1] == "f"}
    assert left == lost
    assert lost <= {path for path, _ in report.kept}
    assert report.deleted_files == len(CONTENTS) - len(lost)


def _rewrite(path: Path) -> None:
    """Other bytes, though size and times are the same."""
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _point_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/new")


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "rewritten": ("run/inside", _rewrite),
    "rewritten, packed": ("run/sub/packed", _rewrite),
    "grown": ("run/sub/single", _grow),
    "a folder now": ("run/inside", _replace_by_folder),
    "a link that points elsewhere": ("run/link", _point_link),
    "a link now": ("run/inside", _point_link),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_changed_after_it_was_stored_stays(store: Store, root: Path, kind: str) -> None:
    path, change = CHANGES[kind]
    stored = kept(root)
    report = delete(store, root, observe=when_stored(lambda: change(root / path)))
    assert [item for item, _ in report.kept] == [path]
    assert [item[0] for item in kept(root) if item[1] != "d" or item[0] == path] == [path]
    assert restored(store) == stored
    changed = kept(root)
    migrate(store, root, allow_empty=True)
    after = restored(store)
    assert set(changed) <= set(after)
    assert {item[0] for item in after} >= {item[0] for item in stored if item[1] == "f"} - {path}


def test_what_is_open_for_writing_stays(store: Store, root: Path) -> None:
    with (root / "loose").open("ab"):
        report = delete(store, root)
        assert [path for path, _ in report.kept] == ["loose"]
    assert (root / "loose").read_bytes() == CONTENTS["loose"]


def test_a_new_file_keeps_its_folder(store: Store, root: Path) -> None:
    delete(store, root, observe=when_stored(lambda: (root / "run" / "sub" / "new").write_bytes(b"n")))
    assert names(root) == ["run", "run/sub", "run/sub/new"]


def test_young_files_keep_their_runs(store: Store, root: Path) -> None:
    """A run one of whose files is young is still at work; of what is in no run, the young files stay."""
    os.utime(root / "run" / "inside")
    fill(root, {"young": b"y"})
    report = delete(store, root)
    assert set(names(root)) == {item for item in names(root) if item.startswith("run")} | {"young"}
    assert (root / "run" / "sub" / "single").read_bytes() == SINGLE
    assert report.deleted_files == 3
    delete(store, root, min_age=timedelta(0))
    assert names(root) == []


@pytest.fixture
def mlruns(tmp_path: Path) -> Path:
    """A file store of MLflow with a run that is finished and one that is running, both old."""
    texts = {"0/meta.yaml": EXPERIMENT, "models/m/meta.yaml": "name: m\n"}
    for run, status, end in ((DONE, 3, 1700000001000), (RUNNING, 1, "null")):
        texts[f"0/{run}/meta.yaml"] = RUN.format(id=run, status=status, end=end)
        texts[f"0/{run}/metrics/loss"] = "1700000000000 0.5 0\n"
        texts[f"0/{run}/artifacts/model"] = run * 1_000
    return aged(fill(tmp_path / "mlruns", {path: text.encode() for path, text in texts.items()}))


def test_of_mlflow_finished_runs_go(store: Store, mlruns: Path) -> None:
    there = kept(mlruns)
    report = delete(store, mlruns, min_age=AT_ONCE)
    assert {item[0] for item in kept(mlruns) if item[1] == "f"} == {
        *("0/meta.yaml", "models/m/meta.yaml"),
        *(f"0/{RUNNING}/{path}" for path in ("meta.yaml", "metrics/loss", "artifacts/model")),
    }
    assert not (mlruns / "0" / DONE).exists()
    assert {reason for _, reason in report.kept} == {"its run is running"}
    assert restored(store) == there
    ended = (mlruns / "0" / RUNNING / "meta.yaml").read_text().replace("status: 1", "status: 3")
    (mlruns / "0" / RUNNING / "meta.yaml").write_text(ended)
    delete(store, mlruns, min_age=AT_ONCE)
    assert sorted(path.name for path in (mlruns / "0").iterdir()) == ["meta.yaml"]
    assert {item[0] for item in restored(store)} == {item[0] for item in there}


def test_a_folder_that_became_a_link_leads_to_no_other(store: Store, root: Path, tmp_path: Path) -> None:
    """Though the same files lie behind it."""
    shutil.copytree(root / "run", tmp_path / "outside", symlinks=True)
    before = kept(tmp_path / "outside")

    def swap() -> None:
        (root / "run").rename(tmp_path / "aside")
        (root / "run").symlink_to(tmp_path / "outside")

    report = delete(store, root, observe=when_stored(swap))
    assert kept(tmp_path / "outside") == before
    assert kept(tmp_path / "aside")
    assert {path for path, _ in report.kept} == {f"run/{item[0]}" for item in before if item[1] != "d"}
    assert names(root) == ["run"]


def test_a_file_that_became_a_link_is_not_followed(store: Store, root: Path, tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", {"x": SINGLE}) / "x"

    def swap() -> None:
        (root / "run" / "sub" / "single").unlink()
        (root / "run" / "sub" / "single").symlink_to(outside)

    delete(store, root, observe=when_stored(swap))
    assert outside.read_bytes() == SINGLE
    assert (root / "run" / "sub" / "single").is_symlink()


class Stepping(SteppedStore):
    """Tells of each call before it is made, and after."""

    def __init__(self, inner: Store, tell: Callable[[], None]) -> None:
        super().__init__(inner)
        self._tell = tell

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        self._tell()
        answer = call()
        self._tell()
        return answer


_CALLS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")


def killed_at(moment: int, where: Path, root: Path) -> Any:
    """Migrate and delete in a child that dies at one moment -> how many there were, if it was not reached.

    Moments are calls of the store, reports, and every change of the tree just before it is made.
    """

    def work() -> int:
        count = 0

        def tell(*what: object) -> None:
            nonlocal count
            count += 1
            if count == moment:
                os._exit(9)

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _CALLS and not os.path.isabs(arguments[0]):  # the store's own have whole paths
                tell()

        sys.addaudithook(watch)
        delete(GuardedStore(Stepping(DirectoryStore(where, max_workers=1), tell)), root, observe=tell)
        return count

    return in_child(work)


def test_killed_at_any_moment_nothing_is_lost(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first look to the last folder: what is not here comes back, and the next call ends it."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # no power is cut here
    there, first = kept(root), tmp_path / "first"
    migrate(GuardedStore(DirectoryStore(first, max_workers=1)), root)
    moments = killed_at(0, _copied(first, tmp_path / "store 0"), _copied(root, tmp_path / "tree 0"))
    assert moments > 50
    for moment in some(range(1, moments + 1)):
        where, tree = _copied(first, tmp_path / "store"), _copied(root, tmp_path / "copy")
        assert killed_at(moment, where, tree) is None, moment
        store = GuardedStore(DirectoryStore(where, max_workers=1))
        assert restored(store) == there, moment
        local = {item[6] for item in kept(tree) if item[1] == "f"}
        assert local <= {item[6] for item in there}, moment
        report = delete(store, tree)
        assert not report.kept, (moment, report.kept)
        assert os.listdir(tree) == [], moment
        assert restored(store) == there, moment


def _copied(folder: Path, to: Path) -> Path:
    if to.exists():
        shutil.rmtree(to)
    shutil.copytree(folder, to, symlinks=True)
    return to


def test_what_a_killed_deletion_left_is_no_loss_though_it_changed(store: Store, root: Path) -> None:
    """The next call gives it its name back, and stores it as it is."""
    delete(store, root)
    trash = root / "run" / f".mltrack-trash-{'ab' * 8}"
    trash.mkdir(parents=True, mode=0o700)
    (trash / "inside").write_bytes(b"changed")
    report = migrate(store, root)
    assert (root / "run" / "inside").read_bytes() == b"changed"
    assert not trash.exists()
    assert (report.left_out, report.failed) == ((), ())
    assert {item[0]: item[3] for item in restored(store)}["run/inside"] == len(b"changed")


def test_a_receipt_that_is_gone_is_made_again(memory_place: Place, root: Path) -> None:
    """Not the same one, as what is sent is another batch by then; what was in both comes back."""
    store, raw = memory_place.store, memory_place.raw
    migrate(store, root)
    [lost] = [key for key in raw.list() if "/receipts/" in key]
    fill(root, {"run/more": b"m" * 9_000})
    migrate(store, aged(root))
    raw.delete(lost)
    fill(root, {"run/most": b"k" * 9_000})
    migrate(store, aged(root))
    there = kept(root)
    assert restored(store) == there
    delete(store, root)
    assert names(root) == []
    assert restored(store) == there


def test_a_run_that_mlflow_could_not_read_either_stays(store: Store, tmp_path: Path) -> None:
    """Nobody knows whether it is running."""
    folder = tmp_path / "mlruns" / "0"
    for path, text in {
        "meta.yaml": "experiment_id: '0'\nname: Default\nlifecycle_stage: active\n",
        "0123456789abcdef0123456789abcdef/meta.yaml": "status: [damaged",
        "0123456789abcdef0123456789abcdef/params/depth": "3",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)

    done = migrate_to_s3(store, tmp_path / "mlruns", delete_after_upload=True, min_age=timedelta(0))

    assert done.deleted_files == 0
    assert len(done.kept) == 2
    assert all("cannot be read" in reason for _, reason in done.kept)
    assert (folder / "0123456789abcdef0123456789abcdef" / "params" / "depth").read_text() == "3"
