"""From prefect-aws' credentials blocks to the settings of a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from prefect.blocks.core import Block
from prefect_aws import AwsCredentials, MinIOCredentials

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.stores.s3_settings import Keys


def refuse_unknown(kind: type[Block], fields: Mapping[str, Any]) -> None:
    """Refuse fields that a block type lacks; Prefect's own blocks would keep and ignore them."""
    if unknown := sorted(set(fields) - set(kind.model_fields) - {"block_type_slug"}):
        raise InvalidInputError(
            f"{kind.__name__} has no {', '.join(unknown)}; it has {', '.join(kind.model_fields)}. "
            "A block that was saved by a newer version needs that version of mltrack_tasks."
        )


def check_endpoint(url: str | None, credentials: object) -> None:
    """Refuse an endpoint that is no plain address, and MinIO credentials without one."""
    if url is None:
        if isinstance(credentials, MinIOCredentials):
            raise InvalidInputError("MinIO credentials need endpoint_url, such as http://localhost:9000.")
        return
    if "@" in url or "?" in url:
        raise InvalidInputError("endpoint_url holds a user or a query: credentials belong into their block.")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_usable_port(parts):
        raise InvalidInputError(
            f"endpoint_url {url!r} is no address; write http://host:port or https://host."
        )


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def keys_of(credentials: AwsCredentials | MinIOCredentials | None) -> Keys:
    """Take the keys, or where to find them, out of a credentials block."""
    if credentials is None:
        return Keys()
    refuse_unknown(type(credentials), credentials.model_extra or {})
    if isinstance(credentials, MinIOCredentials):
        return Keys(credentials.minio_root_user, credentials.minio_root_password.get_secret_value())
    secret = credentials.aws_secret_access_key
    given = bool(credentials.aws_access_key_id)
    if given != bool(secret and secret.get_secret_value()) or (credentials.aws_session_token and not given):
        raise InvalidInputError("aws_access_key_id and aws_secret_access_key go together: give both or none.")
    role = getattr(credentials, "assume_role_arn", None)  # prefect-aws has it since 0.7
    options = credentials.assume_role_kwargs.get_params_override() if role else {}
    return Keys(
        access_key=credentials.aws_access_key_id or None,
        secret_key=secret.get_secret_value() or None if secret else None,
        session_token=credentials.aws_session_token or None,
        profile=credentials.profile_name or None,
        assume_role_arn=role or None,
        assume_role_options=tuple(sorted((key, _hashable(value)) for key, value in options.items())),
    )


class _HashableDict(dict[str, Any]):
    """A dict that may be part of a cache's key: nobody changes it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True, default=str))


def _hashable(value: Any) -> Any:
    """Settings are keys of a cache: lists in role options become tuples, which botocore takes as well."""
    if isinstance(value, dict):
        return _HashableDict({key: _hashable(item) for key, item in value.items()})
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def verification_of(parameters: Any) -> bool | str:
    """Which certificates to trust: the bundle of the credentials block, all, or the system's."""
    if parameters is None:
        return True
    bundle = parameters.verify_cert_path or parameters.verify
    return bundle if isinstance(bundle, bool) else str(bundle) if bundle else True
