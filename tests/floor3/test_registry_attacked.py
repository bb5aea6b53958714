"""The registry under attack: what came between two steps, what nobody should give, what a model hides."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any, TypeVar

import pytest

from mltrack_tasks import canonical, layout, modelkeys, registry
from mltrack_tasks.content import store_data
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    TransientError,
)
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import MAX_RECORD_SIZE, Record, RunManifest
from mltrack_tasks.registry.modeltrust import is_known_type
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import FaultyStore, SteppedStore

T = TypeVar("T")
EMPTY: dict[str, Any] = {
    **{key: {} for key in ("training_data", "metrics", "params", "tags", "metadata", "mlflow")},
    **{"source_runs": [], "description": None},
}


def register(store: Store, root: Path, number: int, **more: Any) -> str:
    file = root / f"model{number}"
    file.write_text(f"model {number}")
    return registry.register_model(store, None, "churn", file, **more).version


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for path, body in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(body)
    return root


class Between(SteppedStore):
    """Does something just before the first event of an alias is written; that answer may get lost."""

    def __init__(self, inner: Store, act: Callable[[], object], *, lost: bool = False) -> None:
        super().__init__(inner)
        self.act: Callable[[], object] | None = act
        self.lost = lost

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        if verb != "create" or "/_aliases/" not in key or self.act is None:
            return call()
        act, self.act = self.act, None
        act()
        answer = call()
        return call() if self.lost else answer


@pytest.mark.parametrize("lost", [False, True])
def test_what_is_deprecated_meanwhile_is_not_left_in_use(store: Store, tmp_path: Path, lost: bool) -> None:
    a, b = (register(store, tmp_path, number) for number in range(2))
    registry.promote_model(store, "churn", a)
    registry.promote_model(store, "churn", b)
    between = Between(store, lambda: registry.deprecate_version(store, "churn", a), lost=lost)
    with pytest.raises(ConflictError, match="deprecated while"):
        registry.rollback_model(between, "churn", request_id="r")
    assert registry.resolve_model(store, "churn").version == b
    with pytest.raises(ConflictError, match="deprecated while"):
        registry.rollback_model(store, "churn", request_id="r")  # made again, it is no success
    c = register(store, tmp_path, 3)
    between = Between(store, lambda: registry.deprecate_version(store, "churn", c), lost=lost)
    with pytest.raises(ConflictError, match="deprecated while"):
        registry.promote_model(between, "churn", c, request_id="p")
    with pytest.raises(ConflictError, match="deprecated while"):
        registry.promote_model(store, "churn", c, request_id="p")
    assert registry.resolve_model(store, "churn").version == b


@pytest.mark.parametrize(
    "name",
    [
        *("sklearn.callback._transport.Connection", "sklearn.callback._transport.Client"),
        *("sklearn.callback._scoring_monitor.ScoringMonitor", "sklearn.utils.parallel.ThreadpoolController"),
        *("sklearn.utils._repr_html.estimator.Path", "sklearn.tree._export.StringIO", "sklearn.svm.Nothing"),
        *("sklearn.no_such_module.X", "sklearn.svm._base.LIBSVM_IMPL"),
    ],
)
def test_what_scikit_learn_only_imports_is_no_part_of_a_model(name: str) -> None:
    """skops would call it: connect to an address, or close a file that the process has open."""
    assert not is_known_type(name)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), [float("nan")], b"x", object(), {1: 2}, "\ud800"]
)
def test_a_tag_that_would_be_written_as_something_else(store: Store, value: Any) -> None:
    """NaN was written as null, and a policy then let any value pass."""
    with pytest.raises(InvalidInputError, match="tags"):
        registry.set_policy(store, "churn", "production", [{"kind": "tags", "tags": {"t": value}}])
    assert registry.policy_of(store, "churn", "production") == []


def test_tags_are_compared_exactly(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, 1, tags={"approved": 1, "list": [True]})
    for wrong in ({"approved": True}, {"approved": 1.0}, {"list": [1]}):
        with pytest.raises(InvalidInputError, match="lacks the tags"):
            registry.promote_model(store, "churn", made, gates=[{"kind": "tags", "tags": wrong}])
    registry.promote_model(
        store, "churn", made, gates=[{"kind": "tags", "tags": {"approved": 1, "list": [True]}}]
    )


def test_a_number_beyond_the_floats_is_none_to_judge_by(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, 1, metrics={"n": 10**400})
    with pytest.raises(InvalidInputError, match="no metric n that is a number"):
        registry.promote_model(store, "churn", made, gates=[{"kind": "metric", "metric": "n", "at_least": 0}])


def test_text_that_no_record_can_keep(store: Store, tmp_path: Path) -> None:
    a, b = (register(store, tmp_path, number) for number in range(2))
    registry.promote_model(store, "churn", a)
    calls: list[Callable[[str], object]] = [
        lambda text: registry.promote_model(store, "churn", b, reason=text),
        lambda text: registry.promote_model(store, "churn", b, request_id=text),
        lambda text: registry.rollback_model(store, "churn", reason=text),
        lambda text: registry.remove_alias(store, "churn", "production", reason=text),
        lambda text: registry.deprecate_version(store, "churn", b, reason=text),
        lambda text: register(store, tmp_path, 2, description=text),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="lone surrogate"):
            call("\ud800")
    assert registry.resolve_model(store, "churn").version == a


def test_paths_that_nothing_can_be_read_from(store: Store, tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path / "circle", "x" * 5_000):
        with pytest.raises(InvalidInputError):
            registry.register_model(store, None, "m", path)


def test_a_run_of_another_store_brings_no_data_that_is_not_here(store: Store, tmp_path: Path) -> None:
    other = GuardedStore(MemoryStore())
    run = store_run(other, "r", project="p", inputs={"train": b"rows"})
    with pytest.raises(NotFoundError, match="'train' of the run 'r'"):
        registry.register_model(store, run, "m", folder(tmp_path / "m", {"w": b"w"}))
    made = registry.register_model(other, run, "m", tmp_path / "m")
    assert list(made.training_data) == ["train"]


def test_downloads_that_meet_in_one_folder(store: Store, tmp_path: Path) -> None:
    made = registry.register_model(store, None, "m", folder(tmp_path / "m", {"a/b": b"1", "c": b"2"}))
    together = Barrier(4)

    class Meeting(SteppedStore):
        def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
            if key == modelkeys.version_key("m", made.version):
                together.wait(30)
            return call()

    def download(number: int) -> Path:
        return registry.download_model(Meeting(store), "m", made.version, tmp_path / "here")[1]

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(download, range(4))) == {tmp_path / "here"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "m"]


def test_another_download_that_came_first(store: Store, tmp_path: Path) -> None:
    made = registry.register_model(store, None, "m", folder(tmp_path / "m", {"c": b"2"}))
    store = Before(store, layout.blob_key(made.files[0].digest, made.files[0].format), tmp_path / "here")
    with pytest.raises(ConflictError, match="holds other files"):
        registry.download_model(store, "m", made.version, tmp_path / "here")
    assert (tmp_path / "here" / "other").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "m"]


class Before(SteppedStore):
    """Puts a file into a folder when a key is read."""

    def __init__(self, inner: Store, key: str, place: Path) -> None:
        super().__init__(inner)
        self.key, self.place = key, place

    def step(self, verb: str, key: str, size: int, call: Callable[[], T]) -> T:
        if key == self.key:
            folder(self.place, {"other": b""})
        return call()


def test_a_folder_whose_files_may_not_run_is_another(store: Store, tmp_path: Path) -> None:
    root = folder(tmp_path / "m", {"run": b"x"})
    plain = registry.register_model(store, None, "m", root)
    (root / "run").chmod(0o755)
    other = registry.register_model(store, None, "m", root)
    registry.download_model(store, "m", plain.version, tmp_path / "here")
    registry.download_model(store, "m", plain.version, tmp_path / "here")
    with pytest.raises(ConflictError):
        registry.download_model(store, "m", other.version, tmp_path / "here")


def test_a_forged_path_of_a_hundred_thousand_folders_is_refused_at_once(store: Store) -> None:
    """To look for files above it took the square of its length: hours for a record of 10 MB."""
    path = "a/" * 3_000_000 + "b"
    digest = sha256_hex(canonical.dumps([{"path": path, "digest": "0" * 64, "executable": False}]))
    version = f"v20240115_{digest[:6]}"
    file = {"path": path, "digest": "0" * 64, "executable": False, "format": "bin", "size_bytes": 1}
    content = {"model": "m", "version": version, "tree_digest": digest, "files": [file]}
    body = Record({**EMPTY, **content}, {}).to_bytes()
    store.create(modelkeys.version_key("m", version), body)
    with pytest.raises(IntegrityError, match="no key could hold it"):
        registry.resolve_model(store, "m", version)


def test_a_deprecation_that_is_stopped_leaves_what_is_in_use_alone(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, 1)
    registry.promote_model(store, "churn", made)
    for step in range(1, 99):
        faulty = FaultyStore(store, step, "crash")
        with pytest.raises((TransientError, ConflictError)):
            registry.deprecate_version(faulty, "churn", made)
        assert registry.resolve_model(store, "churn").deprecated is None, step
        if faulty.count < step:
            return
    raise AssertionError("more steps than were tried")


def test_a_gate_that_changes_what_it_is_given_changes_nothing_else(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, 1, metrics={"auc": 0.1})

    def better(version: ModelVersion, current: ModelVersion | None) -> bool:
        version.metrics["auc"] = 1.0  # type: ignore[index]
        return True

    gate = {"kind": "metric", "metric": "auc", "at_least": 0.9}
    with pytest.raises(InvalidInputError, match=r"auc is 0\.1"):
        registry.promote_model(store, "churn", made, gates=[better, gate])
    registry.promote_model(store, "churn", made, gates=[better])
    record = json.loads(store.get(modelkeys.promoted_key("churn", made)))
    assert record["content"]["metrics"] == {"auc": 0.1}


@pytest.mark.parametrize("alias", ["latest", "", "v1"])
def test_a_policy_that_could_never_be_asked(store: Store, alias: str) -> None:
    gate = {"kind": "not_worse", "metric": "auc", "alias": alias}
    with pytest.raises(InvalidInputError, match="alias"):
        registry.set_policy(store, "churn", "production", [gate])


def test_what_could_not_be_read_back_is_not_written(store: Store, tmp_path: Path) -> None:
    """The tree would have that record for ever, and no other."""
    root = folder(tmp_path / "m", {"w": b"w"})
    ref = store_data(store, b"rows", "train")
    elsewhere = replace(ref, storage_path="elsewhere")
    for run, given in ((None, {"train": elsewhere}), (RunManifest(""), {"train": ref})):
        with pytest.raises(InvalidInputError, match="cannot be made of this"):
            registry.register_model(store, run, "m", root, training_data=given)
    assert registry.register_model(store, None, "m", root, training_data={"train": ref}).created


def test_a_reason_that_is_too_long_to_be_read_again(store: Store, tmp_path: Path) -> None:
    made = register(store, tmp_path, 1)
    with pytest.raises(InvalidInputError, match="the limit is"):
        registry.deprecate_version(store, "churn", made, reason="x" * MAX_RECORD_SIZE)
    assert registry.resolve_model(store, "churn", made).deprecated is None


def test_a_request_id_that_another_call_has(store: Store, tmp_path: Path) -> None:
    a, b = (register(store, tmp_path, number) for number in range(2))
    registry.promote_model(store, "churn", a, request_id="r")
    calls: list[Callable[[], object]] = [
        lambda: registry.promote_model(store, "churn", b, request_id="r"),
        lambda: registry.rollback_model(store, "churn", request_id="r"),
        lambda: registry.remove_alias(store, "churn", "production", request_id="r"),
    ]
    for call in calls:
        with pytest.raises(ConflictError, match="another call"):
            call()
    assert registry.promote_model(store, "churn", "latest", request_id="r").version == a
