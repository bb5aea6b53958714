"""The filter over runs: what is asked for is checked, and matches what the words say."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.records import RunManifest
from mltrack_tasks.runfilter import RunFilter, run_filter, run_time, same_value
from tests.floor0.run_examples import SPECIAL, filters, items, manifests

NAN = float("nan")
START = datetime(2024, 1, 15, 12, tzinfo=UTC)
RUN = RunManifest(
    run_id="r",
    run_type="production",
    project="churn",
    model="m",
    tags={"author": "team"},
    params={"depth": 10, "on": True, "name": "10", "none": None, "layers": [1, 2.0], "opt": {"lr": 1}},
    metrics={"accuracy": 0.95, "loss": NAN, "steps": 2**53 + 1, "odd": "0.95", "flag": True},
    started_at=START,
    provenance={"at": "2024-03-01T00:00:00Z"},
)


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"project": "churn", "run_type": "production", "model": "m", "status": "finished"},
        *({"since": since} for since in ("2024-01-15", "2024-01-15T12:00:00Z", START, START.date())),
        *({"until": until} for until in ("2024-01-15", "2024-01-15T12:00:00.000001Z", START.date())),
        {"since": "2024-01-15T13:00:00+01:00", "until": "2024-01-15"},
        {"until": date.max},
        {"tags": {"author": "team"}},
        *({"params": {"depth": same}} for same in (10, 10.0)),
        {"params": {"on": True, "name": "10", "none": None, "layers": [1.0, 2], "opt": {"lr": 1.0}}},
        *({"metrics": {"accuracy": wish}} for wish in (0.95, "> 0.9", ">=0.95", "< 1", "<= 9.5e-1", "!= 2")),
        *({"metrics": {"accuracy": wish}} for wish in ("== 0.95", " = .95 ", "< inf", "> -1e3", "!= nan")),
        *({"metrics": {"loss": wish}} for wish in (NAN, "== nan", "!= 0.5")),
        {"metrics": {"steps": f"> {2**53}"}},
        {"metrics": {"steps": np.int64(2**53 + 1), "accuracy": np.float64(0.95)}},
    ],
    ids=repr,
)
def test_a_run_that_is_meant(wishes: dict[str, Any]) -> None:
    assert run_filter(**wishes).matches(RUN)


@pytest.mark.parametrize(
    "wishes",
    [
        *({"project": "fraud"}, {"run_type": "experiment"}, {"model": "n"}, {"status": "failed"}),
        *({"since": since} for since in ("2024-01-16", "2024-01-15T12:00:00.000001Z")),
        *({"until": until} for until in ("2024-01-14", "2024-01-15T12:00:00Z", START)),
        {"tags": {"author": "Team"}},
        {"tags": {"absent": None}},
        *({"params": {"depth": other}} for other in ("10", 11, True, None, [10])),
        *({"params": {"on": other}} for other in (1, 1.0, "true", False)),
        *({"params": {"layers": other}} for other in ([1], [2, 1], [True, 2], {})),
        *({"params": {"opt": other}} for other in ({}, {"lr": 2}, {"lr": 1, "x": 1}, {"LR": 1})),
        *({"metrics": {"accuracy": wish}} for wish in (0.9, "> 0.95", "<0.95", "!= 0.95", "== nan", "> inf")),
        *({"metrics": {"loss": wish}} for wish in ("> 0", "< 0", ">= 0", "<= 0", "== 0", "!= nan", "< inf")),
        *({"metrics": {"absent": wish}} for wish in ("> 0", "!= 0", 0)),
        *({"metrics": {name: wish}} for name in ("odd", "flag") for wish in ("> 0", "!= 7", 0.95, 1)),
        {"metrics": {"steps": 2.0**53}},
        {"project": "churn", "metrics": {"accuracy": "> 0.99"}},
    ],
    ids=repr,
)
def test_a_run_that_is_not_meant(wishes: dict[str, Any]) -> None:
    assert not run_filter(**wishes).matches(RUN)


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        ({"project": ""}, "The project ''"),
        ({"model": "a\0"}, "The model .*control character"),
        ({"project": 7}, "The project must be a string, not int"),
        ({"run_type": "prod"}, "'prod' is unknown; choose one of experiment, production"),
        ({"status": "finishd"}, "'finishd' is unknown; choose one of running, finished"),
        ({"status": "FINISHED"}, "choose one of running, finished"),
        ({"since": "yesterday"}, "since is 'yesterday', not a time; write \"2024-01-15\""),
        ({"until": "2024-02-30"}, "until is '2024-02-30', not a time"),
        ({"until": datetime(2024, 1, 1)}, r"until: .*not a datetime with a timezone"),
        ({"since": "2024-01-15T12:00"}, "since: .*not a datetime with a timezone"),
        ({"since": pd.NaT}, "since: NaT"),
        ({"since": 2024}, "since is 2024; give a date"),
        ({"until": datetime.max.replace(tzinfo=timezone(timedelta(hours=-9)))}, "outside the years"),
        (
            {"since": "2024-01-16", "until": "2024-01-15"},
            "since='2024-01-16' is not before until='2024-01-15'",
        ),
        ({"since": START, "until": START}, "no run can match"),
        ({"tags": "author"}, "tags is str, not a mapping"),
        ({"params": {1: 2}}, "params has the key 1"),
        ({"params": {"a": (1, 2)}}, r"params\['a'\] is a tuple.*use a list"),
        ({"params": {"a": np.int64(1)}}, r"params\['a'\] is a numpy.int64.*\.item"),
        ({"metrics": ["a"]}, "metrics is list, not a mapping"),
        ({"metrics": {1: 2}}, "metrics has the key 1"),
        ({"metrics": {"a": "0.9"}}, r"metrics\['a'\] is '0.9'; give a number, or a comparison"),
        ({"metrics": {"a": "=> 0.9"}}, "give a number, or a comparison"),
        ({"metrics": {"a": "> 0,9"}}, "give a number, or a comparison"),
        ({"metrics": {"a": "> 1_0"}}, "give a number, or a comparison"),
        ({"metrics": {"a": "> ٣"}}, "give a number, or a comparison"),
        ({"metrics": {"a": True}}, "give a number, or a comparison"),
        ({"metrics": {"a": None}}, "give a number, or a comparison"),
        ({"metrics": {"a": [1]}}, "give a number, or a comparison"),
        ({"metrics": {"a": "> nan"}}, "NaN has no order"),
        ({"metrics": {"a": "> 1e999"}}, "beyond a float's range"),
        ({"metrics": {"a": "> " + "1" * 5_000}}, "a number of 5000 digits"),
    ],
    ids=repr,
)
def test_what_cannot_be_meant_is_told(wishes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        run_filter(**wishes)


def test_a_run_without_start_counts_from_when_it_was_stored() -> None:
    stored = replace(RUN, started_at=None)
    assert run_filter(since="2024-03-01", until="2024-03-01").matches(stored)
    assert not run_filter(since="2024-01-15", until="2024-01-15").matches(stored)


@pytest.mark.parametrize("provenance", [{}, {"at": None}, {"at": "yesterday"}, {"at": 5}])
def test_a_run_whose_time_is_unreadable_is_in_no_range(provenance: dict[str, Any]) -> None:
    timeless = replace(RUN, started_at=None, provenance=provenance)
    assert run_time(timeless) is None
    assert run_filter(project="churn").matches(timeless)
    assert not run_filter(since="0001-01-01").matches(timeless)
    assert not run_filter(until="9999-12-30").matches(timeless)


def test_a_filter_is_a_value() -> None:
    made = run_filter(project="churn", since="2024-01-15", metrics={"accuracy": "> 0.9"})
    assert made == run_filter(project="churn", since=date(2024, 1, 15), metrics={"accuracy": ">0.9"})
    assert pickle.loads(pickle.dumps(made)) == made
    assert run_filter() == RunFilter()


@given(filters, filters, manifests)
def test_each_field_only_narrows(one: RunFilter, other: RunFilter, manifest: RunManifest) -> None:
    both = replace(one, conditions=(*one.conditions, *other.conditions))
    expected = one.matches(manifest) and RunFilter(conditions=other.conditions).matches(manifest)
    assert both.matches(manifest) == expected


@given(manifests)
def test_a_run_has_the_values_that_it_has(manifest: RunManifest) -> None:
    numbers = {name: value for name, value in manifest.metrics.items() if type(value) in (int, float)}
    wishes = {"params": manifest.params, "tags": manifest.tags, "metrics": numbers}
    assert run_filter(**wishes, project=manifest.project, run_type=manifest.run_type).matches(manifest)


@given(items, items | st.sampled_from(SPECIAL))
def test_sameness_is_symmetric_and_reflexive(one: Any, other: Any) -> None:
    assert same_value(one, one)
    assert same_value(one, other) == same_value(other, one)


@given(manifests, st.sampled_from(["a", "accuracy"]), st.integers() | st.floats(allow_nan=False))
def test_a_number_is_below_equal_or_above(manifest: RunManifest, name: str, bound: float) -> None:
    def admits(sign: str) -> bool:
        return run_filter(metrics={name: f"{sign} {bound!r}"}).matches(manifest)

    found = manifest.metrics.get(name)
    ordered = type(found) in (int, float) and found == found
    assert [admits("<"), admits("=="), admits(">")].count(True) == ordered
    assert admits("<=") == (admits("<") or admits("=="))
    assert admits(">=") == (admits(">") or admits("=="))
    assert admits("!=") == (type(found) in (int, float) and not admits("=="))
