"""What if: other storage classes and lifecycle rules, against figures worked out by hand."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.pricing.bills import GB, Count
from mltrack_tasks.pricing.lifecycle import parse_rules
from mltrack_tasks.pricing.prices import CLASSES, load_prices
from mltrack_tasks.pricing.tally import (
    BLOBS,
    CURRENT,
    DESCRIPTIONS,
    MARKER,
    OLDER,
    UPLOAD,
    Slot,
    Tally,
    monthly_cost,
)
from mltrack_tasks.pricing.whatif import of_class, of_left_alone, of_rules

PRICES = load_prices()
GUIDE = {
    "Rules": [
        {
            "Id": "Archive old experiments",
            "Status": "Enabled",
            "Transitions": [{"Days": 90, "StorageClass": "GLACIER"}],
            "NoncurrentVersionTransitions": [{"NoncurrentDays": 30, "StorageClass": "STANDARD_IA"}],
        }
    ]
}
"""The policy of the user's guide, as it stands there."""


def store() -> Tally:
    """1,000 blobs of 1 GB a hundred days old, as many new ones, small ones, records, an older version."""
    tally = Tally()
    tally.merge(Slot(BLOBS, CURRENT, "STANDARD", 100), Count(1_000, 1_000 * GB))
    tally.merge(Slot(BLOBS, CURRENT, "STANDARD", 5), Count(1_000, 1_000 * GB))
    tally.merge(Slot(BLOBS, CURRENT, "STANDARD", 400), Count(5_000, 5_000 * 1024, 5_000, 5_000 * 1024))
    tally.merge(Slot(BLOBS, OLDER, "STANDARD", 50), Count(100, 100 * GB))
    tally.merge(Slot(BLOBS, UPLOAD, "STANDARD", 9), Count(1, GB))
    tally.merge(Slot(BLOBS, MARKER, "STANDARD", 50), Count(1, 0, 1, 0))
    tally.merge(Slot("manifests", CURRENT, "STANDARD", 500), Count(10, 10 * GB))
    return tally


def near(found: Decimal, expected: str | Decimal) -> bool:
    return abs(found - Decimal(expected)) < Decimal("1e-9")


def test_blobs_in_another_class() -> None:
    found = of_class(store(), PRICES, "GLACIER_IR")
    assert (found.moved.objects, found.moved.size_bytes, found.removed.objects) == (2_000, 2_000 * GB, 0)
    assert near(found.saved, 2_000 * (Decimal("0.023") - Decimal("0.004")))
    assert near(found.monthly, monthly_cost(store(), PRICES) - found.saved)
    assert near(found.once, "0.04")  # 2,000 transitions at 0.02 a thousand
    assert near(found.reading, "60.02")  # 2,000 GB at 0.03, 2,000 GETs at 0.01 a thousand
    assert found.archived == 0
    assert found.months is not None
    assert near(found.months, found.once / found.saved)


def test_an_archive_must_be_restored() -> None:
    found = of_class(store(), PRICES, "DEEP_ARCHIVE")
    assert found.archived == 2_000
    assert near(found.once, "0.1")
    assert near(found.reading, "40.2008")  # 2,000 GB at 0.02, 2,000 x (0.1 + 0.0004) a thousand


def test_what_costs_more_never_pays() -> None:
    tally = Tally()
    tally.merge(Slot(BLOBS, CURRENT, "GLACIER", 1), Count(1, GB))
    found = of_class(tally, PRICES, "STANDARD")
    assert found.saved < 0
    assert found.months is None


def test_intelligent_tiering_between_read_often_and_left_alone() -> None:
    """Watching 2,000 objects costs 0.005; left alone, 1,000 GB are at 0.004 after 90 days."""
    often, alone = of_class(store(), PRICES, "INTELLIGENT_TIERING"), of_left_alone(store(), PRICES)
    assert near(often.saved, "-0.005")
    assert near(alone.saved, 1_000 * (Decimal("0.023") - Decimal("0.004")) - Decimal("0.005"))
    assert near(alone.monthly + alone.saved, often.monthly + often.saved)


def test_the_policy_of_the_guide() -> None:
    """Blobs and manifests older than 90 days cannot be read any more; small ones stay."""
    found = of_rules(store(), PRICES, parse_rules(GUIDE), "mltrack/")
    assert found.name == "lifecycle rules: Archive old experiments"
    assert (found.moved.objects, found.archived) == (1_110, 1_010)
    moved = Decimal(1_010)
    overhead = moved * (Decimal(32) / 1024**2 * Decimal("0.0036") + Decimal(8) / 1024**2 * Decimal("0.023"))
    expected = moved * (Decimal("0.023") - Decimal("0.0036")) - overhead + 100 * Decimal("0.0105")
    assert near(found.saved, expected)
    assert near(found.once, Decimal("1010") * Decimal("0.00003") + 100 * Decimal("0.00001"))


