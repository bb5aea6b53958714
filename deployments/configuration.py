"""What a bootstrap is told: a TOML file, whose values may be environment variables, or nothing."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect_aws import AwsCredentials, MinIOCredentials
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from mltrack_tasks import MLTrackStore
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.resolve import find_store

PoolType = Literal["process", "docker", "kubernetes", "ecs"]
"""The work pools that prefect.yaml defines."""

_STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


class Pool(BaseModel):
    """The work pool that all deployments use; None: as prefect.yaml names it."""

    model_config = _STRICT
    type: PoolType = "process"
    name: str | None = Field(default=None, min_length=1)
    concurrency_limit: int | None = Field(default=None, ge=1)


class Automations(BaseModel):
    """When a silent run counts as dead [s], and whom a failed migration is told.

    Runs send a heartbeat every 30 s (prefect.yaml), so three may be lost.
    """

    model_config = _STRICT
    zombie_after: int = Field(default=120, ge=35)
    notify_url: SecretStr | None = None


class Configuration(BaseModel):
    """All that a bootstrap is told; ``store`` has the fields of the block MLTrackStore."""

    model_config = _STRICT
    name: str | None = Field(default=None, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    store: dict[str, Any] | str | None = None
    credentials: dict[str, Any] | None = None
    pool: Pool = Pool()
    limits: dict[str, Annotated[int, Field(ge=1)]] = {"mltrack-transfers": 4}
    automations: Automations = Automations()

    @model_validator(mode="after")
    def _credentials_need_fields(self) -> Configuration:
        if self.credentials is not None and not isinstance(self.store, dict):
            raise ValueError("[credentials] belong to a [store] table")
        return self

    def block_name(self, block: MLTrackStore) -> str:
        """The name to save the block under: as said, or the one that it has, or ``mltrack``."""
        return self.name or block._block_document_name or "mltrack"

    def block(self) -> MLTrackStore:
        """The block that is asked for. Raises InvalidInputError, which never quotes a secret."""
        if not isinstance(self.store, dict):
            return find_store(self.store)
        try:
            return MLTrackStore(**{**self.store, "credentials": _credentials(self.credentials)})
        except ValidationError as error:
            raise InvalidInputError(f"[store] is not valid: {_said(error)}") from None


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Configuration:
    """Read a configuration file -> what it says; no file: all defaults, and the store of the surroundings.

    ``{env = "NAME"}`` in place of a value takes it from the environment, and must find it there. Raises
    InvalidInputError for a file that is no such configuration.
    """
    try:
        raw = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
        return Configuration(**_filled(raw, "", environment))
    except ValidationError as error:
        raise InvalidInputError(f"{path} is no configuration: {_said(error)}") from None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{path} cannot be read as TOML: {error}.") from error


def _filled(value: Any, where: str, environment: Mapping[str, str]) -> Any:
    """Put environment variables in their places."""
    if not isinstance(value, dict):
        return value
    if set(value) == {"env"}:
        found = environment.get(str(value["env"]))
        if not found:
            raise InvalidInputError(f"{where.strip('.')} is to come from {value['env']}, which is not set.")
        return found
    return {key: _filled(item, f"{where}.{key}", environment) for key, item in value.items()}


def _credentials(fields: dict[str, Any] | None) -> AwsCredentials | MinIOCredentials | None:
    if fields is None:
        return None
    kind: type[AwsCredentials | MinIOCredentials] = AwsCredentials
    if "minio_root_user" in fields:
        kind = MinIOCredentials
    unknown = sorted(set(fields) - set(kind.model_fields))
    if unknown:
        raise InvalidInputError(
            f"[credentials] has {', '.join(unknown)}, which {kind.__name__} does not know."
        )
    try:
        return kind(**fields)
    except ValidationError as error:
        raise InvalidInputError(f"[credentials] are not valid: {_said(error)}") from None


def _said(error: ValidationError) -> str:
    """What is wrong, without the input: it may hold a secret."""
    parts = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors(include_input=False)]
    return "; ".join(f"{where}: {said}" if where else said for where, said in parts)
