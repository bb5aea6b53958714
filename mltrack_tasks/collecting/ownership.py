"""Whose a store is: what a replica holds is its source's to give up."""

from __future__ import annotations

from typing import Any

from mltrack_tasks import canonical, layout
from mltrack_tasks.errors import ConflictError, NotFoundError
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import REPLICA_ENDED


def store_id_of(store: Store) -> str | None:
    """Identity of a store, or None if nothing was ever written to it."""
    raw = _format_of(store)
    return None if raw is None else str(raw.get("store_id"))


def require_own(store: Store) -> None:
    """Raise ConflictError if ``format.json`` says that this store is a replica of another, as it still is.

    The records that need a blob of a replica may still be on their way, and a server's own replication keeps
    the source's times: by the replica's records and ages alone, what the source needs would look like
    garbage. And what is removed from a replica only, replication brings back.
    """
    source = (_format_of(store) or {}).get("replica_of")
    if source is not None and store.uncached().head(REPLICA_ENDED) is None:
        raise ConflictError(
            f"{store.location} is a replica of the store {source!r:.80}; nothing is removed or collected in "
            "it. Do it in the source; if that is lost, end_replication makes this one a store of its own.",
            details={"replica_of": source},
        )


def _format_of(store: Store) -> dict[str, Any] | None:
    try:
        raw = canonical.loads(store.uncached().get(layout.FORMAT_KEY), what=layout.FORMAT_KEY)
    except NotFoundError:
        return None
    return raw if isinstance(raw, dict) else {}
