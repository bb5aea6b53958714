"""MLflow's registered models become versions and promotions, once, and stay as people set them."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mltrack_tasks import records
from mltrack_tasks.errors import ConflictError, MLTrackError, NotFoundError, PartialTransferError
from mltrack_tasks.migration import (
    finish_migration,
    hashcache,
    plan_manifests,
    plan_migration,
    planning,
    scan_source,
    upload_batch,
    write_manifests,
    write_models,
)
from mltrack_tasks.migration.report import MigrationReport
from mltrack_tasks.migration.state import latest_manifest
from mltrack_tasks.registry import (
    deprecate_version,
    download_model,
    list_models,
    model_history,
    promote_model,
    remove_alias,
    resolve_model,
    set_policy,
)
from mltrack_tasks.registry.gates import MetricGate
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import CountingStore, FaultyStore
from mltrack_tasks.trust.verify import verify_store
from tests.floor3.migrationtrees import (
    AT_ONCE,
    NAME,
    fill,
    kept,
    migrate,
    quiet,
    restored,
    small_registry,
    stored,
)
from tests.floor3.mlflowmodels import SIZES, Site, at_work
from tests.settings import some

pytestmark = pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLTRACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(hashcache, "SETTLED", 0)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    with at_work(tmp_path / "site", "files") as site:
        yield site


class Filled(NamedTuple):
    """A registry of each way that MLflow has to refer to files."""

    site: Site
    old: str
    """Run with the files of a model among its artifacts, as of MLflow 2."""
    new: str
    """Run beside which a model was logged, as of MLflow 3."""
    model: str


@pytest.fixture(scope="module", params=["files", "sqlite"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with at_work(tmp_path_factory.mktemp(request.param), request.param) as site:
        old, new = site.run(auc=0.5), site.run(auc=0.75)
        site.files(old, b"1")
        model = site.logged(new, b"2")
        uri = site.client.get_run(old).info.artifact_uri
        site.version("churn", f"runs:/{old}/model", old, tags={"team": "ü"}, description="first")
        site.version("churn", f"models:/{model}", new)
        site.version("churn", f"{uri}/model", old)
        site.version("churn", f"runs:/{new}/model", new)
        site.version("churn", "s3://elsewhere/model", new)
        site.version("copied", "models:/churn/2", new)
        site.client.set_registered_model_alias("churn", "champion", "2")
        site.client.set_registered_model_alias("churn", "lost", "5")
        site.stage("churn", 1, "Staging")
        site.stage("churn", 2, "Production")
        site.stage("churn", 3, "Archived")
        yield Filled(site, old, new, model)


def numbers(report: MigrationReport, model: str = "churn") -> dict[int, str]:
    """MLflow's numbers of a model -> version here."""
    return {number: version for name, number, version in report.registered if name == model}


def events(store: Store, model: str, alias: str) -> list[str | None]:
    return [event.version for event in model_history(store, model, alias)]


def simple(site: Site, versions: int = 2) -> list[str]:
    """A model with that many versions, the last one its champion -> their runs."""
    runs = []
    for number in range(1, versions + 1):
        runs.append(site.run(auc=number / 10))
        site.files(runs[-1], b"%d" % number)
        site.version("churn", f"runs:/{runs[-1]}/model", runs[-1])
    site.client.set_registered_model_alias("churn", "champion", str(versions))
    return runs


def test_each_version_is_one_here_with_its_files(filled: Filled, store: Store, tmp_path: Path) -> None:
    report = migrate(store, filled.site.tree)
    one, two = numbers(report)[1], numbers(report)[2]
    assert numbers(report) == {1: one, 2: two, 3: one, 4: two}
    assert [model.name for model in list_models(store)] == ["churn", "copied"]
    assert resolve_model(store, "copied", numbers(report, "copied")[1]).tree_digest.startswith(two[-6:])
    for version, folder in ((one, filled.site.artifacts(filled.old) / "model"), (two, _logged(filled))):
        found = {item[0]: item for item in kept(folder)}
        assert sorted(file.path for file in resolve_model(store, "churn", version).files) == sorted(SIZES)
        download_model(store, "churn", version, tmp_path / version)
        for path in SIZES:
            assert (tmp_path / version / path).read_bytes() == (folder / path).read_bytes(), found[path]


def _logged(filled: Filled) -> Path:
    site = filled.site
    return Path(site.client.get_logged_model(filled.model).artifact_location.removeprefix("file://"))


