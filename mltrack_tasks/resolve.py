"""Which store a task uses: a block, a block's name, an address, a directory, or what the surroundings say."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from mltrack_tasks.blocks import MLTrackStore
from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.stores import Store

CONFIG_FILE = "mltrack.toml"
_FILE_FIELDS = (
    *("bucket", "prefix", "path", "region_name", "endpoint_url", "storage_class"),
    *("server_side_encryption", "kms_key_id", "expected_bucket_owner", "max_workers"),
    *("cache_dir", "cache_max_bytes", "verify_reads"),
)
"""What the ``[store]`` table may hold: everything but credentials, which do not belong into a file."""


def open_store(store: MLTrackStore | str | None) -> Store:
    """Open what a task was given as ``store``."""
    return find_store(store).open()


def store_with(
    store: MLTrackStore | str | None,
    *,
    s3_bucket: str | None = None,
    s3_prefix: str | None = None,
    max_workers: int | None = None,
) -> MLTrackStore:
    """Find a store, with another bucket, prefix or number of requests in flight where they are given.

    With a bucket and without a store, the bucket is the store: credentials come from the AWS default chain.
    """
    changes = {"bucket": s3_bucket, "prefix": s3_prefix, "max_workers": max_workers}
    given = {key: value for key, value in changes.items() if value is not None}
    if store is None and s3_bucket is not None:
        return _build("s3_bucket", given)
    found = find_store(store)
    if found.path is not None and (s3_bucket is not None or s3_prefix is not None):
        raise InvalidInputError("The store is a directory; s3_bucket and s3_prefix are for one in a bucket.")
    return _build("the store with these changes", {**dict(found), **given}) if given else found


def find_store(store: MLTrackStore | str | None) -> MLTrackStore:
    """Turn what a task was given as ``store`` into a block.

    A name without slashes is a block's; ``s3://bucket/prefix`` an address; anything with a slash, or that
    begins with ``.`` or ``~``, a directory. None takes the first of MLTRACK_STORE, MLTRACK_S3_BUCKET (with
    MLTRACK_S3_PREFIX) and ``mltrack.toml`` in the working directory or above.
    """
    if isinstance(store, MLTrackStore):
        return store
    if isinstance(store, str) and store:
        return _from_text("store", store)
    if store is None:
        return _from_surroundings()
    offered: object = store
    hint = " In .map(), wrap a block in unmapped(...)." if isinstance(offered, (tuple, list)) else ""
    what = type(offered).__name__ if offered != "" else "empty"
    raise InvalidInputError(f"store is {what}, not a block, name, address or directory.{hint}")


def _from_text(source: str, text: str, folder: Path | None = None) -> MLTrackStore:
    """Read a store's name; a relative directory begins at ``folder``, or at the working directory."""
    said = f"{source}={text!r}"
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        return _build(said, {"bucket": bucket, **({"prefix": prefix} if prefix else {})})
    if "://" in text:
        raise InvalidInputError(f"{said}: only s3:// addresses are known; a directory is its path.")
    if "/" in text or os.sep in text or text[0] in ".~":
        return _build(said, {"path": _below(folder, text)})
    return _load_block(said, text)


def _load_block(source: str, name: str) -> MLTrackStore:
    try:
        return cast(MLTrackStore, MLTrackStore.load(name, _sync=True))  # type: ignore[call-arg]
    except ValueError as error:
        raise NotFoundError(
            f"{source}: there is no MLTrack Store block of that name ({error}). Save one with "
            f"MLTrackStore(...).save({name!r}); for a directory, write ./{name}."
        ) from error
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        said = "; ".join(map(_said, error.__cause__.errors()))
        raise InvalidInputError(f"{source}: that block is not valid: {said}") from error


def _from_surroundings() -> MLTrackStore:
    if text := os.environ.get("MLTRACK_STORE"):
        return _from_text("MLTRACK_STORE", text)
    if bucket := os.environ.get("MLTRACK_S3_BUCKET"):
        prefix = os.environ.get("MLTRACK_S3_PREFIX")
        return _build("MLTRACK_S3_BUCKET", {"bucket": bucket, **({"prefix": prefix} if prefix else {})})
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG_FILE).is_file():
            return _from_file(folder / CONFIG_FILE)
    raise InvalidInputError(
        "No store was given. Pass store=... to the task, or set one of: MLTRACK_STORE (a block's name, "
        f"s3://bucket/prefix or a directory); MLTRACK_S3_BUCKET (with MLTRACK_S3_PREFIX); a {CONFIG_FILE} in "
        "the working directory or above."
    )


def _from_file(path: Path) -> MLTrackStore:
    """Read ``store = "..."`` or a ``[store]`` table; relative paths in it are relative to the file."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8")).get("store")
    except (ValueError, RecursionError) as error:  # beside TOML's own: broken UTF-8, long numbers, nesting
        raise InvalidInputError(f"{path} is not valid TOML: {error}.") from error
    if isinstance(raw, str) and raw:
        return _from_text(f"{path}: store", raw, path.parent)
    if not isinstance(raw, dict):
        raise InvalidInputError(f'{path} has no store: write store = "..." or a [store] table.')
    unknown = sorted(set(raw) - set(_FILE_FIELDS))
    if unknown:
        raise InvalidInputError(
            f"{path}: [store] has {', '.join(unknown)}; it may hold {', '.join(_FILE_FIELDS)}. Credentials "
            "belong into a Prefect block or the AWS chain."
        )
    for field in ("path", "cache_dir"):
        if raw.get(field) and isinstance(raw[field], str):
            raw[field] = _below(path.parent, raw[field])
    return _build(str(path), raw)


def _below(folder: Path | None, text: str) -> str:
    return text if folder is None or text[0] == "~" else str(folder / text)


def _build(source: str, fields: dict[str, Any]) -> MLTrackStore:
    try:
        return MLTrackStore(**fields)
    except ValidationError as error:
        raise InvalidInputError(f"{source}: {'; '.join(map(_said, error.errors()))}") from error


def _said(item: Any) -> str:
    """One line of a ValidationError, without the input that it quotes."""
    where = ".".join(map(str, item["loc"]))
    said = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {said}" if where else said
