"""Prefect blocks. A block only holds configuration and opens a store."""

from __future__ import annotations

import asyncio
import os
from functools import lru_cache
from typing import Any, Literal

from prefect.blocks.core import schema_extra
from prefect.filesystems import WritableFileSystem
from prefect_aws import AwsCredentials, MinIOCredentials
from pydantic import (
    ConfigDict,
    Field,
    FieldSerializationInfo,
    HttpUrl,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)

from mltrack_tasks.credentials import check_endpoint, keys_of, refuse_unknown, verification_of
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.resultfiles import read_result, write_result
from mltrack_tasks.stores import DEFAULT_CACHE_BYTES, Store, open_directory, open_s3
from mltrack_tasks.stores.files import checked_path
from mltrack_tasks.stores.s3_settings import S3Settings

_BUCKET_FIELDS = (
    *("credentials", "region_name", "endpoint_url", "storage_class", "server_side_encryption"),
    *("kms_key_id", "s3_extra_args", "expected_bucket_owner", "addressing_style", "ca_bundle"),
    "transfer_acceleration",
)
"""Fields that mean nothing to a directory."""


def _schema(schema: dict[str, Any], model: Any) -> None:
    """Add to Prefect's description of a block what the API and its UI must mask beside SecretStr fields."""
    schema_extra(schema, model)
    schema["secret_fields"].append("credentials.aws_session_token")
    # Nothing has to be given, but a schema that requires nothing fits a deployment's reference to a block,
    # too: Prefect's server then refuses to update the deployment, as exactly one of both may fit.
    schema["required"] = ["max_workers"]