def test_a_version_says_where_it_comes_from(filled: Filled, store: Store) -> None:
    migrate(store, filled.site.tree)
    staging, champion = (resolve_model(store, "churn", alias) for alias in ("staging", "champion"))
    assert staging.tags == {
        "team": "ü",
        "mlflow.version": "1",
        "mlflow.version.3": "3",
        "mlflow.stage": "Archived",
    }
    assert (staging.source_runs, champion.source_runs) == ((filled.old,), (filled.new,))
    assert (dict(staging.metrics), dict(champion.metrics)) == ({"auc": 0.5}, {"auc": 0.75})
    assert dict(champion.params) == {"depth": "3"}
    assert champion.mlflow["flavors"] == {"python_function": {"loader_module": "mlflow.sklearn"}}
    said = champion.metadata["mlflow"]["versions"]
    assert [(each["version"], each["source"]) for each in said] == [
        (2, f"models:/{filled.model}"),
        (4, f"runs:/{filled.new}/model"),
    ]
    assert staging.metadata["mlflow"]["versions"][0]["description"] == "first"


def test_aliases_and_stages_are_promotions(filled: Filled, store: Store) -> None:
    report = migrate(store, filled.site.tree)
    one, two = numbers(report)[1], numbers(report)[2]
    summary = next(model for model in list_models(store) if model.name == "churn")
    assert summary.aliases == {"champion": two, "production": two, "staging": one}
    [event] = model_history(store, "churn", "production")
    assert (event.action, event.gates, event.request_id) == ("promote", (), f"migration:{NAME}#1")
    assert event.reason == "migrated: MLflow's stage Production of version 2"
    assert (
        resolve_model(store, "churn", "production").s3_location
        == f"{store.location}/models/registry/churn/{two}"
    )
    assert dict(report.not_registered) == {"churn 5": "they are in s3: ('s3://elsewhere/model')"}
    assert list(dict(report.differences)) == ["churn@lost"]


def test_what_is_restored_is_as_before(filled: Filled, store: Store) -> None:
    migrate(store, filled.site.tree)
    tree = kept(filled.site.tree)
    assert [item for item in restored(store) if item[0] != "mlflow.db"] == tree
    own = {item[0] for item in tree if filled.old in item[0] and item[1] == "f"}
    assert own <= {item[0] for item in restored(store, run_ids=[filled.old])}


def test_unchanged_it_costs_three_requests(filled: Filled, store: Store) -> None:
    first = migrate(store, filled.site.tree)
    counted = CountingStore(store)
    again = migrate(counted, filled.site.tree)
    assert again.unchanged
    assert counted.calls == {"list": 2, "get_range": 1}
    assert (again.registered, again.not_registered) == (first.registered, first.not_registered)


def test_models_that_are_there_cost_nothing_when_a_run_is_new(site: Site, store: Store) -> None:
    other = GuardedStore(MemoryStore())
    simple(site)
    migrate(store, site.tree)
    migrate(other, site.tree, exclude=["models/*"])
    site.run()
    with_models, without = CountingStore(store), CountingStore(other)
    migrate(with_models, site.tree)
    migrate(without, site.tree, exclude=["models/*"])
    assert not [key for _, key in with_models.log if key.startswith("models/")]
    assert with_models.requests <= without.requests + 1  # what registered models have is a receipt of its own


def test_a_dry_run_counts_and_writes_nothing(site: Site, store: Store) -> None:
    simple(site)
    site.stage("churn", 1, "Production")
    report = migrate(store, site.tree, dry_run=True)
    assert (report.models, report.model_versions, report.model_aliases) == (1, 2, 2)
    assert "models: 1, versions: 2, aliases: 2" in report.summary()
    figures = {row[""]: row["number"] for row in report.rows()}
    assert (figures["registered models"], figures["their versions"], figures["their aliases"]) == (1, 2, 2)
    assert report.estimate is not None
    counted = CountingStore(store)
    migrate(counted, site.tree)
    assert counted.requests / 2 <= report.estimate.requests <= counted.requests * 2
    assert not [key for key in stored(GuardedStore(MemoryStore())) if key]


