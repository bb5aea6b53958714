"""What ``store_run`` admits, checked before anything is written; only a frame's cells are seen later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mltrack_tasks import canonical, layout
from mltrack_tasks.codecs import format_of
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.fields import checked_mapping
from mltrack_tasks.records import MAX_RECORD_SIZE, RunManifest
from mltrack_tasks.refs import DataRef, is_ref_text

INLINE_LIMIT = 8 * 1024
"""[bytes] JSON values up to this size also stand in the manifest, where they can be searched."""


def checked_id(run_id: str | None) -> str:
    """Admit a run id."""
    if run_id is None:
        raise InvalidInputError("run_id is missing; outside a Prefect flow run there is none to take.")
    layout.manifest_key(run_id)
    return run_id


def checked_modes(modes: str | Sequence[str], project: str | None, model: str | None) -> tuple[str, ...]:
    """Admit storage modes; each needs the field that it lists by."""
    if not isinstance(modes, (str, Sequence)):
        raise InvalidInputError(f"storage_mode is {modes!r}; give a storage mode or a list of them.")
    chosen = (modes,) if isinstance(modes, str) else tuple(modes)
    if not chosen:
        raise InvalidInputError("storage_mode is empty; use 'flat' for no view.")
    for mode in chosen:
        layout.check_choice(mode, layout.STORAGE_MODES, "The storage mode")
    for mode, field, value in (("by_project", "project", project), ("by_model", "model", model)):
        if value is not None:
            layout.view_key(mode, value, "x")
        elif mode in chosen:
            raise InvalidInputError(f"storage_mode {mode!r} needs {field}=...; give it, or choose 'flat'.")
    return tuple(dict.fromkeys(chosen))


def checked_things(values: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Admit names and types of what will be stored, before anything is."""
    mapping = checked_mapping(values, what)
    for name, thing in mapping.items():
        layout.encode_segment(name, what=f"The name in {what}")
        if isinstance(thing, DataRef):
            _check_ref(thing, f"{what}[{name!r}]")
        else:
            format_of(thing)
    return mapping


def _check_ref(ref: DataRef, what: str) -> None:
    """Refuse a ref that could be written into a record and not be read back."""
    try:
        read = DataRef.from_json(canonical.loads(canonical.dumps(ref.to_json()), what=what), what=what)
    except (IntegrityError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{what} is not a ref of this library: {error}") from error
    if replace(read, metadata=ref.metadata) != ref:  # metadata does come back, but NaN does not equal NaN
        raise InvalidInputError(f"{what} would come back as another ref; use refs as they were returned.")


def checked_values(values: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    """Admit a mapping of JSON values."""
    mapping = checked_mapping(values, what)
    canonical.escape(mapping, what=what)
    return mapping


def checked_metrics(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Admit a mapping of numbers."""
    mapping = checked_mapping(metrics, "metrics")
    plain = {name: _number(value, name) for name, value in mapping.items()}
    canonical.escape(plain, what="metrics")
    return plain


def _number(value: Any, name: str) -> float | int:
    """Take a number out of a metric; numpy scalars become the plain number that they are."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if type(value) in (int, float):
        return value  # type: ignore[no-any-return]
    raise InvalidInputError(f"metrics[{name!r}] is {value!r}, not a number; put it into params or tags.")


def check_size(draft: RunManifest) -> None:
    """Check the times, and that the manifest leaves room for refs and inlined values."""
    size = len(canonical.dumps(draft.to_content()))
    if size > MAX_RECORD_SIZE // 2:
        raise InvalidInputError(
            f"params, metrics and tags take {size:,} bytes; a manifest may hold {MAX_RECORD_SIZE // 2:,}. "
            "Put large values into data."
        )


def check_contents(things: Mapping[str, Mapping[str, Any]]) -> None:
    """Check each JSON value in full, before anything is written."""
    for group, values in things.items():
        for name, thing in values.items():
            if not isinstance(thing, DataRef) and format_of(thing) == "json":
                canonical.escape(thing, what=f"{group}[{name!r}]")


def inlined(things: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The small JSON values of ``data``, for the manifest itself."""
    return {
        name: thing
        for name, thing in things["data"].items()
        if not isinstance(thing, (DataRef, bytes)) and not is_ref_text(thing) and _is_small_json(thing)
    }


def _is_small_json(thing: Any) -> bool:
    return format_of(thing) == "json" and len(canonical.dumps_value(thing)) <= INLINE_LIMIT
