"""Taking a version out of use: it stays, and nothing is promoted to it any more."""

from __future__ import annotations

from mltrack_tasks import events, modelkeys, provenance
from mltrack_tasks.errors import ConflictError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.fields import checked_text
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import Record
from mltrack_tasks.recordstore import ensure
from mltrack_tasks.registry.aliases import aliases_of
from mltrack_tasks.registry.reading import deprecation_of, read_version, with_standing
from mltrack_tasks.stores.base import Store


def deprecate_version(
    store: Store,
    model_name: str,
    version: str,
    *,
    reason: str | None = None,
    observe: Observe = log_event,
) -> ModelVersion:
    """Take a version out of use -> the version, with ``deprecated`` saying why.

    It can still be read by its id; ``latest`` passes over it, and it cannot be promoted. One that is
    deprecated already stays so, with its first reason. Raises ConflictError while an alias stands for it.
    """
    reason = checked_text(reason, "reason")
    found = read_version(store, model_name, version)
    key = modelkeys.deprecation_key(model_name, version)
    content = {"model": model_name, "version": version, "reason": reason}
    # Before anything is written, so that whoever is stopped half-way leaves nothing in use deprecated.
    using = _using(store, model_name, version)
    if using and deprecation_of(store, model_name, version) is None:
        raise _in_use(model_name, version, using)
    created = ensure(store, key, Record(content, provenance.current()).to_bytes())
    # Each side flags, then looks: whoever promotes appends its event, and then looks for this record.
    using = _using(store, model_name, version)
    if using:
        store.delete([key])
        raise _in_use(model_name, version, using)
    if created:
        details = {"model": model_name, "version": version, "reason": reason}
        observe(Event(events.MODEL_DEPRECATED, f"model.{model_name}", details))
    return with_standing(store, found)


def _using(store: Store, model: str, version: str) -> list[str]:
    """Name the aliases that stand for a version."""
    return sorted(alias for alias, name in aliases_of(store, model).items() if name == version)


def _in_use(model: str, version: str, using: list[str]) -> ConflictError:
    return ConflictError(
        f"{version} of {model!r} is in use as {', '.join(map(repr, using))}. Promote another version, or "
        "remove the alias, and deprecate it then.",
        details={"aliases": using},
    )
