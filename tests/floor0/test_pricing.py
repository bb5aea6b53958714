"""Prices and bills: against figures worked out by hand, and price files of all kinds."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.pricing import prices as price_files
from mltrack_tasks.pricing.bills import (
    GB,
    Count,
    billed_bytes,
    request_cost,
    restore_cost,
    retrieval_cost,
    storage_cost,
)
from mltrack_tasks.pricing.figures import dollars
from mltrack_tasks.pricing.prices import CLASSES, load_prices
from mltrack_tasks.pricing.tally import (
    BLOBS,
    CURRENT,
    OLDER,
    UPLOAD,
    Rates,
    Slot,
    Tally,
    early_deletion,
    monthly_cost,
)

KiB, MiB = 1024, 1024**2

INVENTORY = (
    # place, state, class, days, objects, bytes each, and a month by hand (GB x price, see the comments)
    (BLOBS, CURRENT, "STANDARD", 10, 1_000, 100 * MiB, "2.24609375"),  # 97.65625 x 0.023
    (BLOBS, CURRENT, "STANDARD_IA", 10, 10_000, 10 * KiB, "0.0152587890625"),  # 10,000 x 128 KB x 0.0125
    # 1,000 GB + 1,000 x 32 KB at 0.0036, 1,000 x 8 KB at 0.023
    (BLOBS, CURRENT, "GLACIER", 30, 1_000, GB, "3.600285339355"),
    (BLOBS, CURRENT, "DEEP_ARCHIVE", 200, 500, 10 * GB, "4.950102844238"),  # likewise, at 0.00099
    (BLOBS, CURRENT, "INTELLIGENT_TIERING", 0, 2_000, 64 * MiB, "2.88"),  # 125 x 0.023, 2 x 0.0025 to watch
    (BLOBS, CURRENT, "INTELLIGENT_TIERING", 1, 1_000, KiB, "0.000021934509"),  # not watched
    (BLOBS, CURRENT, "GLACIER_IR", 5, 100, KiB, "0.000048828125"),  # 100 x 128 KB x 0.004
    (BLOBS, OLDER, "STANDARD", 40, 300, 100 * MiB, "0.673828125"),  # 29.296875 x 0.023
    (BLOBS, UPLOAD, "STANDARD", 9, 10, 80 * MiB, "0.01796875"),  # 0.78125 x 0.023
)


def tally_of(rows: tuple[tuple[str, str, str, int, int, int, str], ...]) -> Tally:
    tally = Tally()
    for place, state, storage_class, days, objects, size, _ in rows:
        small = size < 128 * KiB
        count = Count(objects, objects * size, objects if small else 0, objects * size if small else 0)
        tally.merge(Slot(place, state, storage_class, days), count)
    return tally


def near(found: Decimal, expected: str) -> bool:
    return abs(found - Decimal(expected)) < Decimal("1e-9")


@pytest.mark.parametrize(("size", "said"), [(100, "2.30"), (1_000, "23"), (10_000, "230")])
def test_the_table_of_the_guide(size: int, said: str) -> None:
    """100 GB, 1 TB, 10 TB in S3 Standard; the guide's TB has 1,000 GB, AWS bills 1,024 of them."""
    assert storage_cost(size_bytes=size * GB) == Decimal(said)
    if size > 100:
        billed = storage_cost(size_bytes=size // 1_000 * 1_024 * GB)
        assert billed == Decimal(said) * Decimal("1.024")


def test_a_synthetic_inventory_costs_what_it_does_by_hand_to_the_cent() -> None:
    prices = load_prices()
    for row in INVENTORY:
        assert near(monthly_cost(tally_of((row,)), prices), row[-1]), row
    whole = monthly_cost(tally_of(INVENTORY), prices)
    assert dollars(whole) == "$14.38"
    assert near(whole, str(sum(Decimal(row[-1]) for row in INVENTORY)))


def test_prices_go_down_in_steps() -> None:
    """60 TB: the first 50 at 0.023, the rest at 0.022; over 500 TB at 0.021."""
    assert storage_cost(size_bytes=60 * 1_024 * GB) == 51_200 * Decimal("0.023") + 10_240 * Decimal("0.022")
    assert storage_cost(size_bytes=600 * 1_024 * GB) == (
        51_200 * Decimal("0.023") + 460_800 * Decimal("0.022") + 102_400 * Decimal("0.021")
    )
    assert storage_cost(size_bytes=600_000 * GB, storage_class="GLACIER_IR") == 600_000 * Decimal("0.004")
    tally = Tally()
    tally.merge(Slot(BLOBS, CURRENT, "STANDARD", 0), Count(1, 50 * 1_024 * GB))
    tally.merge(Slot(BLOBS, OLDER, "STANDARD", 0), Count(1, 10 * 1_024 * GB))
    assert near(monthly_cost(tally, load_prices()), "1402.88")  # together, not each by itself
    rates = Rates(tally, load_prices())
    parts = [rates.monthly(count, slot.storage_class) for slot, count in tally.slots.items()]
    assert near(sum(parts, Decimal(0)), "1402.88")


def test_minima_and_overheads() -> None:
    assert billed_bytes(Count(3, 300_000, 1, 50_000), "STANDARD_IA") == (300_000 - 50_000 + 131_072, 0)
    assert billed_bytes(Count(3, 300_000, 1, 50_000), "GLACIER") == (300_000 + 3 * 32_768, 3 * 8_192)
    assert billed_bytes(Count(3, 300_000, 1, 50_000), "STANDARD") == (300_000, 0)
    tiny = storage_cost(size_bytes=10**6, storage_class="ONEZONE_IA", objects=10**3)
    assert tiny == storage_cost(size_bytes=10**3 * 131_072, storage_class="ONEZONE_IA")
    assert storage_cost(size_bytes=0, storage_class="DEEP_ARCHIVE", objects=1) > 0


def test_requests_retrieval_and_restores() -> None:
    assert request_cost(puts=1_000_000, gets=2_000_000) == Decimal("5.8")
    assert request_cost(puts=1_000, storage_class="GLACIER_IR") == Decimal("0.02")
    prices = load_prices()
    ten = Count(10, 100 * GB)
    assert retrieval_cost(ten, prices.of("STANDARD_IA")) == Decimal("1.00001")
    glacier, deep = prices.of("GLACIER"), prices.of("DEEP_ARCHIVE")
    assert restore_cost(ten, glacier, tier="Standard") == Decimal("1.0005")
    assert restore_cost(ten, glacier, tier="Expedited") == Decimal("3.1")
    assert restore_cost(ten, glacier, tier="Bulk") == 0
    assert restore_cost(ten, deep, tier="Bulk") == Decimal("0.25025")
    with pytest.raises(InvalidInputError, match=r"no tier 'Expedited'.*Standard, Bulk"):
        restore_cost(ten, deep, tier="Expedited")


def test_what_is_left_of_minimum_stays() -> None:
    """STANDARD_IA: 20 of 30 days left; GLACIER: 60 of 90; DEEP_ARCHIVE is past its 180."""
    rows = tuple(row for row in INVENTORY if row[2] in ("STANDARD", "STANDARD_IA", "GLACIER", "DEEP_ARCHIVE"))
    expected = (
        Decimal("0.0152587890625") * 20 / 30 + Decimal("0.0036") * Decimal("1000.030517578125") * 60 / 30
    )
    assert near(early_deletion(tally_of(rows), load_prices()), str(expected))


def test_every_region_has_every_class() -> None:
    for region in ("us-east-1", "eu-central-1", "eu-west-1", "ap-southeast-2", "us-west-2", "ca-central-1"):
        prices = load_prices(region)
        assert tuple(prices.classes) == CLASSES
        assert prices.as_of > date(2026, 1, 1)
        for name, each in prices.classes.items():
            assert 0 not in (*each.storage, each.put, each.get), (region, name)
    assert load_prices("eu-central-1").of("STANDARD").storage[0] == Decimal("0.0245")
    with pytest.raises(
        InvalidInputError, match=r"no prices of the region 'moon-1'.*us-east-1.*MLTRACK_PRICES"
    ):
        load_prices("moon-1")
    with pytest.raises(InvalidInputError, match=r"'WARM' is no storage class.*STANDARD_IA"):
        storage_cost(size_bytes=1, storage_class="WARM")
    with pytest.raises(InvalidInputError, match="0 or more"):
        storage_cost(size_bytes=-1)


def test_a_price_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(
        "as_of = 2027-02-01\n[regions.us-east-1]\nSTANDARD = { storage = 0.5 }\n"
        "[regions.on-premises]\nSTANDARD = { storage = 0.01, put = 0, get = 0 }\n"
    )
    dearer = load_prices(path=own)
    assert (dearer.as_of, dearer.of("STANDARD").storage) == (date(2027, 2, 1), (Decimal("0.5"),))
    assert dearer.of("STANDARD").put == Decimal("0.005")  # what the file leaves out stays
    monkeypatch.setenv(price_files.ENVIRONMENT, str(own))
    assert storage_cost(size_bytes=GB, region="on-premises") == Decimal("0.01")
    own.write_text("as_of = 2027-02-01\n[regions.us-east-1]\nSTANDARD = { storage = 0.25 }\n")
    assert storage_cost(size_bytes=GB) == Decimal("0.25")  # read again
    monkeypatch.delenv(price_files.ENVIRONMENT)
    assert storage_cost(size_bytes=GB) == Decimal("0.023")


HEAD = "as_of = 2027-02-01\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("as_of = [", "no TOML"),
        ("[regions]", "lacks as_of"),
        ("as_of = 3", "as_of 3; write a day"),
        (HEAD + "regions = 3", "regions in .* is 3, not a table"),
        (HEAD + "[regions]\nus-east-1 = 3", "us-east-1 in .* is 3"),
        (HEAD + "[regions.us-east-1]\nWARM = { storage = 1 }", "has WARM; storage classes are"),
        (HEAD + "[regions.us-east-1]\nSTANDARD = 3", "STANDARD in .* is 3"),
        (HEAD + "[regions.us-east-1]\nSTANDARD = { storage = [1, 2] }", "one price, or three"),
        (HEAD + "[regions.us-east-1]\nSTANDARD = { storage = -1 }", "is -1; a price"),
        (HEAD + "[regions.us-east-1]\nSTANDARD = { storage = nan }", "a price is a number"),
        (HEAD + '[regions.us-east-1]\nSTANDARD = { storage = "0.02" }', "a price is a number"),
        (HEAD + "[regions.us-east-1]\nSTANDARD = { storage = true }", "a price is a number"),
        (HEAD + "[regions.us-east-1]\nSTANDARD = { egress = 1 }", "has egress"),
        (HEAD + "[regions.new]\nSTANDARD = { storage = 1 }", "lacks put, get"),
        (HEAD + "[regions.new]\nGLACIER = { storage = 1, put = 1, get = 1 }", "lacks STANDARD"),
        (HEAD + "[regions.us-east-1]\nGLACIER = { restore = 1 }", "restore in .* is 1"),
        (HEAD + "[regions.us-east-1]\nGLACIER = { restore = { Soon = {} } }", "restore has Soon"),
        (HEAD + "[regions.us-east-1]\nDEEP_ARCHIVE = { restore = { Expedited = { gb = 1 } } }", "both"),
        ("x = " + "[" * 100_000, "no TOML"),
        ("#" * (1024 * 1024 + 1), "over 1,048,576 bytes"),
    ],
)
def test_a_price_file_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        load_prices(path=own)


def test_a_price_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_prices(path=tmp_path / "none.toml")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_prices(path=tmp_path)


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0", "$0.00"),
        ("1234.567", "$1,234.57"),
        ("0.005", "$0.0050"),
        ("0.000001", "under $0.0001"),
        ("-0.000001", "over -$0.0001"),
        ("-2.5", "-$2.50"),
    ],
)
def test_money_is_written_to_the_cent(amount: str, said: str) -> None:
    assert dollars(Decimal(amount)) == said
