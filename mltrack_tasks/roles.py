"""Who may do what: four roles, the tasks of each, and the IAM policy that allows just these.

Policies only allow, so that a person with two roles gets both documents. docs/access.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from mltrack_tasks import layout
from mltrack_tasks.bucket.naming import partition_of, root_of
from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.modelkeys import REGISTRY, VERSIONS

Role: TypeAlias = Literal["reader", "writer", "promoter", "admin"]
ROLES: tuple[Role, ...] = ("reader", "writer", "promoter", "admin")

PROBES = ".probe/"
WRITTEN: Mapping[str, tuple[str, ...]] = {
    "writer": (
        layout.FORMAT_KEY,
        *(
            PROBES,
            "arrivals/",
            "audits/",
            layout.CATALOG,
            layout.BLOBS,
            layout.MANIFESTS,
            "migrations/",
            VERSIONS,
        ),
        *(layout.NAMES, "runs/"),
    ),
    # The first write creates format.json once more, to see that the server refuses it for being there.
    "promoter": (layout.FORMAT_KEY, PROBES, REGISTRY),
}
"""Where a role may create objects: folders, and one key."""
SENT_IN_PARTS: Mapping[str, tuple[str, ...]] = {
    "writer": (PROBES, layout.BLOBS, VERSIONS),
    "promoter": (PROBES, REGISTRY),
}
"""Where a role may drop what was sent in parts and not completed."""
DELETED: Mapping[str, tuple[str, ...]] = {
    "writer": (
        *(PROBES, layout.CATALOG, layout.NAMES, layout.RUN_LOG),
        *(f"runs/{mode}/" for mode in layout.STORAGE_MODES if mode != "flat"),
        f"{VERSIONS}*/_deprecated/",
    ),
    "promoter": (PROBES,),
}
"""Where a role may delete: what is derived, names that are to be forgotten, and its own trials.

Of its trials it may remove each version, too: else they would stay for ever in a bucket that keeps versions.
"""

DOCUMENTS = (
    *("AccelerateConfiguration", "BucketLogging", "BucketNotification", "BucketOwnershipControls"),
    *("BucketPolicy", "BucketPublicAccessBlock", "BucketVersioning", "EncryptionConfiguration"),
    *("IntelligentTieringConfiguration", "LifecycleConfiguration", "ReplicationConfiguration"),
)
"""The documents of a bucket, as IAM's actions name them after Get and Put."""

Statement: TypeAlias = dict[str, Any]
_READS = ("s3:GetObject", "s3:ListMultipartUploadParts")
_KEY_ARN = re.compile(r"arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+")
_KEY_ID = re.compile(r"(?:mrk-)?[0-9a-f-]{30,}")


def check_role(role: object) -> Role:
    """Return ``role`` if it is one of ROLES, else raise InvalidInputError."""
    for known in ROLES:
        if role == known:
            return known
    raise InvalidInputError(f"There is no role {role!r:.40}; choose one of {', '.join(ROLES)}.")


def role_policy(
    role: str, bucket: str, prefix: str = "mltrack", *, kms_key: str | None = None, region: str | None = None
) -> dict[str, Any]:
    """Make the IAM policy of a role in one store of one bucket: the same document for the same arguments.

    ``kms_key`` (ARN, id or ``alias/name``) is the key of the store's objects, if it has one of its own;
    ``region`` tells China and GovCloud, whose ARNs begin in another way. Raises InvalidInputError for an
    unknown role, and for what is no bucket's name, prefix or key.
    """
    known = check_role(role)
    if not bucket or "/" in bucket:
        raise InvalidInputError(f"{bucket!r} is not a bucket's name (no slashes, no s3://).")
    partition = partition_of(region)
    place = _Place(f"arn:{partition}:s3:::{bucket}", root_of(layout.check_prefix(prefix)))
    statements = [*(_of_admin(place, partition) if known == "admin" else _of_others(place, known))]
    if kms_key:
        statements.append(_of_key(kms_key, partition, known))
    return {"Version": "2012-10-17", "Statement": statements}


class _Place:
    """A store's place, as ARNs: IAM takes ``*``, ``?`` and ``$`` of a prefix for its own signs."""

    def __init__(self, bucket: str, root: str) -> None:
        self.bucket, self.root = bucket, re.sub(r"[*?$]", r"${\g<0>}", root)

    def below(self, folders: Sequence[str]) -> list[str]:
        """What lies in folders; a key that is no folder is that key alone."""
        found = (f"{folder}*" if folder.endswith("/") else folder for folder in folders)
        return sorted(f"{self.bucket}/{self.root}{each}" for each in found)

    @property
    def all(self) -> str:
        """Every object of the store."""
        return f"{self.bucket}/{self.root}*"


