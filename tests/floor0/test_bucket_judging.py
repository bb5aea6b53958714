"""Which lifecycle rules a store survives."""

from __future__ import annotations

from typing import Any

import pytest

from mltrack_tasks.bucket.judging import judge

DAYS: dict[str, Any] = {"Expiration": {"Days": 30}}
GLACIER: dict[str, Any] = {"Transitions": [{"Days": 90, "StorageClass": "GLACIER"}]}


def rule(prefix: str | None = None, **actions: Any) -> dict[str, Any]:
    chosen = {} if prefix is None else {"Filter": {"Prefix": prefix}}
    return {"ID": "r", "Status": "Enabled", **chosen, **actions}


def refusals(given: dict[str, Any], root: str = "mltrack/", **options: Any) -> list[str]:
    return [str(verdict) for verdict in judge(given, root, **options) if verdict.refused]


@pytest.mark.parametrize("prefix", [None, "", "m", "mltrack/", "mltrack/manifests/", "mltrack/data/ab"])
@pytest.mark.parametrize("actions", [DAYS, GLACIER], ids=["expiry", "archive"])
def test_what_breaks_the_store(prefix: str | None, actions: dict[str, Any]) -> None:
    (said,) = refusals(rule(prefix, **actions))
    assert "'r'" in said
    assert any(way in said for way in ("apply_retention", "INTELLIGENT_TIERING"))


@pytest.mark.parametrize("prefix", ["logs/", "mltrack2/", "mltrack.old/", "x/mltrack/"])
def test_what_is_about_others(prefix: str) -> None:
    assert refusals(rule(prefix, **DAYS)) == []
    assert refusals(rule(prefix, **DAYS), root="") != []  # a store without prefix is the whole bucket


@pytest.mark.parametrize(
    "given",
    [
        {**rule(None, **DAYS), "Status": "Disabled"},
        rule("mltrack/", Expiration={"ExpiredObjectDeleteMarker": True}),
        rule("mltrack/", NoncurrentVersionExpiration={"NoncurrentDays": 30}),
        rule("mltrack/", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}),
        rule("mltrack/", Transitions=[{"Days": 0, "StorageClass": "INTELLIGENT_TIERING"}]),
        rule(None, NoncurrentVersionTransitions=[{"NoncurrentDays": 30, "StorageClass": "STANDARD_IA"}]),
    ],
)
def test_what_is_safe(given: dict[str, Any]) -> None:
    assert refusals(given) == []


def test_tags_and_sizes_do_not_make_it_safe() -> None:
    both = {"And": {"Prefix": "mltrack/data/", "Tags": [{"Key": "temporary", "Value": "true"}]}}
    assert refusals({**rule(), "Filter": both, **DAYS})
    assert refusals({**rule(), "Filter": {"Tag": {"Key": "a", "Value": "b"}}, **DAYS})
    assert refusals({**rule(), "Prefix": "mltrack/", **DAYS})  # the first form


def test_archives_that_were_accepted() -> None:
    assert refusals(rule("mltrack/data/", **GLACIER), accept_archived=True) == []
    assert refusals(rule("mltrack/", **GLACIER), accept_archived=True)  # records never


@pytest.mark.parametrize(
    ("actions", "warning"),
    [
        ({"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}, "1 days only"),
        ({"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}, "slow line"),
        ({"Transitions": [{"Days": 30, "StorageClass": "ONEZONE_IA"}]}, "one zone"),
        ({"Transitions": [{"Days": 30, "StorageClass": "STANDARD_IA"}]}, "30 days are billed"),
        ({"Transitions": [{"Days": 30, "StorageClass": "GLACIER_IR"}]}, "90 days are billed"),
        (
            {"NoncurrentVersionTransitions": [{"NoncurrentDays": 1, "StorageClass": "GLACIER"}]},
            "wait for a restore",
        ),
    ],
)
def test_what_only_costs(actions: dict[str, Any], warning: str) -> None:
    found = list(judge(rule("mltrack/data/", **actions), "mltrack/"))
    assert not any(verdict.refused for verdict in found)
    assert any(warning in str(verdict) for verdict in found)
