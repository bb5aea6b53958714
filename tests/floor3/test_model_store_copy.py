"""A store with models as a store in a directory: the same versions, aliases and real files, offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from mltrack_tasks import modelkeys
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.events import Event
from mltrack_tasks.migration import download_from_s3
from mltrack_tasks.registry import (
    download_model,
    list_models,
    model_history,
    promote_model,
    register_model,
    resolve_model,
)
from mltrack_tasks.runs import store_run
from mltrack_tasks.stores.directory import DirectoryStore
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.observed import CountingStore
from tests.floor3 import invariants
from tests.floor3.conftest import Place

LARGE = b"w" * 100_000


def quiet(event: Event) -> None:
    """Progress is not what is looked at here."""


@pytest.fixture
def version(place: Place, tmp_path: Path) -> str:
    """A promoted version; beside it one without a folder."""
    folder = tmp_path / "model"
    (folder / "Größe 100%").mkdir(parents=True)
    (folder / "Größe 100%" / "weights").write_bytes(LARGE)
    (folder / "metadata.json").write_text("{}")
    register_model(place.store, None, "größe", folder / "metadata.json", materialize=False)
    made = register_model(place.store, None, "größe", folder)
    promote_model(place.store, "größe", made.version)
    return made.version


def test_the_whole_store_brings_its_models(place: Place, version: str, tmp_path: Path) -> None:
    counting = CountingStore(place.store)
    download_from_s3(counting, tmp_path / "copy", layout="store", observe=quiet)
    # Real files come from their blobs, in blocks; they are no records to be read into memory whole.
    assert not [key for verb, key in counting.log if verb == "get" and modelkeys.is_file_of_version(key)]

    copy = GuardedStore(DirectoryStore(tmp_path / "copy"))
    assert list_models(copy) == list_models(place.store)
    assert model_history(copy, "größe") == model_history(place.store, "größe")
    assert resolve_model(copy, "größe") == resolve_model(place.store, "größe")
    invariants.check_finished(copy)
    for folder in (modelkeys.development_folder, modelkeys.promoted_folder):
        place_there = tmp_path / "copy" / folder("größe", version)
        assert (place_there / "Größe 100%" / "weights").read_bytes() == LARGE
    assert (download_model(copy, "größe", "production", tmp_path / "out")[1] / "metadata.json").exists()
    again = promote_model(copy, "größe", version, "staging")
    assert again.created
    download_from_s3(place.store, tmp_path / "copy", layout="store", observe=quiet)  # nothing is in the way


def test_some_runs_leave_the_models_behind(place: Place, version: str, tmp_path: Path) -> None:
    store_run(place.store, "one", {"x": b"1"}, storage_mode="flat")
    download_from_s3(place.store, tmp_path / "copy", layout="store", run_ids=["one"], observe=quiet)
    assert list_models(GuardedStore(DirectoryStore(tmp_path / "copy"))) == []


def test_a_forged_version_writes_nothing_outside(memory_place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(LARGE)
    made = register_model(memory_place.store, None, "m", folder)
    key = modelkeys.version_key("m", made.version)
    body = memory_place.raw.get(key)
    assert body is not None
    memory_place.raw.put(key, body.replace(b'"weights"', b'"../../../../../x"'))
    with pytest.raises(IntegrityError):
        download_from_s3(memory_place.store, tmp_path / "copy", layout="store", observe=quiet)
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob("copy/**/x"))