def test_rules_for_folders_and_for_what_is_left_behind() -> None:
    rules = [
        {
            "ID": "blobs",
            "Status": "Enabled",
            "Filter": {"Prefix": "mltrack/data/"},
            "Transitions": [{"Days": 30, "StorageClass": "GLACIER_IR"}],
            "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {"ID": "off", "Status": "Disabled", "Filter": {}, "Expiration": {"Days": 1}},
        {"ID": "elsewhere", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 1}},
    ]
    found = of_rules(store(), PRICES, parse_rules(rules), "mltrack/")
    assert (found.moved.objects, found.archived) == (1_000, 0)
    assert (found.removed.objects, found.removed.size_bytes) == (101, 101 * GB)
    assert near(found.saved, 1_000 * Decimal("0.019") + 101 * Decimal("0.023"))


def test_objects_move_downward_only() -> None:
    tally = Tally()
    tally.merge(Slot(BLOBS, CURRENT, "DEEP_ARCHIVE", 500), Count(1, GB))
    rules = parse_rules(
        [{"Status": "Enabled", "Filter": {}, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}]
    )
    assert of_rules(tally, PRICES, rules, "").moved.objects == 0


def test_a_rule_for_a_part_of_a_folder_has_no_answer() -> None:
    rule = {
        "ID": "a",
        "Status": "Enabled",
        "Filter": {"Prefix": "mltrack/data/ab/"},
        "Expiration": {"Days": 1},
    }
    with pytest.raises(InvalidInputError, match="a part of mltrack/data/"):
        of_rules(store(), PRICES, parse_rules([rule]), "mltrack/")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("text", "a list of rules"),
        ({"rules": []}, "a list of rules"),
        ([3], "rule 1 is 3"),
        ([{"ID": "x", "Status": "On"}], "rule x has the Status 'On'"),
        ([{"ID": "x", "Status": "Enabled", "Tiering": 1}], "has Tiering"),
        ([{"Status": "Enabled", "Filter": {"Tag": {"Key": "a", "Value": "b"}}}], "Filter .*has Tag"),
        ([{"Status": "Enabled", "Filter": {"ObjectSizeGreaterThan": 5}}], "131,072 bytes only"),
        ([{"Status": "Enabled", "Filter": 3}], "not a filter"),
        ([{"Status": "Enabled", "Filter": {"Prefix": 3}}], "not a text"),
        (
            [{"Status": "Enabled", "Transitions": [{"Days": 1, "StorageClass": "WARM"}]}],
            "no class to move to",
        ),
        ([{"Status": "Enabled", "Transitions": {"Days": 1}}], "not a list"),
        ([{"Status": "Enabled", "Transitions": [{"Date": "2024-01-01"}]}], "has Date"),
        ([{"Status": "Enabled", "Expiration": {"Days": "1"}}], "not a number of days"),
        ([{"Status": "Enabled", "Expiration": 1}], "Expiration is 1"),
        (
            [{"Status": "Enabled", "NoncurrentVersionExpiration": {"NewerNoncurrentVersions": 1}}],
            "has NewerNoncurrentVersions",
        ),
    ],
)
def test_rules_that_have_no_answer(document: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=re.compile(said)):
        parse_rules(document)


SLOTS = st.builds(
    Slot,
    st.sampled_from([BLOBS, DESCRIPTIONS, "runs", ""]),
    st.sampled_from([CURRENT, OLDER, UPLOAD]),
    st.sampled_from(CLASSES),
    st.integers(0, 400),
)


@given(st.lists(st.tuples(SLOTS, st.integers(0, 10**12)), max_size=20), st.sampled_from(CLASSES[1:-1]))
def test_moving_loses_nothing_and_the_sums_agree(objects: list[tuple[Slot, int]], target: str) -> None:
    tally = Tally()
    for slot, size in objects:
        tally.add(slot, size)
    found = of_class(tally, PRICES, target)
    assert near(found.monthly + found.saved, monthly_cost(tally, PRICES))
    after = tally.moved(lambda slot, small: target if slot.place == BLOBS else slot.storage_class)
    kept = [sum(count.size_bytes for count in each.slots.values()) for each in (tally, after)]
    assert kept[0] == kept[1] == sum(size for _, size in objects)
    rules = parse_rules([{"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 0}}])
    gone = of_rules(tally, PRICES, rules, "")
    assert gone.removed.objects == sum(slot.state == CURRENT for slot, _ in objects)
