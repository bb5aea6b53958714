"""Time zones <-> JSON. The kind of zone is kept: two dtypes with different zone objects differ."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import UTC, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from mltrack_tasks.codecs.column import refuse
from mltrack_tasks.codecs.spec import Spec, get
from mltrack_tasks.errors import FormatError

_MICROSECOND = timedelta(microseconds=1)
_MINUTE = timedelta(minutes=1)


def pack_zone(zone: Any, where: str) -> Spec:
    """Pack a tzinfo -> JSON: utc, zoneinfo, fixed or pytz.

    Raises InvalidInputError for other kinds.
    """
    if zone is UTC:
        return {"kind": "utc"}
    if type(zone) is ZoneInfo and zone.key:
        return {"kind": "zoneinfo", "key": zone.key}
    if type(zone) is timezone:
        return _pack_fixed(zone)
    if type(zone).__module__.partition(".")[0] == "pytz":
        return _pack_pytz(zone, where)
    hint = "use tz_convert with a zone name or a datetime.timezone"
    raise refuse(where, f"the time zone {zone!r} has no portable name; {hint}")


def unpack_zone(spec: Any) -> Any:
    """Unpack a zone. Raises FormatError when this machine does not know it."""
    kind = get(spec, "kind", str)
    if kind == "utc":
        return UTC
    if kind == "zoneinfo":
        return _known_zone(ZoneInfo, get(spec, "key", str))
    if kind == "fixed":
        offset = get(spec, "microseconds", int) * _MICROSECOND
        return timezone(offset, spec["name"]) if "name" in spec else timezone(offset)
    if kind == "pytz":
        return _known_zone(_pytz().timezone, get(spec, "key", str))
    if kind == "pytz-fixed":
        return _pytz().FixedOffset(get(spec, "minutes", int))
    raise ValueError(f"{kind!r} is not a kind of time zone")


def arrow_zone(zone: Any) -> str:
    """Name the zone for Arrow and SQL: its key or +hh:mm; UTC where Arrow has no name for it."""
    key = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(key, str):
        return key
    offset = zone.utcoffset(None)
    minutes, rest = divmod(abs(offset), _MINUTE)
    if rest or not minutes:
        return "UTC"
    return f"{'-' if offset < timedelta(0) else '+'}{minutes // 60:02}:{minutes % 60:02}"


def _pack_fixed(zone: timezone) -> Spec:
    offset = zone.utcoffset(None)
    spec: Spec = {"kind": "fixed", "microseconds": offset // _MICROSECOND}
    if zone.tzname(None) != timezone(offset).tzname(None):
        spec["name"] = zone.tzname(None)
    return spec


def _pack_pytz(zone: Any, where: str) -> Spec:
    if zone.zone is not None:
        return {"kind": "pytz", "key": str(zone.zone)}
    offset = zone.utcoffset(None)
    if offset is None:
        raise refuse(where, f"the time zone {zone!r} has no name")
    return {"kind": "pytz-fixed", "minutes": offset // _MINUTE}


def _known_zone(make: Callable[[str], Any], key: str) -> Any:
    try:
        return make(key)
    except KeyError as error:  # what both ZoneInfo and pytz raise for a name that they do not have
        raise FormatError(
            f"The time zone {key!r} is not known on this machine: install or upgrade tzdata (or pytz)."
        ) from error


def _pytz() -> Any:
    try:
        return importlib.import_module("pytz")
    except ImportError as error:
        raise FormatError("The frame has time zones of the package pytz: install pytz to read it.") from error