def test_equal_files_are_one_version_of_both_runs(site: Site, store: Store) -> None:
    runs = [site.run(auc=0.5), site.run(auc=0.6)]
    for run in runs:
        site.files(run, b"1")
        site.version("churn", f"runs:/{run}/model", run, tags={run: "mine"})
    report = migrate(store, site.tree)
    assert numbers(report)[1] == numbers(report)[2]
    [summary] = list_models(store)
    version = resolve_model(store, "churn", "latest")
    assert summary.versions == (version.version,)
    assert version.source_runs == tuple(sorted(runs))
    numbered = {"mlflow.version": "1", "mlflow.version.2": "2"}
    assert version.tags == {runs[0]: "mine", runs[1]: "mine", **numbered}
    assert dict(version.metrics) == {"auc": 0.6}


def test_equal_files_of_a_later_migration_are_the_same_version(site: Site, store: Store) -> None:
    [first] = simple(site, 1)
    before = migrate(store, site.tree)
    second = site.run(auc=0.9)
    site.files(second, b"1")
    site.version("churn", f"runs:/{second}/model", second)
    report = migrate(store, site.tree)
    assert numbers(report) == {1: numbers(before)[1], 2: numbers(before)[1]}
    version = resolve_model(store, "churn", "latest")
    assert version.source_runs == tuple(sorted((first, second)))
    assert version.tags == {"mlflow.version": "1", "mlflow.version.2": "2"}


MISSING = {
    "s3://bucket/x": "they are in s3:",
    "file:///somewhere/else/model": "they lie outside of this folder",
    "/somewhere/else/model": "they lie outside of this folder",
    f"models:/m-{'a' * 32}": "has no files here",
    f"runs:/{'a' * 32}/model": "has no files of 'model' here",
    "runs:/{run}/nothing": "has no files of 'nothing' here",
    "runs:/{run}/../model": "has no files of '../model' here",
    "{uri}/nothing": "there is nothing at",
    "models:/none/3": "is not in this registry",
    "http://host/model": "they are in http:",
    "mlflow-artifacts:/9/{other}/artifacts/model": "they lie outside of this folder",
}


def test_what_lies_elsewhere_is_reported_with_the_reason(site: Site, store: Store) -> None:
    run = site.run()
    site.files(run, b"1")
    site.version("churn", f"runs:/{run}/model", run)
    meta = site.tree / "models" / "churn" / "version-1" / "meta.yaml"
    text = re.sub(r"(?m)^storage_location: .*\n", "", meta.read_text())  # as of older MLflow
    uri = site.client.get_run(run).info.artifact_uri
    for number, source in enumerate(MISSING, start=2):
        there = source.format(run=run, uri=uri, other="b" * 32)
        copy = re.sub(
            r"(?m)^source: .*$", f"source: {there}", text.replace("version: 1", f"version: {number}")
        )
        fill(site.tree, {f"models/churn/version-{number}/meta.yaml": copy.encode()})
    report = migrate(store, site.tree)
    assert list(numbers(report)) == [1]
    told = dict(report.not_registered)
    for number, reason in enumerate(MISSING.values(), start=2):
        assert reason in told[f"churn {number}"]
    assert restored(store) == kept(site.tree)
    assert migrate(store, site.tree).unchanged


def test_an_alias_moves_when_it_moved_in_mlflow(site: Site, store: Store) -> None:
    simple(site)
    one, two = (numbers(migrate(store, site.tree))[number] for number in (1, 2))
    for number in ("1", "2"):
        site.client.set_registered_model_alias("churn", "champion", number)
        migrate(store, site.tree)
    assert events(store, "churn", "champion") == [two, one, two]
    site.client.delete_registered_model_alias("churn", "champion")
    migrate(store, site.tree)
    assert events(store, "churn", "champion") == [two, one, two, None]
    migrate(store, site.tree)
    assert latest_manifest(store, NAME).aliases == ()  # type: ignore[union-attr]
    site.stage("churn", 1, "Production")
    migrate(store, site.tree)
    assert events(store, "churn", "production") == [one]
    site.stage("churn", 2, "Production")
    migrate(store, site.tree)
    assert events(store, "churn", "production") == [one, two]


@pytest.mark.parametrize("how", ["promote", "remove"])
@pytest.mark.parametrize("then", ["move", "delete"])
def test_an_alias_that_was_moved_here_is_left_alone(site: Site, store: Store, how: str, then: str) -> None:
    simple(site, 3)
    here = numbers(migrate(store, site.tree))
    if how == "promote":
        promote_model(store, "churn", here[1], "champion", observe=quiet)
    else:
        remove_alias(store, "churn", "champion", observe=quiet)
    before = events(store, "churn", "champion")
    site.run()
    assert not migrate(store, site.tree).differences  # MLflow has not moved it
    if then == "move":
        site.client.set_registered_model_alias("churn", "champion", "2")
    else:
        site.client.delete_registered_model_alias("churn", "champion")
    for _ in range(2):
        report = migrate(store, site.tree)
        assert events(store, "churn", "champion") == before
        assert list(dict(report.differences)) == (["churn@champion"] if then == "move" else [])
        site.run()
    if then == "move" and how == "promote":
        assert "moved it here (promote, number 2" in dict(report.differences)["churn@champion"]
        site.client.set_registered_model_alias("churn", "champion", "1")
        assert not migrate(store, site.tree).differences  # they agree again


