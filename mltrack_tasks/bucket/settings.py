"""The wish: how a bucket is to be set up for a store. A field that is left out stays as it was last "
"applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mltrack_tasks.collecting.retention import RetentionPolicy
from mltrack_tasks.errors import InvalidInputError


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Encryption(_Group):
    """How new objects are encrypted by default."""

    algorithm: Literal["AES256", "aws:kms", "aws:kms:dsse"] = Field(
        default="AES256", description="AES256 (keys of S3), or keys of KMS."
    )
    kms_key_id: str | None = Field(default=None, description="ARN of the KMS key; empty for AWS's own.")
    bucket_key: bool = Field(default=True, description="One KMS request a bucket instead of one an object.")

    @model_validator(mode="after")
    def _key_needs_kms(self) -> Encryption:
        if self.kms_key_id and self.algorithm == "AES256":
            raise ValueError("kms_key_id needs the algorithm aws:kms or aws:kms:dsse")
        return self


class Policy(_Group):
    """Statements of the bucket's policy, about the keys of the store alone unless ``whole_bucket``."""

    tls_only: bool = Field(default=True, description="Refuse requests without TLS.")
    deny_other_encryption: bool = Field(
        default=False,
        description="Refuse objects that are to be encrypted in another way, or not by our key.",
    )
    create_only_data: bool = Field(
        default=False,
        description="Let data/ be written only with If-None-Match (or, to heal a blob, If-Match).",
    )
    whole_bucket: bool = Field(default=False, description="TLS for the whole bucket, not the store alone.")


class Lifecycle(_Group):
    """Rules of the lifecycle, all about keys of the store. Nothing in use expires or is archived by them."""

    abort_uploads_days: int | None = Field(
        default=7, ge=1, description="Drop uploads in parts that were not completed in so many days."
    )
    noncurrent_days: int | None = Field(
        default=30, ge=1, description="Drop earlier and deleted versions after so many days."
    )
    noncurrent_keep: int | None = Field(
        default=None, ge=1, le=100, description="But keep so many of the newest earlier versions."
    )
    transition_days: int | None = Field(
        default=None, ge=0, description="Move blobs over 128 KiB after so many days; empty for never."
    )
    transition_class: Literal[
        "INTELLIGENT_TIERING", "GLACIER_IR", "STANDARD_IA", "ONEZONE_IA", "GLACIER", "DEEP_ARCHIVE"
    ] = Field(default="INTELLIGENT_TIERING", description="The storage class that blobs are moved to.")
    transition_tag: tuple[str, str] | None = Field(
        default=None, description="Only blobs with this object tag: key and value."
    )
    accept_archived: bool = Field(
        default=False, description="Accept that archived blobs cannot be read until they are restored."
    )
    rules: tuple[Mapping[str, Any], ...] = Field(
        default=(), description="Further rules in AWS's own form; refused where they would break the store."
    )


class ArchiveTiers(_Group):
    """The archive tiers of INTELLIGENT_TIERING, which are off unless asked for."""

    archive_days: int | None = Field(default=None, ge=90, le=730, description="ARCHIVE_ACCESS, after days.")
    deep_archive_days: int | None = Field(
        default=None, ge=180, le=730, description="DEEP_ARCHIVE_ACCESS, after days."
    )
    accept_archived: bool = Field(
        default=False, description="Accept that blobs in these tiers cannot be read until they are restored."
    )


class AccessLogging(_Group):
    """Server access logs. Without a target bucket there are none."""

    target_bucket: str | None = Field(default=None, description="Another bucket, of the same region.")
    target_prefix: str = Field(default="s3-access/", description="What the keys of the logs begin with.")


class CloudTrail(_Group):
    """Data events of the store's objects in a trail that exists."""

    trail: str = Field(description="Name or ARN of the trail.")
    reads: bool = Field(default=True, description="Also reads, not only writes.")
    enabled: bool = Field(default=True, description="False takes our selector out of the trail.")


