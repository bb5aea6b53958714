"""Removals of versions, as those who register and promote see them: each side flags, then looks.

Whoever removes a version writes a numbered record (the flag), then looks at the aliases, then deletes.
Whoever registers or promotes it looks for such records before it writes and after its last write: one that is
open, or was not there before, says that what it wrote may be gone.
"""

from __future__ import annotations

import time

from mltrack_tasks import modelkeys
from mltrack_tasks.errors import TransientError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.stores.base import Store

TIMEOUT = 120.0
"""[s] to wait for a removal that is at work."""
_POLL = 0.5
TRIES = 5
"""How often a version is written again that others removed meanwhile."""


def removals_of(store: Store, model: str, version: str) -> dict[int, bool]:
    """List the removals of a version -> by number, whether it is over; a version may come back after one."""
    folder = modelkeys.removals_folder(model, version)
    keys = {stat.key for stat in store.list(folder)}
    numbers = (modelkeys.parse_numbered_key(key, folder) for key in keys)
    return {
        number: modelkeys.removal_done_key(model, version, number) in keys
        for number in sorted(filter(None, numbers))
    }


def outlast_removal(store: Store, model: str, version: str) -> int:
    """Wait until no removal of a version is at work -> how many there were: one LIST if there is none.

    Raises TransientError if one stays open: its process was stopped, maybe.
    """
    deadline = time.monotonic() + TIMEOUT
    while not all((found := removals_of(store, model, version)).values()):
        if time.monotonic() > deadline:
            raise TransientError(
                f"{version} of {model!r} in {store.location} is being removed for over {TIMEOUT:.0f} s. Try "
                "again; if it stays so, call remove_version again: it finishes what was stopped."
            )
        time.sleep(_POLL)
    return len(found)


def was_removed_since(store: Store, model: str, version: str, count: int) -> bool:
    """Whether another removal of a version began since there were ``count``."""
    return len(removals_of(store, model, version)) != count


def removed_meanwhile(store: Store, version: ModelVersion) -> TransientError:
    """The error of who registers what others remove, again and again."""
    return TransientError(
        f"{version.version} of {version.model!r} was removed from {store.location} while it was registered. "
        "Register it again, or leave it removed."
    )