def test_another_migration_does_not_move_what_the_first_moved(site: Site, store: Store) -> None:
    simple(site)
    here = numbers(migrate(store, site.tree))
    site.client.set_registered_model_alias("churn", "champion", "1")
    other = migrate(store, site.tree, name=f"{NAME}#1")
    assert numbers(other) == here
    assert events(store, "churn", "champion") == [here[2]]
    assert list(dict(other.differences)) == ["churn@champion"]


def test_what_was_deprecated_here_is_given_no_alias(site: Site, store: Store) -> None:
    simple(site)
    here = numbers(migrate(store, site.tree))
    deprecate_version(store, "churn", here[1], reason="wrong data", observe=quiet)
    site.client.set_registered_model_alias("churn", "champion", "1")
    report = migrate(store, site.tree)
    assert "wrong data" in dict(report.differences)["churn@champion"]
    assert events(store, "churn", "champion") == [here[2]]


def test_gates_are_not_asked_for_what_has_happened(site: Site, store: Store) -> None:
    simple(site)
    set_policy(store, "churn", "production", [MetricGate(metric="auc", at_least=0.99)])
    site.stage("churn", 1, "Production")
    report = migrate(store, site.tree)
    assert events(store, "churn", "production") == [numbers(report)[1]]


def test_a_model_that_is_registered_later_sends_its_small_files_only(site: Site, store: Store) -> None:
    run = site.run()
    site.files(run, b"1")
    migrate(store, site.tree)
    blobs = {key for key in stored(store) if key.startswith("data/")}
    site.version("churn", f"runs:/{run}/model", run)
    counted = CountingStore(store)
    report = migrate(counted, site.tree)
    sent = [key for verb, key in counted.log if verb == "create" and key.startswith("data/")]
    files = resolve_model(store, "churn", numbers(report)[1]).files
    fresh = {f"data/{file.digest[:2]}/{file.digest}/data.{file.format}" for file in files} - blobs
    assert len(fresh) == 2
    assert fresh <= set(sent)
    assert len(sent) == len(set(sent))
    assert counted.sent.total() < 40_000  # the large file is there, and is not sent again


def test_a_version_stays_when_its_files_were_deleted_here(site: Site, store: Store) -> None:
    simple(site)
    whole = kept(site.tree)
    first = migrate(store, site.tree, delete_after_upload=True, min_age=AT_ONCE)
    assert first.deleted_files
    site.client.set_registered_model_alias("churn", "champion", "1")
    again = migrate(store, site.tree)
    assert again.registered == first.registered
    assert not again.not_registered
    assert events(store, "churn", "champion") == [numbers(first)[2], numbers(first)[1]]
    assert {item[0] for item in restored(store)} == {item[0] for item in whole}


def test_files_that_changed_since_make_no_other_version(site: Site, store: Store) -> None:
    runs = simple(site)
    first = migrate(store, site.tree)
    (site.artifacts(runs[1]) / "model" / "weights.bin").unlink()
    again = migrate(store, site.tree)
    assert again.registered == first.registered
    assert "not those any more" in dict(again.not_registered)["churn 2"]
    assert events(store, "churn", "champion") == [numbers(first)[2]]
    assert list_models(store)[0].versions == tuple(sorted(numbers(first).values()))


def test_a_model_that_was_made_anew_has_other_versions(site: Site, store: Store) -> None:
    """MLflow counts from 1 again; what the first ones became here stays."""
    simple(site)
    first = numbers(migrate(store, site.tree))
    site.client.delete_registered_model("churn")
    gone = migrate(store, site.tree)
    assert (gone.models, gone.registered) == (0, ())
    assert events(store, "churn", "champion") == [first[2]]
    run = site.run()
    site.files(run, b"new")
    site.version("churn", f"runs:/{run}/model", run)
    site.client.set_registered_model_alias("churn", "champion", "1")
    again = numbers(migrate(store, site.tree))
    assert list(again) == [1]
    assert again[1] not in first.values()
    assert events(store, "churn", "champion") == [first[2], again[1]]


