"""What tasks make and use, as assets of Prefect: it connects those of a flow by their ``s3://`` addresses.

Only a task run knows of assets, and only what lies in S3 is one: elsewhere nothing is noted.
"""

from __future__ import annotations

from typing import TypeVar

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext
from pydantic import ValidationError

from mltrack_tasks.objectlinks import address_of, console_url
from mltrack_tasks.stores.base import Store

R = TypeVar("R")


def made(store: Store, key: str, result: R, *, name: str) -> R:
    """Note that this task run has made the object at ``key``, called ``name`` -> ``result``.

    Prefect tells of it when the task run has completed: the event
    ``prefect.asset.materialization.succeeded``, related to what the task run used.
    """
    context, asset = AssetContext.get(), _asset(store, key, name)
    if context is not None and asset is not None:
        context.downstream_assets.add(asset)
        context.update_tracked_assets()
    return result


def used(store: Store, key: str, *, name: str | None = None) -> None:
    """Note that this task run uses the object at ``key``, and so do those that take what it gives."""
    context, asset = AssetContext.get(), _asset(store, key, name)
    if context is not None and asset is not None:
        context.direct_asset_dependencies.add(asset)
        context.update_tracked_assets()


def _asset(store: Store, key: str, name: str | None) -> Asset | None:
    """The asset; None for what is not in S3, and for keys that Prefect does not take (``%``, too long)."""
    if not store.location.startswith("s3://"):
        return None
    told = {"name": name, "url": console_url(store, key)}
    # A property that is set, be it to nothing, replaces what is known of the asset.
    known = AssetProperties.model_validate({field: value for field, value in told.items() if value})
    try:
        return Asset(key=address_of(store, key), properties=known)
    except ValidationError:
        return None
