"""The ref: all that is needed to fetch one blob."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

from mltrack_tasks import canonical, layout
from mltrack_tasks.digest import check_digest, is_digest
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.fields import Fields

_REF_TEXT = re.compile(rf"sha256:[0-9a-f]{{64}}\.({'|'.join(map(re.escape, layout.FORMATS))})")
_REF = re.compile(r"(?:sha256:)?(?P<digest>[0-9a-f]{64})(?:\.(?P<format>[a-z0-9]+(?:\.[a-z0-9]+)?))?")


@dataclass(frozen=True)
class DataRef:
    """All that is needed to fetch one blob.

    ``name`` and ``created`` (True: newly written, False: already present) say how this ref came about and
    stand outside equality. ``str(ref)`` is ``sha256:<digest>.<format>`` and is accepted wherever a ref is.
    ``shape``, ``columns`` and ``dtypes`` describe frames and arrays.
    """

    hash: str
    format: str
    size_bytes: int
    storage_path: str
    name: str = field(default="data", compare=False)
    shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    if TYPE_CHECKING:
        created: bool = field(default=False, compare=False)
    else:
        # Not a field: Prefect's INPUTS policy hashes the fields, and the cache of a user's task must not
        # miss because the data was there already. Pickle and dataclasses.replace keep it.
        created: InitVar[bool] = False

        def __post_init__(self, created: bool) -> None:
            object.__setattr__(self, "created", created)

    def __str__(self) -> str:
        return f"sha256:{self.hash}.{self.format}"

    def __hash__(self) -> int:
        return hash((self.hash, self.format))

    def to_json(self) -> dict[str, Any]:
        """Map onto plain JSON; ``created`` is not part of it."""
        return {
            "hash": self.hash,
            "format": self.format,
            "size_bytes": self.size_bytes,
            "storage_path": self.storage_path,
            "name": self.name,
            "shape": _list_or_none(self.shape),
            "columns": _list_or_none(self.columns),
            "dtypes": _list_or_none(self.dtypes),
            "metadata": canonical.escape(dict(self.metadata), what="metadata"),
        }

    @classmethod
    def from_json(cls, raw: Any, *, what: str) -> DataRef:
        """Parse a ref out of a record; IntegrityError if any field is not what it must be."""
        fields = Fields(raw, what)
        digest, format = fields.text("hash"), fields.text("format")
        if not is_digest(digest) or format not in layout.FORMATS:
            raise IntegrityError(f"{what} does not name a blob: {digest!r}, {format!r}.")
        path = fields.text("storage_path")
        if path != layout.blob_key(digest, format):
            raise IntegrityError(f"{what} points to {path!r}, which is not the place of {digest}.")
        return cls(
            hash=digest,
            format=format,
            size_bytes=fields.size("size_bytes"),
            storage_path=path,
            name=fields.text("name"),
            shape=fields.sizes("shape"),
            columns=fields.texts("columns"),
            dtypes=fields.texts("dtypes"),
            metadata=fields.values("metadata"),
        )


def is_ref_text(value: object) -> bool:
    """Tell whether a value is a ref's text in full: ``sha256:<digest>.<format>``."""
    return isinstance(value, str) and _REF_TEXT.fullmatch(value) is not None


def parse_ref(text: str) -> tuple[str, str | None]:
    """Read ``sha256:<digest>.<format>`` or a bare digest -> (digest, format or None)."""
    match = _REF.fullmatch(text)
    if not match:
        raise InvalidInputError(
            f"{text!r:.80} is not a ref: expected 'sha256:<64 hex digits>.<format>' or a bare digest."
        )
    format = match["format"]
    return match["digest"], format and layout.check_choice(format, layout.FORMATS, "The format")


def refs_from_json(raw: Mapping[str, Any], *, what: str) -> dict[str, DataRef]:
    """Parse a mapping of names to refs out of a record."""
    return {name: DataRef.from_json(ref, what=f"{what}[{name!r}]") for name, ref in raw.items()}


def _list_or_none(values: tuple[Any, ...] | None) -> list[Any] | None:
    return None if values is None else list(values)


def blob_named(ref: DataRef | str) -> tuple[str, str | None]:
    """Read a ref, its text or a bare digest -> (digest, format or None); InvalidInputError otherwise."""
    if isinstance(ref, DataRef):
        return check_digest(ref.hash), layout.check_choice(ref.format, layout.FORMATS, "The format")
    if not isinstance(ref, str):
        raise InvalidInputError(f"{ref!r:.80} is not a ref: give a DataRef, its string or a digest.")
    return parse_ref(ref)