def test_a_registry_that_is_not_readable_for_a_while_loses_nothing(site: Site, store: Store) -> None:
    simple(site)
    first = migrate(store, site.tree, delete_after_upload=True, min_age=AT_ONCE)
    meta = site.tree / "models" / "churn" / "meta.yaml"
    text = meta.read_bytes()
    meta.write_bytes(b"\xff")
    assert not migrate(store, site.tree).registered
    meta.write_bytes(text)
    again = migrate(store, site.tree)
    assert (again.registered, again.not_registered, again.differences) == (first.registered, (), ())
    assert len(events(store, "churn", "champion")) == 1


def test_a_call_that_looked_earlier_does_not_move_an_alias_back(site: Site, store: Store) -> None:
    simple(site, 3)
    here = numbers(migrate(store, site.tree))
    site.client.set_registered_model_alias("churn", "champion", "1")
    scan = scan_source(site.tree, name=NAME, observe=quiet)
    plan = plan_migration(store, scan, observe=quiet)
    site.client.set_registered_model_alias("churn", "champion", "2")
    migrate(store, site.tree)
    sent = [upload_batch(store, batch, origin=scan.origin, observe=quiet) for batch in plan.batches]
    with pytest.raises(ConflictError, match="Run the same call again"):
        write_models(store, plan_manifests(plan, sent), [], observe=quiet)
    assert events(store, "churn", "champion") == [here[3], here[2]]


def test_part_of_a_model_is_none(site: Site, store: Store, tmp_path: Path) -> None:
    runs = simple(site, 3)
    (site.artifacts(runs[2]) / "model" / "link").symlink_to("weights.bin")
    (site.artifacts(runs[1]) / "model" / "skipped.log").write_bytes(b"1")
    report = migrate(store, site.tree, exclude=["*.log"])
    assert list(numbers(report)) == [1]
    told = dict(report.not_registered)
    assert "left out by include or exclude" in told["churn 2"]
    assert "symbolic link" in told["churn 3"]
    assert not events_of_nothing(store, "champion")
    assert list(numbers(migrate(store, site.tree))) == [1, 2]


def events_of_nothing(store: Store, alias: str) -> bool:
    try:
        return bool(model_history(store, "churn", alias))
    except NotFoundError:
        return False


def test_a_pipeline_without_the_step_is_made_up_for(site: Site, store: Store) -> None:
    """Also the manifest of a version of this library that did not know models yet."""
    simple(site)
    scan = scan_source(site.tree, name=NAME, observe=quiet)
    plan = plan_migration(store, scan, observe=quiet)
    sent = [upload_batch(store, batch, origin=scan.origin, observe=quiet) for batch in plan.batches]
    work = plan_manifests(plan, sent)
    written = [write_manifests(store, runs, origin=scan.origin, observe=quiet) for runs in work.batches]
    finish_migration(store, work, written, observe=quiet)
    assert not list_models(store)
    report = migrate(store, site.tree)
    assert len(numbers(report)) == 2
    assert migrate(store, site.tree).unchanged


def test_a_version_that_cannot_be_written_is_an_error_and_holds_up_nothing_else(
    site: Site, store: Store
) -> None:
    runs = simple(site)
    site.stage("churn", 1, "Production")
    other = GuardedStore(MemoryStore())
    version = numbers(migrate(other, site.tree))[2]
    store.create(f"models/development/churn/{version}/foreign", b"not of the model")
    with pytest.raises(PartialTransferError, match=r"version 2.*is no file of") as caught:
        migrate(store, site.tree, delete_after_upload=True, min_age=AT_ONCE)
    [report] = caught.value.done
    assert list(numbers(report)) == [1]
    assert not report.deleted_files
    assert events(store, "churn", "production") == [numbers(report)[1]]
    assert not events_of_nothing(store, "champion")
    store.delete([f"models/development/churn/{version}/foreign"])
    assert numbers(migrate(store, site.tree)) == {1: numbers(report)[1], 2: version}
    assert events(store, "churn", "champion") == [version]
    assert site.artifacts(runs[0]).exists()


def contents(store: Store) -> dict[str, Any]:
    """All records but for when and by whom, all blobs; days in keys of the log are left out."""
    found: dict[str, Any] = {}
    for key, body in stored(store).items():
        if key.endswith(".json") and not key.startswith(("data/", "format.json")):
            found[key] = json.loads(body)["content"]
        elif key != "format.json" and "/_by_digest/" not in key and "/_ids/" not in key:
            found[re.sub(r"^runs/log/[^/]+/", "runs/log/", key)] = body
    return found


