"""The price file: what S3 asks for, by region and storage class, with a date and its sources."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from mltrack_tasks.errors import InvalidInputError

ENVIRONMENT = "MLTRACK_PRICES"
"""Variable that names a price file of the user's own."""
REGION = "us-east-1"
"""Region whose prices are taken where none is known."""
CLASSES = (
    *("STANDARD", "INTELLIGENT_TIERING", "STANDARD_IA", "ONEZONE_IA", "GLACIER_IR", "GLACIER"),
    *("DEEP_ARCHIVE", "REDUCED_REDUNDANCY"),
)
TIERS = ("Expedited", "Standard", "Bulk")
"""Tiers of RestoreObject, fastest first."""

_SHIPPED = Path(__file__).with_name("prices.toml")
_LIMIT = 1024 * 1024
"""[bytes] of a price file; ours has 6,000."""
_STEPS = 3
_FIGURES = ("put", "get", "transition", "retrieval", "monitoring")
_NOTHING = Decimal(0)


@dataclass(frozen=True)
class RestorePrice:
    """What one tier of restoring asks: [dollars] for a GB, and for 1,000 objects."""

    gb: Decimal
    requests: Decimal


@dataclass(frozen=True)
class ClassPrices:
    """What one storage class asks in one region [dollars]; the price file says for how much."""

    storage: tuple[Decimal, ...]
    """A GB for a month: one price, or three: to 50 TB, to 500 TB, above."""
    put: Decimal
    get: Decimal
    transition: Decimal = _NOTHING
    retrieval: Decimal = _NOTHING
    monitoring: Decimal = _NOTHING
    restore: Mapping[str, RestorePrice] = field(default_factory=dict)
    """By tier; empty where nothing has to be restored."""


@dataclass(frozen=True)
class Prices:
    """What S3 asks in one region, as of a day."""

    region: str
    as_of: date
    classes: Mapping[str, ClassPrices]

    def of(self, storage_class: str) -> ClassPrices:
        """Give the prices of a class; InvalidInputError names the classes if it is none."""
        if storage_class not in self.classes:
            known = ", ".join(self.classes)
            raise InvalidInputError(f"{storage_class!r:.80} is no storage class with a price: {known}.")
        return self.classes[storage_class]


def load_prices(region: str = REGION, *, path: str | Path | None = None) -> Prices:
    """Read the prices of a region: those of this package, and over them those of a file of one's own.

    ``path``, or else the environment variable MLTRACK_PRICES, names that file: TOML of the same form, with at
    least its own ``as_of`` and whatever differs. Raises InvalidInputError for a region without prices (name
    them in such a file), and for a file that has not that form.
    """
    own = path or os.environ.get(ENVIRONMENT) or None
    stamp = None if own is None else _stamp(Path(own))
    found = _read_all(None if own is None else str(own), stamp)
    if region not in found:
        raise InvalidInputError(
            f"There are no prices of the region {region!r:.80}, only of {', '.join(found)}. Give one of "
            f"them, or a price file with [regions.{region:.80}] in {ENVIRONMENT}."
        )
    return found[region]


@lru_cache(maxsize=8)
def _read_all(own: str | None, stamp: tuple[int, int] | None) -> dict[str, Prices]:
    """Read the files; ``stamp`` is the state of the user's one, so that a change is seen."""
    raw = _parse(_SHIPPED)
    what = str(_SHIPPED)
    if own is not None:
        mine, what = _parse(Path(own)), own
        if "as_of" not in mine:
            raise InvalidInputError(
                f"The price file {own} lacks as_of: the day of its prices, as_of = 2026-01-31."
            )
        raw = _merged(raw, mine)
    as_of = raw["as_of"]
    if type(as_of) is not date:
        raise InvalidInputError(
            f"The price file {what} has the as_of {as_of!r:.80}; write a day, 2026-01-31."
        )
    shared = _table(raw.get("every-region", {}), "every-region", what)
    regions = _table(raw.get("regions", {}), "regions", what)
    return {
        name: Prices(name, as_of, _classes(_merged(shared, _table(region, name, what)), name, what))
        for name, region in regions.items()
    }


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidInputError(f"The price file {path} cannot be read: {error.strerror}.") from error
    return found.st_mtime_ns, found.st_size


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            body = file.read(_LIMIT + 1)
        if len(body) > _LIMIT:
            raise InvalidInputError(f"The price file {path} has over {_LIMIT:,} bytes; it is none.")
        return tomllib.loads(body.decode(), parse_float=Decimal)
    except OSError as error:
        raise InvalidInputError(f"The price file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"The price file {path} is no TOML: {error!s:.200}") from error


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another, tables within tables likewise."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _table(value: Any, name: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{name} in the price file {what} is {value!r:.80}, not a table.")
    return value


def _classes(raw: Mapping[str, Any], region: str, what: str) -> dict[str, ClassPrices]:
    if unknown := sorted(set(raw) - set(CLASSES)):
        raise InvalidInputError(
            f"{region} in the price file {what} has {', '.join(unknown):.200}; storage classes are "
            f"{', '.join(CLASSES)}."
        )
    if "STANDARD" not in raw:
        raise InvalidInputError(f"{region} in the price file {what} lacks STANDARD.")
    return {
        name: _class(raw[name], f"{region}.{name} in the price file {what}")
        for name in CLASSES
        if "storage" in _table(raw.get(name, {}), name, what)
    }


def _class(raw: dict[str, Any], what: str) -> ClassPrices:
    if unknown := sorted(set(raw) - {"storage", "restore", *_FIGURES}):
        raise InvalidInputError(
            f"{what} has {', '.join(unknown):.200}; it takes storage, restore, {_FIGURES}."
        )
    steps = raw["storage"] if isinstance(raw["storage"], list) else [raw["storage"]]
    if len(steps) not in (1, _STEPS):
        raise InvalidInputError(f"{what}: storage is one price, or three (to 50 TB, to 500 TB, above).")
    if missing := [name for name in ("put", "get") if name not in raw]:
        raise InvalidInputError(f"{what} lacks {', '.join(missing)}.")
    return ClassPrices(
        storage=tuple(_price(step, f"{what}: storage") for step in steps),
        restore={tier: _restore(raw["restore"][tier], tier, what) for tier in _tiers(raw, what)},
        **{name: _price(raw[name], f"{what}: {name}") for name in _FIGURES if name in raw},
    )


def _tiers(raw: Mapping[str, Any], what: str) -> list[str]:
    found = _table(raw.get("restore", {}), "restore", what)
    if unknown := sorted(set(found) - set(TIERS)):
        raise InvalidInputError(
            f"{what}: restore has {', '.join(unknown):.200}; tiers are {', '.join(TIERS)}."
        )
    return [tier for tier in TIERS if tier in found]


def _restore(raw: Any, tier: str, what: str) -> RestorePrice:
    found = _table(raw, tier, what)
    if set(found) != {"gb", "requests"}:
        raise InvalidInputError(f"{what}: restore.{tier} takes gb and requests, and both.")
    return RestorePrice(*(_price(found[name], f"{what}: {tier}.{name}") for name in ("gb", "requests")))


def _price(value: Any, what: str) -> Decimal:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        price = Decimal(value)
        if price.is_finite() and 0 <= price < 1_000_000:
            return price
    raise InvalidInputError(f"{what} is {value!r:.80}; a price is a number of dollars, 0 or more.")
