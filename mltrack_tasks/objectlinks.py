"""Where a person finds an object of the store: its address, and the page of AWS's console that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, urlencode

from mltrack_tasks.artifacts import plain
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.identity import s3_of

CONSOLE = "https://console.aws.amazon.com/s3"
_SHOWN = 20
"""Links that a report shows."""


def address_of(store: Store, key: str) -> str:
    """``s3://bucket/prefix/key``, or the path in a directory."""
    return f"{store.location.rstrip('/')}/{key}"


def console_url(store: Store, key: str) -> str | None:
    """The page of AWS's console for a key, or for a folder if it ends in ``/``; None for other servers."""
    found = s3_of(store)
    if found is None or found.settings.endpoint_url:
        return None
    settings = found.settings
    where = address_of(store, key).removeprefix(f"s3://{settings.bucket}/")
    kind = "buckets" if key.endswith("/") else "object"
    asked = {**({"region": settings.region} if settings.region else {}), "prefix": where}
    return f"{CONSOLE}/{kind}/{quote(settings.bucket)}?{urlencode(asked)}"


def links(store: Store, keys: Iterable[str], title: str = "Objects") -> str:
    """Markdown that lists objects, each with a link where there is a console; empty without keys."""
    named = list(keys)
    if not named:
        return ""
    lines = ["", f"## {title}", "", *(_line(store, key) for key in named[:_SHOWN])]
    if len(named) > _SHOWN:
        lines.append(f"- and {len(named) - _SHOWN:,} more")
    return "\n".join([*lines, ""])


def _line(store: Store, key: str) -> str:
    url, address = console_url(store, key), plain(address_of(store, key))
    return f"- {address}" if url is None else f"- [{address}]({url})"