@pytest.mark.parametrize("how", ["crash", "after"])
def test_killed_anywhere_the_same_call_completes_it(how: Any, tmp_path: Path, no_pauses: list[float]) -> None:
    tree = small_registry(tmp_path / "tree")
    counted = FaultyStore(MemoryStore(max_workers=2), 0)
    migrate(GuardedStore(counted), tree)
    whole = contents(counted)
    for step in some(range(1, counted.count + 1)):
        bare = MemoryStore(max_workers=2)
        try:
            migrate(GuardedStore(FaultyStore(bare, step, how)), tree)
        except MLTrackError:
            _check_order(bare)
        report = migrate(GuardedStore(bare), tree)
        assert contents(bare) == whole, step
        assert len(numbers(report)) == 2
        assert [len(model_history(bare, "churn", alias)) for alias in ("champion", "staging")] == [1, 1]
    assert restored(bare) == kept(tree)


def _check_order(store: Store) -> None:
    """An alias stands for a folder that is complete; a manifest that lists aliases is later than these."""
    keys = set(stored(store))
    for alias in ("champion", "staging"):
        if f"models/registry/churn/_aliases/{alias}/00000001.json" in keys:
            version = resolve_model(store, "churn", alias)
            assert f"models/registry/churn/{version.version}.json" in keys
            assert {f"models/registry/churn/{version.version}/{file.path}" for file in version.files} <= keys
    for version in {key.split("/")[3] for key in keys if key.startswith("models/development/churn/v")}:
        if version.endswith(".json"):
            for file in resolve_model(store, "churn", version.removesuffix(".json")).files:
                assert f"data/{file.digest[:2]}/{file.digest}/data.{file.format}" in keys
    manifest = latest_manifest(store, NAME)
    assert manifest is None or len(manifest.aliases) == 2


