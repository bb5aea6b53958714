"""Event selectors of a CloudTrail trail: a document of its own, beside those of the bucket."""

from __future__ import annotations

from typing import Any

from botocore.config import Config

from mltrack_tasks.errors import NotFoundError
from mltrack_tasks.stores.s3 import S3Store
from mltrack_tasks.stores.s3_errors import botocore_errors
from mltrack_tasks.stores.s3_settings import CONNECT_TIMEOUT, READ_TIMEOUT

_SELECTORS = ("EventSelectors", "AdvancedEventSelectors")


def read_selectors(store: S3Store, trail: str) -> dict[str, Any]:
    """Read the selectors of a trail -> ``TrailARN`` and the selectors, in the form that the trail has.

    Raises NotFoundError if there is no such trail in the region of its ARN, or of the store.
    """
    with botocore_errors("cloudtrail:GetEventSelectors", trail):
        client = _client(store, trail)
        try:
            answer = client.get_event_selectors(TrailName=trail)
        except client.exceptions.TrailNotFoundException as error:
            raise NotFoundError(
                f"There is no trail {trail!r} in {client.meta.region_name}. Create one, or give the ARN of "
                "a trail of another region."
            ) from error
    return {key: answer[key] for key in ("TrailARN", *_SELECTORS) if answer.get(key)}


def write_selectors(store: S3Store, document: dict[str, Any]) -> None:
    """Write the selectors that a document has to the trail that it names."""
    trail = document["TrailARN"]
    selectors = {key: document[key] for key in _SELECTORS if document.get(key)}
    with botocore_errors("cloudtrail:PutEventSelectors", trail):
        _client(store, trail).put_event_selectors(TrailName=trail, **selectors)


def _client(store: S3Store, trail: str) -> Any:
    parts = trail.split(":")  # arn:aws:cloudtrail:<region>:<account>:trail/<name>
    region = parts[3] if len(parts) > 3 else store.client.meta.region_name
    config = Config(
        connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries={"total_max_attempts": 1}
    )
    return store.session.client("cloudtrail", region_name=region, config=config)