class Replication(_Group):
    """Copying of all new objects by S3. Without a target bucket our rule is taken away."""

    target_bucket: str | None = Field(default=None, description="A bucket with versioning.")
    role_arn: str | None = Field(default=None, description="The role that S3 assumes to copy.")
    target_account: str | None = Field(default=None, description="Account that owns the copies, if another.")
    storage_class: Literal["STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "GLACIER_IR"] | None = Field(
        default=None, description="Class of the copies; empty for that of the source."
    )
    target_kms_key_arn: str | None = Field(
        default=None, description="Key of the target's region; needed if objects here are encrypted by KMS."
    )

    @model_validator(mode="after")
    def _complete(self) -> Replication:
        if self.target_bucket and not self.role_arn:
            raise ValueError("target_bucket needs role_arn, the role that S3 assumes to copy")
        return self


class Notifications(_Group):
    """Messages about new records, which are written last: what they name is there. Empty: none of ours."""

    queue_arn: str | None = Field(default=None, description="ARN of the SQS queue.")
    create_queue: bool = Field(
        default=False,
        description="Create the queue and its dead letters if missing, and let the bucket send to it.",
    )
    max_receives: int = Field(
        default=5, ge=1, le=1_000, description="Times that a message comes before it is a dead letter."
    )
    folders: tuple[str, ...] = Field(
        default=("manifests/", "names/"), description="Folders of the store whose new records are told."
    )
    event_bridge: bool = Field(default=False, description="Send all events of the bucket to EventBridge.")


class Temporary(_Group):
    """Experiments that expire: by retention and collection, as a blob that is old may be in use."""

    tag: str = Field(default="temporary", description="Runs with this tag ...")
    value: Any = Field(default=True, description="... and this value of it")
    days: float = Field(default=30, gt=0, description="are removed so many days after they began.")

    def policy(self) -> RetentionPolicy:
        """The policy for ``apply_retention`` that removes them."""
        return RetentionPolicy(tags={self.tag: self.value}, keep_days=self.days)


class BucketSettings(_Group):
    """How the bucket of a store is to be set up; docs/bucket.md explains each field.

    What is left out (None) stays as it was last applied, and what never was is set as recommended, unless
    ``recommended`` is False: then it is left alone.
    """

    region: str | None = Field(default=None, description="Where the bucket is made, if there is none.")
    versioning: bool | None = Field(default=None, description="Keep what is overwritten or deleted.")
    encryption: Encryption | None = None
    block_public_access: bool | None = Field(default=None, description="No access by the public, ever.")
    ownership: Literal["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"] | None = Field(
        default=None, description="BucketOwnerEnforced: the bucket's owner owns all objects, without ACLs."
    )
    policy: Policy | None = None
    lifecycle: Lifecycle | None = None
    archive_tiers: ArchiveTiers | None = None
    acceleration: bool | None = Field(default=None, description="S3 Transfer Acceleration.")
    logging: AccessLogging | None = None
    cloudtrail: CloudTrail | None = None
    replication: Replication | None = None
    notifications: Notifications | None = None
    temporary: Temporary | None = None
    recommended: bool = Field(default=True, description="Set what was never said as recommended.")
    replace: tuple[Literal["encryption", "logging"], ...] = Field(
        default=(), description="Documents whose present value, set by others, may be weakened or replaced."
    )

    def over(self, applied: BucketSettings | None) -> BucketSettings:
        """These settings, with what they leave out as it was applied."""
        if applied is None:
            return self
        missing = {name: getattr(applied, name) for name in WISHES if getattr(self, name) is None}
        return self.model_copy(update=missing)

    def to_content(self) -> dict[str, Any]:
        """Map the wish, as far as it was said, onto plain JSON."""
        return self.model_dump(mode="json", include=set(WISHES), exclude_none=True)


WISHES = tuple(name for name in BucketSettings.model_fields if name not in ("recommended", "replace"))


def checked_settings(given: BucketSettings | Mapping[str, Any] | None) -> BucketSettings:
    """Admit settings, or a mapping of them; None says nothing. Raises InvalidInputError naming each fault."""
    if isinstance(given, BucketSettings):
        return given
    try:
        return BucketSettings.model_validate(given or {})
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidInputError(f"The settings of the bucket are not valid: {said}") from error
