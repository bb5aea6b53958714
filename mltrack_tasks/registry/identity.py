"""Which version id a tree of files has: equal trees of a model are one version, wherever and whenever."""

from __future__ import annotations

from datetime import UTC, date, datetime

from mltrack_tasks import modelkeys
from mltrack_tasks.digest import is_digest
from mltrack_tasks.errors import ConflictError, IntegrityError, NotFoundError
from mltrack_tasks.fields import Fields
from mltrack_tasks.recordstore import create_record, read_record
from mltrack_tasks.stores.base import Store


def today() -> date:
    """The day (UTC) that a version registered now is named after."""
    return datetime.now(UTC).date()


def version_of_tree(store: Store, model: str, tree_digest: str) -> str | None:
    """Look up the version id of a tree, or None if the model never had it."""
    key = modelkeys.tree_key(model, tree_digest)
    try:
        record = read_record(store, key)
    except NotFoundError:
        return None
    version = Fields(record.content, key).text("version")
    if not modelkeys.is_version(version) or not tree_digest.startswith(version.partition("_")[2]):
        raise IntegrityError(f"{key} in {store.location} names {version!r:.80}, which is no id of this tree.")
    return version


def claim_version(store: Store, model: str, tree_digest: str) -> str:
    """Give a tree its version id, for ever -> the id; whoever asks again, or at the same time, gets the same.

    First an id is claimed for the tree: that of today with the fewest digits that no other tree has taken.
    Then the tree is given that id; whoever comes second, on whatever day, adopts the first one's.
    """
    return version_of_tree(store, model, tree_digest) or _bind(
        store, model, tree_digest, _free_id(store, model, tree_digest)
    )


def adopt_version(store: Store, model: str, tree_digest: str, version: str) -> None:
    """Give a tree the id that it has in another store.

    Raises ConflictError if other bytes have that id here, or these bytes another one.
    """
    if not _claim(store, model, version, tree_digest):
        raise ConflictError(
            f"{version} of {model!r} in {store.location} holds other bytes. Copy under another model name.",
            details={"model": model, "version": version},
        )
    found = _bind(store, model, tree_digest, version)
    if found != version:
        raise ConflictError(
            f"{store.location} has the same bytes of {model!r} as {found}: they were registered "
            f"there too, and cannot be {version} as well. Use {found}.",
            existing=found,
            offered=version,
        )


def _free_id(store: Store, model: str, tree_digest: str) -> str:
    day = today()
    for digits in modelkeys.ID_DIGITS:
        version = modelkeys.version_id(day, tree_digest, digits)
        if _claim(store, model, version, tree_digest):
            return version
    raise IntegrityError(f"The id {version} of {model!r} in {store.location} was given to another tree.")


def _claim(store: Store, model: str, version: str, tree_digest: str) -> bool:
    """Take an id for a tree: False if another tree has it."""
    content = {"version": version, "tree_digest": tree_digest}
    key = modelkeys.id_key(model, version)
    try:
        create_record(store, key, content, what=f"The version id {version} of model {model!r}")
    except ConflictError as error:
        if not is_digest(error.existing.get("tree_digest")):
            raise IntegrityError(
                f"{key} in {store.location} names no tree; it was not written by us."
            ) from error
        return False
    return True


def _bind(store: Store, model: str, tree_digest: str, version: str) -> str:
    """Give a tree an id, unless it has one -> the id that it has."""
    content = {"tree_digest": tree_digest, "version": version}
    key = modelkeys.tree_key(model, tree_digest)
    try:
        create_record(store, key, content, what=f"The tree {tree_digest} of model {model!r}")
    except ConflictError:
        return version_of_tree(store, model, tree_digest) or version
    return version
