"""Retention: which runs are kept is a matter of policies, dates and use, and every reason is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from mltrack_tasks.collecting.retaining import apply_retention
from mltrack_tasks.collecting.retention import Decision, RetentionPolicy, decide
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.records import RunManifest
from mltrack_tasks.registry import promote_model, register_model, remove_alias
from mltrack_tasks.runs import list_runs, store_run
from mltrack_tasks.stores.base import Store
from tests.floor3.migrationtrees import quiet

NOW = datetime(2024, 6, 30, 12, tzinfo=UTC)


def run(run_id: str, days: float, **fields: object) -> RunManifest:
    return RunManifest(run_id, started_at=NOW - timedelta(days=days), **fields)  # type: ignore[arg-type]


def kept(decisions: list[Decision]) -> list[str]:
    assert all(each.reason for each in decisions)
    return [each.run_id for each in decisions if each.keep]


DAILY = [run(f"{days:02d}", days) for days in range(20)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RetentionPolicy(keep_last=3), ["00", "01", "02"]),
        (RetentionPolicy(keep_days=2), ["00", "01", "02"]),
        (RetentionPolicy(keep_daily=2), ["00", "01"]),
        (RetentionPolicy(keep_weekly=3), ["00", "07", "14"]),  # NOW is a Sunday
        (RetentionPolicy(keep_last=1, keep_weekly=2), ["00", "07"]),
    ],
)
def test_the_rules(policy: RetentionPolicy, expected: list[str]) -> None:
    assert kept(decide(DAILY, [policy], NOW)) == expected


def test_several_runs_of_one_day_and_several_projects() -> None:
    runs = [run(f"{project}{hour}", hour / 24, project=project) for project in "ab" for hour in (1, 2, 30)]
    assert kept(decide(runs, [RetentionPolicy(keep_daily=2)], NOW)) == ["a1", "a30", "b1", "b30"]
    assert kept(decide(runs, [RetentionPolicy(keep_last=1)], NOW)) == ["a1", "b1"]


def test_the_first_policy_that_is_about_a_run_decides() -> None:
    runs = [
        run("p", 50, project="p"),
        run("dev", 50, run_type="development"),
        run("nightly", 50, tags={"kind": "nightly"}),
        run("other", 50),
    ]
    policies = [
        RetentionPolicy(projects=("p",), keep_days=100),
        RetentionPolicy(tags={"kind": "nightly"}, keep_days=1),
        RetentionPolicy(run_types=("development",), keep_days=1),
        RetentionPolicy(projects=("p",), keep_days=1),
    ]
    found = decide(runs, policies, NOW)
    assert kept(found) == ["p", "other"]
    assert [each.reason for each in found] == [
        "is not older than 100 days",
        "policy 3 does not keep it",
        "policy 2 does not keep it",
        "no policy is about it",
    ]


def test_what_is_always_kept() -> None:
    runs = [
        run("used", 50),
        run("running", 50, status="running"),
        run("tagged", 50, tags={"mltrack.keep": True}),
        run("untagged", 50, tags={"mltrack.keep": False}),
    ]
    assert kept(decide(runs, [RetentionPolicy(keep_days=1)], NOW, {"used"})) == ["used", "running", "tagged"]


def test_policies_that_cannot_be_meant() -> None:
    nobody: dict[str, object] = {"projects": (), "keep_last": 1}
    for wrong in ({}, {"keep_last": -1}, {"keep_last": 1, "keep_lst": 2}, {"projects": ("p",)}, nobody):
        with pytest.raises(ValidationError):
            RetentionPolicy(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="no policy"):
        decide([], [], NOW)
    for policies in (RetentionPolicy(keep_last=1), [{"keep_last": 1}], "keep_last=1"):
        with pytest.raises(InvalidInputError, match="give"):
            decide([], policies, NOW)  # type: ignore[arg-type]


def test_nothing_is_decided_without_policies_in_an_empty_place_either(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="no policy"):
        apply_retention(store, [], observe=quiet)
    assert apply_retention(store, [RetentionPolicy(keep_last=1)], observe=quiet).decisions == ()
    assert not list(store.list(""))


def test_a_tag_is_there_and_of_this_type_or_the_policy_is_not_about_the_run() -> None:
    runs = [
        run("untagged", 5),
        run("none", 5, tags={"t": None}),
        run("one", 5, tags={"t": 1.0}),
        run("true", 5, tags={"t": True}),
    ]
    assert kept(decide(runs, [RetentionPolicy(tags={"t": None}, keep_days=1)], NOW)) == [
        "untagged",
        "one",
        "true",
    ]
    assert kept(decide(runs, [RetentionPolicy(tags={"t": 1}, keep_days=1)], NOW)) == [
        "untagged",
        "none",
        "true",
    ]


def test_what_begins_in_the_future_is_kept_by_no_days() -> None:
    runs = [run("tomorrow", -1), run("later", -2), run("now", 0)]
    assert kept(decide(runs, [RetentionPolicy(keep_last=1)], NOW)) == ["later"]


def test_a_run_of_no_time_is_kept_and_stops_nothing() -> None:
    """Its provenance was forged, or written by something else: nobody can say how old it is."""
    odd = RunManifest("odd", provenance={})
    found = decide([odd, run("old", 9), run("new", 0)], [RetentionPolicy(keep_days=1)], NOW)
    assert kept(found) == ["odd", "new"]
    assert found[0].reason == "its record does not tell when it was"


def test_retention_in_a_store(store: Store) -> None:
    for number in range(4):
        store_run(
            store,
            f"r{number}",
            outputs={"m": b"model %d" % number},
            storage_mode="flat",
            started_at=datetime(2020, 1, 1 + number, tzinfo=UTC),
            observe=quiet,
        )
    version = register_model(store, "r0", "churn", "m", observe=quiet)
    promote_model(store, "churn", version.version, observe=quiet)
    remove_alias(store, "churn", "production", observe=quiet)  # it may come back
    policies = [RetentionPolicy(keep_last=1)]
    looked = apply_retention(store, policies, observe=quiet)
    assert (looked.dry_run, set(looked.doomed), looked.removed) == (True, {"r1", "r2"}, ())
    assert len(list_runs(store)) == 4
    done = apply_retention(store, policies, dry_run=False, observe=quiet)
    assert set(done.removed) == {"r1", "r2"}
    assert {each.run_id for each in list_runs(store)} == {"r0", "r3"}
    assert apply_retention(store, policies, dry_run=False, observe=quiet).removed == ()