HOSTILE: dict[str, tuple[Callable[[str], str], str]] = {
    "another name": (lambda text: text.replace("name: churn", "name: ../x"), "says to be the model '../x'"),
    "an alias of YAML": (lambda text: text.replace("name: churn", "name: &a churn"), "models/churn"),
    "no name": (lambda text: "creation_timestamp: 1\n", "should be text"),
    "a name of another kind": (lambda text: "name: [a]\n", "should be text"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_registry_that_cannot_be_read_is_kept_byte_for_byte(
    case: str, store: Store, tmp_path: Path
) -> None:
    tree = small_registry(tmp_path / "tree")
    meta = tree / "models" / "churn" / "meta.yaml"
    change, reason = HOSTILE[case]
    meta.write_text(change(meta.read_text()))
    report = migrate(store, tree)
    assert reason in dict(report.not_registered)["churn"]
    assert not list_models(store)
    assert restored(store) == kept(tree)
    assert migrate(store, tree).unchanged


def test_hostile_names_and_numbers_stay_within_their_places(store: Store, tmp_path: Path) -> None:
    tree = small_registry(tmp_path / "tree")
    fill(tree, {f"models/churn/aliases/{alias}": b"1" for alias in ("latest", "v3", "a%2F..", "gone")})
    fill(tree, {"models/churn/aliases/gone": b"77"})
    fill(tree, {"models/churn/aliases/of/folders": b"1"})
    text = (tree / "models/churn/version-1/meta.yaml").read_text()
    fill(tree, {"models/churn/version-01/meta.yaml": text.encode()})
    fill(tree, {"models/churn/version-0/meta.yaml": text.replace("version: 1", "version: 0").encode()})
    report = migrate(store, tree)
    assert sorted(numbers(report)) == [1, 2]
    assert set(list_models(store)[0].aliases) == {"a%2F..", "champion", "of/folders", "staging"}
    assert {"churn@latest", "churn@v3"} <= set(dict(report.not_registered))
    assert dict(report.differences) == {"churn@gone": "MLflow has no version 77"}
    folders = {key.split("/")[2] for key in stored(store) if key.startswith("models/")}
    assert folders == {"churn"}
    assert migrate(store, tree).unchanged


def test_a_registry_that_is_damaged_in_a_database_hides_no_run(tmp_path: Path, store: Store) -> None:
    with at_work(tmp_path, "sqlite") as site:
        [run] = simple(site, 1)
        database = sqlite3.connect(tmp_path / "mlflow.db")
        with database:
            database.execute("ALTER TABLE model_version_tags RENAME COLUMN name TO other")
        database.close()
        report = migrate(store, site.tree)
    assert report.runs == (run,)
    assert "without the column name" in dict(report.not_registered)["models of 'mlflow.db'"]


@pytest.mark.parametrize("level", ["structure", "read"])
def test_a_store_with_models_of_mlflow_verifies(site: Site, store: Store, level: str) -> None:
    simple(site)
    migrate(store, site.tree)
    site.client.delete_registered_model_alias("churn", "champion")
    migrate(store, site.tree)
    report = verify_store(store, level=level, observe=quiet)
    assert report.ok
    assert not report.findings


def test_a_database_may_hold_any_name(tmp_path: Path, store: Store) -> None:
    with at_work(tmp_path, "sqlite") as site:
        simple(site, 1)
        database = sqlite3.connect(tmp_path / "mlflow.db")
        with database:
            for name in ("../x", ".", "..", "a\nb", "x" * 300, "größe/模型"):
                database.execute(
                    "INSERT INTO registered_models (name, creation_time, workspace) VALUES (?, 1, 'default')",
                    (name,),
                )
                database.execute(
                    "INSERT INTO model_versions (name, version, creation_time, source, current_stage, "
                    "status, workspace) SELECT ?, ?, 1, source, 'None', 'READY', 'default' "
                    "FROM model_versions WHERE name = 'churn'",
                    (name, -3 if name == "größe/模型" else 1),
                )
        database.close()
        report = migrate(store, site.tree)
    assert {model for model, _, _ in report.registered} == {"../x", "churn"}
    assert {".", "..", "a\nb", "x" * 300} <= set(dict(report.not_registered))
    assert {key.split("/")[2] for key in stored(store) if key.startswith("models/")} == {"churn", "..%2Fx"}
    assert resolve_model(store, "../x", "latest").tags["mlflow.version"] == "1"


@pytest.mark.parametrize("kind", ["files", "sqlite"])
def test_a_copy_has_the_files_that_its_original_had(kind: str, store: Store, tmp_path: Path) -> None:
    """What bears the original's name and number now is another model."""
    with at_work(tmp_path, kind) as site:
        first, other = site.run(), site.run()
        site.files(first, b"1")
        site.files(other, b"2")
        site.version("churn", f"runs:/{first}/model", first)
        site.version("copied", "models:/churn/1", first)
        site.version("again", "models:/copied/1", first)
        site.client.delete_registered_model("churn")
        site.version("churn", f"runs:/{other}/model", other)
        site.client.delete_registered_model("copied")
        migrate(store, site.tree)
        copy, new = (resolve_model(store, name, "latest") for name in ("again", "churn"))
        for version, run in ((copy, first), (new, other)):
            download_model(store, version.model, version.version, tmp_path / run)
            weights = site.artifacts(run) / "model" / "weights.bin"
            assert (tmp_path / run / "weights.bin").read_bytes() == weights.read_bytes()


def test_a_version_has_the_files_of_its_source_whatever_model_it_is_linked_to(
    site: Site, store: Store, tmp_path: Path
) -> None:
    old, new = site.run(), site.run()
    site.files(old, b"1")
    site.client.create_registered_model("churn")
    model = site.logged(new, b"2")
    site.client.create_model_version("churn", f"runs:/{old}/model", run_id=old, model_id=model)
    migrate(store, site.tree)
    download_model(store, "churn", "latest", tmp_path / "out")
    assert (tmp_path / "out" / "weights.bin").read_bytes() == b"1" * SIZES["weights.bin"]


def test_a_copy_of_older_mlflow_has_the_files_of_its_original(site: Site, store: Store) -> None:
    simple(site, 1)
    site.version("copied", "models:/churn/1")
    meta = site.tree / "models" / "copied" / "version-1" / "meta.yaml"
    meta.write_text(re.sub(r"(?m)^storage_location: .*\n", "", meta.read_text()))
    report = migrate(store, site.tree)
    assert numbers(report, "copied") == numbers(report)


def test_a_registry_has_the_files_of_its_own_store_where_a_copy_lies_beside(
    store: Store, tmp_path: Path
) -> None:
    run = "a" * 32
    for name in ("a", "b"):
        small_registry(tmp_path / "tree" / name)
    (tmp_path / f"tree/b/0/{run}/artifacts/two/weights").write_bytes(b"newer")
    report = migrate(store, tmp_path / "tree")
    assert "the one of 'b' is left out" in dict(report.not_registered)["churn"]
    [file] = resolve_model(store, "churn", "champion").files
    assert file.size_bytes == 5_000


def test_an_alias_goes_with_mlflows_whatever_it_stood_for_last(site: Site, store: Store) -> None:
    """Here it still stands for what it was given before: of what came then, nothing is here."""
    simple(site)
    here = numbers(migrate(store, site.tree))
    site.version("churn", "s3://elsewhere/model")
    site.client.set_registered_model_alias("churn", "champion", "3")
    assert list(dict(migrate(store, site.tree).differences)) == ["churn@champion"]
    assert events(store, "churn", "champion") == [here[2]]
    site.client.delete_registered_model_alias("churn", "champion")
    migrate(store, site.tree)
    assert events(store, "churn", "champion") == [here[2], None]
    assert migrate(store, site.tree).unchanged


@pytest.mark.parametrize("what", ["version", "alias"])
def test_an_alias_goes_with_mlflows_when_its_last_move_failed(site: Site, store: Store, what: str) -> None:
    other = GuardedStore(MemoryStore())
    simple(site)
    here = numbers(migrate(store, site.tree))
    run = site.run()
    site.files(run, b"3")
    site.version("churn", f"runs:/{run}/model", run)
    site.client.set_registered_model_alias("churn", "champion", "3")
    version = numbers(migrate(other, site.tree))[3]
    place = "development" if what == "version" else "registry"
    store.create(f"models/{place}/churn/{version}/foreign", b"not of the model")
    with pytest.raises(PartialTransferError, match="is no file of"):
        migrate(store, site.tree)
    assert events(store, "churn", "champion") == [here[2]]
    site.client.delete_registered_model_alias("churn", "champion")
    store.delete([f"models/{place}/churn/{version}/foreign"])
    migrate(store, site.tree)
    assert events(store, "churn", "champion") == [here[2], None]


def test_a_version_stays_when_what_is_said_of_it_later_cannot_be_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = small_registry(tmp_path / "tree")
    first = migrate(store, tree)
    fill(tree, {"models/churn/version-2/tags/long": b"1" * 200_000})
    with monkeypatch.context() as patch:
        patch.setattr(records, "MAX_RECORD_SIZE", 100_000)
        patch.setattr(planning, "_BESIDE", 0)  # the two files of the run are not what is too much
        report = migrate(store, tree)
    assert report.registered == first.registered
    assert len(events(store, "churn", "champion")) == 1
    fill(tree, {"0/file": b"1"})
    migrate(store, tree)
    assert "long" in resolve_model(store, "churn", "champion").tags


@pytest.mark.parametrize("how", ["left out", "a pipe"])
@pytest.mark.parametrize("what", ["aliases/champion", "version-2/meta.yaml"])
def test_what_is_not_seen_of_a_registry_for_a_while_is_not_taken_away(
    how: str, what: str, store: Store, tmp_path: Path
) -> None:
    tree = small_registry(tmp_path / "tree")
    first = migrate(store, tree)
    path = tree / "models" / "churn" / what
    text = path.read_bytes()
    if how == "a pipe":
        path.unlink()
        os.mkfifo(path)
        report = migrate(store, tree)
        path.unlink()
        path.write_bytes(text)
    else:
        report = migrate(store, tree, exclude=[f"models/churn/{what}"])
    assert "not all of it is there" in dict(report.not_registered)["churn"]
    assert events(store, "churn", "champion") == [numbers(first)[2]]
    again = migrate(store, tree)
    assert (again.registered, again.not_registered) == (first.registered, ())
    assert events(store, "churn", "champion") == [numbers(first)[2]]


def test_a_copy_of_a_registry_does_not_stand_in_for_one_that_is_not_readable(
    store: Store, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        small_registry(tmp_path / "tree" / name)
    fill(tmp_path / "tree", {"b/models/churn/aliases/champion": b"1"})
    fill(tmp_path / "tree", {"a/models/churn/meta.yaml": b"name: churn\nlast_updated_timestamp: 2\n"})
    here = numbers(migrate(store, tmp_path / "tree"))
    meta = tmp_path / "tree/a/models/churn/meta.yaml"
    text = meta.read_bytes()
    for body in (b"", text):
        meta.write_bytes(body)
        migrate(store, tmp_path / "tree")
        assert events(store, "churn", "champion") == [here[2]]