def _allow(
    name: str, actions: Sequence[str] | str, resource: Sequence[str] | str, **condition: Any
) -> Statement:
    made: Statement = {"Sid": f"MLTrack{name}", "Effect": "Allow"}
    made["Action"] = actions if isinstance(actions, str) else sorted(actions)
    made["Resource"] = resource if isinstance(resource, str) else list(resource)
    return {**made, "Condition": condition} if condition else made


def _of_others(place: _Place, role: Role) -> Iterator[Statement]:
    yield _allow("Read", _READS, place.all)
    lists = ("s3:ListBucket", "s3:ListBucketVersions")
    asks = ["s3:ListBucketMultipartUploads"]
    if place.root:
        yield _allow("List", lists, place.bucket, StringLike={"s3:prefix": f"{place.root}*"})
        # Who may not list is told of a missing object that it is forbidden; that is asked without a prefix.
        yield _allow("TellMissing", "s3:ListBucket", place.bucket, Null={"s3:prefix": "true"})
    else:
        yield _allow("List", lists, place.bucket)
    if role == "reader":
        yield _allow("Ask", asks, place.bucket)
        return
    yield _allow("Ask", [*asks, "s3:GetBucketVersioning"], place.bucket)
    yield _allow("Create", "s3:PutObject", place.below(WRITTEN[role]))
    yield _allow("DropParts", "s3:AbortMultipartUpload", place.below(SENT_IN_PARTS[role]))
    yield _allow("Delete", "s3:DeleteObject", place.below(DELETED[role]))
    yield _allow("Trials", "s3:DeleteObjectVersion", place.below([PROBES]))


def _of_admin(place: _Place, partition: str) -> Iterator[Statement]:
    objects = ("AbortMultipartUpload", "DeleteObject", "GetObjectVersion", "PutObject")
    yield _allow("Objects", [*_READS, *(f"s3:{each}" for each in objects)], place.all)
    # Brings back what a collection deleted, and what lies in an archive: that costs money.
    yield _allow("Blobs", ("s3:DeleteObjectVersion", "s3:RestoreObject"), place.below([layout.BLOBS]))
    yield _allow("Trials", "s3:DeleteObjectVersion", place.below([PROBES]))
    whole = ("CreateBucket", "DeleteBucketPolicy", "ListBucket", "ListBucketMultipartUploads")
    documents = (f"s3:{verb}{each}" for verb in ("Get", "Put") for each in DOCUMENTS)
    yield _allow(
        "Bucket", [*documents, *(f"s3:{each}" for each in whole), "s3:ListBucketVersions"], place.bucket
    )
    selectors = ("cloudtrail:GetEventSelectors", "cloudtrail:PutEventSelectors")
    yield _allow("Trail", selectors, f"arn:{partition}:cloudtrail:*:*:trail/*")


def _of_key(key: str, partition: str, role: Role) -> Statement:
    """What S3 does with a key for whoever reads or writes; it decrypts parts to put them together."""
    actions = ["kms:Decrypt"] if role == "reader" else ["kms:Decrypt", "kms:GenerateDataKey"]
    via: dict[str, Any] = {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com*"}}
    anywhere = f"arn:{partition}:kms:*:*:key/"
    alias = key.rpartition(":")[2]
    if alias.startswith("alias/"):
        via["ForAnyValue:StringEquals"] = {"kms:ResourceAliases": alias}
        return _allow("Key", actions, f"{anywhere}*", **via)
    if _KEY_ARN.fullmatch(key):
        return _allow("Key", actions, key, **via)
    if _KEY_ID.fullmatch(key):
        return _allow("Key", actions, f"{anywhere}{key}", **via)
    raise InvalidInputError(f"{key!r:.80} is no KMS key: give its ARN, its id, or alias/name.")


_ALL_TASKS: Mapping[tuple[Role, ...], str] = {
    ("reader",): """
        await_restore data_usage_stats download_model estimate_costs find_existing find_runs_by_data
        finish_restore get_run list_data list_models list_runs load_model model_at model_history plan_restore
        query_data query_runs resolve_model restore_batch retrieve_data retrieve_file trace_lineage
    """,
    ("writer",): """
        compact_catalog copy_model delete_local_batch deprecate_version finish_migration forget_data
        plan_manifests plan_migration process_new_data rebuild_views register_model scan_source store_data
        store_file store_run upload_batch verify_batch verify_batches verify_store write_manifests
    """,
    ("promoter",): "promote_model remove_alias rollback_model set_policy",
    ("writer", "promoter"): "write_models",
    ("admin",): """
        apply_retention collect_garbage end_replication heal_store provision_bucket remove_data
        remove_migration remove_run remove_runs remove_version replicate_store restore_data undo_bucket_change
        undo_collection
    """,
    ROLES: "check_access",
}
TASKS: Mapping[str, tuple[Role, ...]] = {
    task: roles for roles, tasks in _ALL_TASKS.items() for task in tasks.split()
}
"""The roles that each task needs, all of them. ``check_access`` needs any one of its roles; ``write_models``
the second one only where MLflow's aliases come along; ``verify_store(keep=False)`` is for readers, too."""
