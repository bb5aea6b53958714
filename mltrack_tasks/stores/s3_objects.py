"""The obstore client of an S3 store: every setting given, so that no AWS_* variable changes what it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from obstore.exceptions import UnknownConfigurationKeyError
from obstore.store import S3Store

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.stores.s3_settings import (
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    REQUEST_TIMEOUT,
    CredentialSource,
    S3Settings,
)

_process: int | None = None
"""The process that first used obstore."""


def build_objects(
    client: Any, settings: S3Settings, credentials: CredentialSource, *, large: bool = False
) -> S3Store:
    """Make the obstore client that speaks to the endpoint and region of the boto3 ``client``.

    It retries nothing: that is the work of ``RetryingStore``. The one for ``large`` bodies waits up to
    REQUEST_TIMEOUT for an answer: obstore's read timeout runs while a body is still being sent, so it would
    break every PUT that a slow line cannot finish within it.
    """
    require_same_process()
    endpoint, is_virtual = _address(client.meta.endpoint_url, settings)
    config = {
        **_config(settings, endpoint, client.meta.region_name),
        "virtual_hosted_style_request": is_virtual,
    }
    make: Callable[..., S3Store] = partial(
        S3Store,
        settings.bucket,
        client_options=_client_options(settings, endpoint, large),
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        credential_provider=credentials,
    )
    try:
        # Of its own, or from the environment, this one wins over ``endpoint``; an old obstore lacks it.
        return make(config={**config, "aws_endpoint_url_s3": endpoint})
    except UnknownConfigurationKeyError:
        return make(config=config)


def _address(endpoint: str, settings: S3Settings) -> tuple[str, bool]:
    """Where requests go, and whether the bucket is a part of the host's name there.

    obstore takes the host of a virtual style as it is. Without a wish it is the path style, also where boto3
    chooses the other one: both are the same bucket.
    """
    if settings.accelerate:
        return f"https://{settings.bucket}.s3-accelerate.amazonaws.com", True
    if settings.addressing != "virtual":
        return endpoint, False
    scheme, _, host = endpoint.partition("://")
    return f"{scheme}://{settings.bucket}.{host}", True


def require_same_process() -> None:
    """Raise InvalidInputError in a child forked after obstore was used: there, its threads are gone."""
    global _process
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid():
        raise InvalidInputError(
            "This process was forked after its parent had used an S3 store, and would hang. Start workers "
            "with the 'spawn' start method (multiprocessing_context='spawn' for a PyTorch DataLoader)."
        )


def _config(settings: S3Settings, endpoint: str, region: str | None) -> Any:
    config: dict[str, Any] = {
        "endpoint": endpoint,
        "region": region or "us-east-1",
        "checksum_algorithm": "sha256",
        "conditional_put": "etag",
        "skip_signature": False,
        "unsigned_payload": False,
        "s3_express": False,
        "request_payer": settings.request_payer,
        "disable_tagging": True,
    }
    if settings.encryption:
        config["server_side_encryption"] = settings.encryption
    if settings.kms_key_id:
        config["sse_kms_key_id"] = settings.kms_key_id
    if settings.bucket_key is not None:
        config["sse_bucket_key_enabled"] = settings.bucket_key
    return config


def _client_options(settings: S3Settings, endpoint: str, large: bool) -> Any:
    options: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT),
        "pool_max_idle_per_host": str(settings.max_workers + 2),
    }
    if not large:
        options["read_timeout"] = timedelta(seconds=READ_TIMEOUT)
    if settings.verify is False:
        options["allow_invalid_certificates"] = True
    elif isinstance(settings.verify, str):
        options["root_certificate"] = Path(settings.verify).read_bytes()
    return options
