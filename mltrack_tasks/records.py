"""Records: small immutable JSON objects, and the values that they carry.

Every record is ``{"format": 1, "content": {...}, "provenance": {...}}`` in canonical bytes. ``content`` is
what is compared when two writers meet; ``provenance`` (time, actor, host, flow run, versions) is not.
Records that come from a bucket are hostile until parsed here: each field is checked by type and by gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mltrack_tasks import canonical, layout
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import FormatError, IntegrityError
from mltrack_tasks.fields import Fields, format_time, parse_time
from mltrack_tasks.refs import DataRef, refs_from_json

FORMAT = 1
MAX_RECORD_SIZE = 64 * 1024 * 1024
"""Largest record [bytes] that is read: a guard against a hostile bucket, far above any record written."""


@dataclass(frozen=True)
class Record:
    """A parsed record: what is compared, and where it came from."""

    content: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """Encode -> canonical bytes."""
        return canonical.dumps({"format": FORMAT, "content": self.content, "provenance": self.provenance})

    @property
    def content_digest(self) -> str:
        """Digest of the canonical bytes of ``content``."""
        return sha256_hex(canonical.dumps(self.content))

    @property
    def stored_at(self) -> datetime:
        """When the record was written, by the writer's clock."""
        return parse_time(self.provenance.get("at"), "provenance.at")

    @classmethod
    def from_bytes(cls, body: bytes, *, what: str) -> Record:
        """Parse bytes -> record; FormatError on a newer format, IntegrityError on anything malformed."""
        if len(body) > MAX_RECORD_SIZE:
            raise IntegrityError(f"{what} is larger than {MAX_RECORD_SIZE:,} bytes; no record is.")
        if many := canonical.too_many_values(body):
            raise IntegrityError(
                f"{what} holds {many:,} values in {len(body):,} bytes; no record does. It was forged or "
                "damaged: restore it from a copy."
            )
        raw = canonical.loads(body, what=what)
        if not isinstance(raw, dict) or type(raw.get("format")) is not int:
            raise IntegrityError(f"{what} is not a record: it has no format number.")
        check_format(raw["format"], what)
        content, provenance = raw.get("content"), raw.get("provenance")
        if not isinstance(content, dict) or not isinstance(provenance, dict):
            raise IntegrityError(f"{what} is not a record: content or provenance is missing.")
        return cls(content, provenance)


def check_format(number: int, what: str) -> None:
    """Raise FormatError unless this version reads format ``number``."""
    if number != FORMAT:
        raise FormatError(
            f"{what} has format {number}; this version of mltrack_tasks reads format {FORMAT}. "
            "Upgrade mltrack_tasks."
        )


@dataclass(frozen=True)
class NamedData:
    """One thing that was stored under a name outside a run: its ref (with the user's metadata) and when."""

    name: str
    ref: DataRef
    stored_at: datetime

    @staticmethod
    def content_of(name: str, ref: DataRef) -> dict[str, Any]:
        """Content of the record that names ``ref``."""
        return {"name": name, "ref": ref.to_json()}

    @classmethod
    def from_record(cls, record: Record, *, what: str) -> NamedData:
        """Parse a record under ``names/``."""
        fields = Fields(record.content, what)
        return cls(
            fields.name("name"),
            DataRef.from_json(record.content.get("ref"), what=what),
            record.stored_at,
        )


@dataclass(frozen=True)
class RunManifest:
    """What one run was: its data by ref, and what describes it.

    ``values`` holds the small JSON values of ``data`` again, inlined, so that they can be searched without
    fetching blobs. ``extra`` keeps fields that a newer writer added. ``created`` is False when the same
    manifest was there already.
    """

    run_id: str
    run_type: str = "experiment"
    status: str = "finished"
    storage_modes: tuple[str, ...] = ("by_project",)
    project: str | None = None
    model: str | None = None
    data: Mapping[str, DataRef] = field(default_factory=dict)
    inputs: Mapping[str, DataRef] = field(default_factory=dict)
    outputs: Mapping[str, DataRef] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    revision: int = field(default=1, compare=False)
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    if TYPE_CHECKING:
        created: bool = field(default=False, compare=False)
    else:
        created: InitVar[bool] = False  # not a field, for the reason given at DataRef.created

        def __post_init__(self, created: bool) -> None:
            object.__setattr__(self, "created", created)

    @property
    def data_refs(self) -> dict[str, DataRef]:
        """The refs of ``data`` by name."""
        return dict(self.data)

    @property
    def all_refs(self) -> list[DataRef]:
        """Every ref of the run, each blob once, in the order data, inputs, outputs."""
        refs = [*self.data.values(), *self.inputs.values(), *self.outputs.values()]
        return list({(ref.hash, ref.format): ref for ref in refs}.values())

    @property
    def stored_at(self) -> datetime:
        """When this revision was stored, by the writer's clock."""
        return parse_time(self.provenance.get("at"), "provenance.at")

    def __hash__(self) -> int:
        return hash(self.run_id)

    def to_content(self) -> dict[str, Any]:
        """Map onto the record's content: plain canonical JSON."""
        return {
            **self.extra,
            "run_id": self.run_id,
            "run_type": self.run_type,
            "status": self.status,
            "storage_modes": list(self.storage_modes),
            "project": self.project,
            "model": self.model,
            **{key: _refs_to_json(getattr(self, key)) for key in _REF_FIELDS},
            **{key: canonical.escape(dict(getattr(self, key)), what=key) for key in _VALUE_FIELDS},
            "started_at": format_time(self.started_at),
            "ended_at": format_time(self.ended_at),
        }

    @classmethod
    def from_record(cls, record: Record, *, revision: int, what: str) -> RunManifest:
        """Parse a manifest; IntegrityError names the field that is not what it must be."""
        fields = Fields(record.content, what)
        modes = fields.texts("storage_modes") or ()
        for mode in modes:
            fields.choice(mode, layout.STORAGE_MODES, "storage mode")
        refs: dict[str, Any] = {k: refs_from_json(fields.named(k), what=f"{what}: {k}") for k in _REF_FIELDS}
        values: dict[str, Any] = {key: fields.values(key) for key in _VALUE_FIELDS}
        return cls(
            run_id=fields.name("run_id"),
            run_type=fields.choice(fields.text("run_type"), layout.RUN_TYPES, "run type"),
            status=fields.text("status"),
            storage_modes=modes,
            project=fields.optional_name("project"),
            model=fields.optional_name("model"),
            **refs,
            **values,
            started_at=fields.optional_time("started_at"),
            ended_at=fields.optional_time("ended_at"),
            extra={key: value for key, value in record.content.items() if key not in _RUN_FIELDS},
            revision=revision,
            provenance=record.provenance,
        )


_REF_FIELDS = ("data", "inputs", "outputs")
_VALUE_FIELDS = ("values", "params", "metrics", "tags")


def _refs_to_json(refs: Mapping[str, DataRef]) -> dict[str, Any]:
    return {name: ref.to_json() for name, ref in refs.items()}


_RUN_FIELDS = frozenset(RunManifest(run_id="x").to_content())