class MLTrackStore(WritableFileSystem):
    """
    Where data, runs and models are kept: a prefix of an S3 bucket, or a directory with the same layout.

    Saved, it is a place for results, too: `@flow(result_storage="mltrack-store/BLOCK_NAME")`. Equal results
    are stored once, and found by whoever shares the store.

    Example:
        Load a stored block and give it to a task:
        ```python
        from mltrack_tasks import MLTrackStore, store_data

        store = MLTrackStore.load("BLOCK_NAME")
        ref = store_data({"accuracy": 0.89}, name="metrics", store=store)
        ```
    """

    model_config = ConfigDict(hide_input_in_errors=True, json_schema_extra=_schema)

    _block_type_name = "MLTrack Store"
    _block_type_slug = "mltrack-store"
    _description = "Where data, runs and models are kept: a prefix of an S3 bucket, or a directory."
    _documentation_url = HttpUrl("https://docs.prefect.io/integrations/prefect-aws")
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/"
        "d74b16fe84ce626345adf235a47008fea2869a60-225x225.png"
    )

    bucket: str | None = Field(
        default=None, description="Name of the S3 bucket; leave empty for a directory."
    )
    prefix: str = Field(default="mltrack", description="Folder in the bucket that holds the store.")
    path: str | None = Field(
        default=None, description="Directory that holds the store, instead of a bucket; made absolute."
    )
    credentials: AwsCredentials | MinIOCredentials | None = Field(
        default=None,
        description="Credentials block; empty for the AWS default chain (environment, profile, SSO, role).",
    )
    region_name: str | None = Field(default=None, description="Region of the bucket.")
    endpoint_url: str | None = Field(
        default=None, description="Address of an S3-compatible server; empty for AWS."
    )
    addressing_style: Literal["path", "virtual"] | None = Field(
        default=None,
        description="Whether the bucket stands in the path or in the host of addresses; empty for the usual.",
    )
    transfer_acceleration: bool = Field(
        default=False, description="Send requests through S3 Transfer Acceleration (enabled on the bucket)."
    )
    ca_bundle: str | None = Field(
        default=None, description="File on the worker with the certificates of a CA of your own (PEM)."
    )
    storage_class: str | None = Field(
        default=None, description="Storage class of new blobs, such as INTELLIGENT_TIERING or GLACIER_IR."
    )
    server_side_encryption: str | None = Field(
        default=None, description="Encryption of new objects: AES256, aws:kms or aws:kms:dsse."
    )
    kms_key_id: str | None = Field(default=None, description="KMS key, with aws:kms encryption.")
    s3_extra_args: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "Further settings of new objects under their boto3 names: ServerSideEncryption, SSEKMSKeyId, "
            "BucketKeyEnabled, StorageClass, RequestPayer."
        ),
    )
    expected_bucket_owner: str | None = Field(
        default=None, description="Account that must own the bucket; writing to another's is refused."
    )
    max_workers: int = Field(default=8, ge=1, le=64, description="Requests that a task keeps in flight.")
    cache_dir: str | None = Field(
        default=None, description="Directory on the worker for a read cache of blobs; empty for none."
    )
    cache_max_bytes: int = Field(
        default=DEFAULT_CACHE_BYTES, ge=1, description="Size limit of the read cache in bytes."
    )
    verify_reads: bool = Field(default=True, description="Check the digest of every blob that is read.")

    @field_validator(
        *("bucket", "path", "region_name", "endpoint_url", "storage_class", "server_side_encryption"),
        *("kms_key_id", "expected_bucket_owner", "cache_dir", "addressing_style", "ca_bundle"),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        """A form field that was emptied arrives as an empty text."""
        return None if value == "" else value

    @field_validator("credentials", mode="before")
    @classmethod
    def _choose_credentials(cls, value: Any) -> Any:
        """Choose the class by its fields: Prefect loads a nested block as a bare dict.

        Left to itself, pydantic makes empty AwsCredentials of the fields of MinIOCredentials.
        """
        if not isinstance(value, dict):
            return value
        fields = {key: item for key, item in value.items() if key != "block_type_slug"}
        kind = MinIOCredentials if "minio_root_user" in fields else AwsCredentials
        refuse_unknown(kind, fields)
        return kind(**fields)

    @field_validator("path", "cache_dir")
    @classmethod
    def _make_absolute(cls, value: str | None) -> str | None:
        return None if value is None else str(checked_path(value).absolute())

    @model_validator(mode="after")
    def _check(self) -> MLTrackStore:
        refuse_unknown(type(self), self.model_extra or {})
        if (self.bucket is None) == (self.path is None):
            raise InvalidInputError("Give either bucket (with prefix) or path, and not both.")
        if self.bucket is not None:
            self.s3_settings()
        elif useless := [name for name in _BUCKET_FIELDS if getattr(self, name)]:
            raise InvalidInputError(f"A directory has no {', '.join(useless)}: leave out, or give a bucket.")
        return self

    @field_serializer("credentials", mode="wrap")
    def _mask_token(
        self, value: Any, handler: SerializerFunctionWrapHandler, info: FieldSerializationInfo
    ) -> Any:
        """Mask the session token, no SecretStr: Prefect keeps the parameters of flow runs as JSON."""
        shown = handler(value)
        whole = (info.context or {}).get("include_secrets")
        if not whole and isinstance(shown, dict) and shown.get("aws_session_token"):
            shown["aws_session_token"] = "**********"
        return shown

    @property
    def location(self) -> str:
        """``s3://bucket/prefix`` or the directory's path."""
        return self.path or f"s3://{self.bucket}/{self.prefix.strip('/')}".rstrip("/")

    def open(self) -> Store:
        """Open the store for the plain functions; within a process, equal blocks share one.

        Sends nothing yet. Raises AccessError if no credentials can be found.
        """
        if self.path is not None:
            return open_directory(
                self.path,
                max_workers=self.max_workers,
                verify_reads=self.verify_reads,
                cache_dir=self.cache_dir,
                cache_max_bytes=self.cache_max_bytes,
            )
        return _open_shared(self.s3_settings(), self.cache_dir, self.cache_max_bytes, _surroundings())

    # Prefect calls the first two where a flow is not async; to its base class they are async twins.
    def read_path(self, path: str, *, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Read what Prefect keeps under ``path``. Raises NotFoundError if that is nothing."""
        return read_result(self.open(), path)

    def write_path(self, path: str, content: bytes, *, _sync: bool = True) -> None:  # type: ignore[override]
        """Keep what Prefect writes under ``path``; equal results are one blob."""
        write_result(self.open(), path, content)

    async def aread_path(self, path: str) -> bytes:
        """As ``read_path``, while the event loop goes on."""
        return await asyncio.to_thread(self.read_path, path)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """As ``write_path``, while the event loop goes on."""
        await asyncio.to_thread(self.write_path, path, content)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """What repr, str and rich show: session tokens and role policies are no SecretStr, so no fields."""
        return [(None, self.location)]

    def s3_settings(self) -> S3Settings:
        assert self.bucket is not None
        parameters = getattr(self.credentials, "aws_client_parameters", None)
        settings = S3Settings(
            bucket=self.bucket,
            prefix=self.prefix,
            keys=keys_of(self.credentials),
            region=self.region_name or getattr(self.credentials, "region_name", None),
            endpoint_url=self.endpoint_url or getattr(parameters, "endpoint_url", None),
            verify=self.ca_bundle or verification_of(parameters),
            addressing=self.addressing_style,
            accelerate=self.transfer_acceleration,
            storage_class=self.storage_class,
            encryption=self.server_side_encryption,
            kms_key_id=self.kms_key_id,
            expected_owner=self.expected_bucket_owner,
            max_workers=self.max_workers,
            verify_reads=self.verify_reads,
        ).with_extra_args(self.s3_extra_args)
        check_endpoint(settings.endpoint_url, self.credentials)
        return settings


def _surroundings() -> tuple[tuple[str, str], ...]:
    """What the default chain reads: the AWS_* variables, and when its two files were last written."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name, default in (
        ("AWS_CONFIG_FILE", "~/.aws/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
    ):
        path = os.path.expanduser(os.environ.get(name) or default)
        variables[path] = _written_at(path)
    return tuple(sorted(variables.items()))


def _written_at(path: str) -> str:
    try:
        return str(os.stat(path).st_mtime_ns)
    except OSError:
        return ""  # there is none, or it is not for us to read: the chain goes on without it


@lru_cache(maxsize=16)
def _open_shared(
    settings: S3Settings,
    cache_dir: str | None,
    cache_max_bytes: int,
    surroundings: tuple[tuple[str, str], ...],
) -> Store:
    """Share one store, and so its connections, between the tasks of a process.

    ``surroundings`` are the AWS_* variables, which the default chain reads: other ones, another store.
    """
    return open_s3(settings, cache_dir=cache_dir, cache_max_bytes=cache_max_bytes)
