"""Model versions: the record of one, and the digest of its tree of files.

A version is a tree of files. Its *tree digest* covers paths, digests and the executable bit, so that equal
trees are one version wherever and whenever they are registered; its id begins with the day of the first
registration and ends in the first digits of the tree digest.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import InitVar, dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mltrack_tasks import canonical, layout
from mltrack_tasks.digest import is_digest, sha256_hex
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.fields import Fields, parse_time
from mltrack_tasks.modelkeys import is_version
from mltrack_tasks.paths import path_bytes
from mltrack_tasks.records import Record
from mltrack_tasks.refs import DataRef, refs_from_json

MAX_FILES = 50_000
"""Files of one version: their list is read with each use of it."""


@dataclass(frozen=True)
class ModelFile:
    """One file of a version: where it lies in the tree, and the blob that holds its bytes.

    Bytes of ``path`` that are not UTF-8 stand in it as ``os.fsdecode`` gives them.
    """

    path: str
    digest: str
    format: str
    size_bytes: int
    executable: bool = False

    @property
    def shown_path(self) -> str:
        """The path as text that any JSON can hold: what is not UTF-8 in it becomes U+FFFD."""
        return path_bytes(self.path).decode("utf-8", "replace")

    def to_json(self) -> dict[str, Any]:
        """Map onto plain JSON; a path that is not UTF-8 becomes ``path_base64``."""
        return {**self.identity(), "format": self.format, "size_bytes": self.size_bytes}

    def identity(self) -> dict[str, Any]:
        """What the tree digest covers, as plain JSON."""
        return {**_place(self.path), "digest": self.digest, "executable": self.executable}

    @classmethod
    def from_json(cls, raw: Any, *, what: str) -> ModelFile:
        """Parse a file out of a record; IntegrityError if any field is not what it must be."""
        fields = Fields(raw, what)
        digest, format = fields.text("digest"), fields.text("format")
        if not is_digest(digest) or format not in layout.FORMATS:
            raise IntegrityError(f"{what} does not name a blob: {digest!r:.80}, {format!r:.80}.")
        if type(raw.get("executable")) is not bool:
            raise IntegrityError(f"{what}: executable should be true or false.")
        path = _path_from_json(raw, what)
        return cls(path, digest, format, fields.size("size_bytes"), raw["executable"])


def check_files(files: Iterable[ModelFile]) -> tuple[ModelFile, ...]:
    """Admit the files of a version -> sorted by the bytes of their paths.

    Raises InvalidInputError if there are none, if a path is not plainly relative, is longer than a key or
    stands twice, or if one file lies below another.
    """
    by_path = [(path_bytes(file.path), file) for file in files]
    for raw, file in by_path:
        if len(raw) > layout.MAX_KEY:  # also because looking above it takes the square of its length
            raise InvalidInputError(
                f"The path {file.path[:60]!r}... has {len(raw):,} bytes; no key could hold it."
            )
    by_path.sort(key=lambda item: item[0])
    places = {raw for raw, _ in by_path}
    if not by_path:
        raise InvalidInputError("A model version needs at least one file.")
    if len(places) != len(by_path):
        raise InvalidInputError("A path stands twice among the files of a model version.")
    for raw, file in by_path:
        if any(raw[:end] in places for end, byte in enumerate(raw) if byte == ord("/")):
            raise InvalidInputError(f"{file.path!r:.80} lies below another file of the model version.")
    return tuple(file for _, file in by_path)


def tree_digest(files: Iterable[ModelFile]) -> str:
    """Digest of a tree of files: SHA-256 of the canonical JSON list of their identities, by path."""
    return sha256_hex(canonical.dumps([file.identity() for file in check_files(files)]))


@dataclass(frozen=True)
class ModelVersion:
    """One immutable version of a model: its files by digest, and where it came from.

    ``source_runs`` are ids of the runs that made it, of this store or of the tracking server that it was
    taken from; ``training_data`` names refs. ``mlflow`` is what its ``MLmodel`` says, if it has one: flavors,
    signature, requirements. ``extra`` keeps fields that a newer writer added.

    What is not in the record: ``s3_location``, the folder with its real files under their own names, or None
    while there is none; ``deprecated``, the reason if it was taken out of use; ``created``, False when the
    same version was there already.
    """

    model: str
    version: str
    tree_digest: str
    files: tuple[ModelFile, ...]
    source_runs: tuple[str, ...] = ()
    training_data: Mapping[str, DataRef] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    mlflow: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    s3_location: str | None = field(default=None, compare=False)
    deprecated: str | None = field(default=None, compare=False)
    if TYPE_CHECKING:
        created: bool = field(default=False, compare=False)
    else:
        created: InitVar[bool] = False  # not a field, for the reason given at DataRef.created

        def __post_init__(self, created: bool) -> None:
            object.__setattr__(self, "created", created)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def registered_at(self) -> datetime:
        """When the version was first registered, by the writer's clock."""
        return parse_time(self.provenance.get("at"), "provenance.at")

    def __hash__(self) -> int:
        return hash((self.model, self.version))

    def to_content(self) -> dict[str, Any]:
        """Map onto the record's content: plain canonical JSON."""
        return {
            **self.extra,
            "model": self.model,
            "version": self.version,
            "tree_digest": self.tree_digest,
            "files": [file.to_json() for file in check_files(self.files)],
            "source_runs": sorted(set(self.source_runs)),
            "training_data": {name: ref.to_json() for name, ref in self.training_data.items()},
            **{key: canonical.escape(dict(getattr(self, key)), what=key) for key in _VALUE_FIELDS},
            "description": self.description,
        }

    @classmethod
    def from_record(cls, record: Record, *, what: str) -> ModelVersion:
        """Parse a version's record; IntegrityError names the field that is not what it must be.

        The id must belong to the tree digest, and the tree digest to the files.
        """
        fields = Fields(record.content, what)
        values: dict[str, Any] = {key: fields.values(key) for key in _VALUE_FIELDS}
        return cls(
            model=fields.name("model"),
            version=fields.text("version"),
            tree_digest=fields.text("tree_digest"),
            files=_files_of(fields, what),
            source_runs=_names_of(fields, "source_runs", what),
            training_data=refs_from_json(fields.named("training_data"), what=f"{what}: training_data"),
            **values,
            description=fields.optional_text("description"),
            extra={key: value for key, value in record.content.items() if key not in _FIELDS},
            provenance=record.provenance,
        )


def own_copy(version: ModelVersion) -> ModelVersion:
    """Copy a version, so that whoever is given it may change its mappings and nobody else sees that."""
    mappings: dict[str, Any] = {
        each.name: deepcopy(value)
        for each in fields(version)
        if isinstance(value := getattr(version, each.name), Mapping)
    }
    return replace(version, **mappings, created=version.created)


_VALUE_FIELDS = ("metrics", "params", "tags", "metadata", "mlflow")


def _files_of(fields: Fields, what: str) -> tuple[ModelFile, ...]:
    """Files that are a tree, whose digest and id are those of the record."""
    read = [
        ModelFile.from_json(raw, what=f"{what}: files[{number}]")
        for number, raw in enumerate(fields.items("files"))
    ]
    try:
        files = check_files(read)
    except InvalidInputError as error:
        raise IntegrityError(f"{what}: {error}") from error
    digest, version = tree_digest(files), fields.text("version")
    if fields.text("tree_digest") != digest:
        raise IntegrityError(f"{what}: its files have the tree digest {digest}, and it says another.")
    if not is_version(version) or not digest.startswith(version.partition("_")[2]):
        raise IntegrityError(f"{what}: {version!r:.80} is not an id of the tree {digest}.")
    return files


def _names_of(fields: Fields, key: str, what: str) -> tuple[str, ...]:
    """Read a list of names -> sorted, each once; every one passes the key gate."""
    each = (Fields({key: name}, what).name(key) for name in fields.items(key))
    return tuple(sorted(set(each)))


def _place(path: str) -> dict[str, str]:
    """The one spelling of a path in JSON."""
    raw = path_bytes(path)
    try:
        return {"path": raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {"path_base64": base64.b64encode(raw).decode()}


def _path_from_json(raw: Mapping[str, Any], what: str) -> str:
    """Read a path through its gate; only the one spelling, so that equal trees are equal content."""
    given = {key: raw[key] for key in ("path", "path_base64") if key in raw}
    path = given.get("path")
    try:
        if "path_base64" in given:
            encoded = Fields(given, what).text("path_base64")
            path = base64.b64decode(encoded, validate=True).decode("utf-8", "surrogateescape")
        if isinstance(path, str) and _place(path) == given:
            return path
    except ValueError as error:  # InvalidInputError is one
        raise IntegrityError(f"{what}: {error}") from error
    raise IntegrityError(f"{what} does not spell a path as this library does: {given!r:.80}.")


_FIELDS = frozenset(ModelVersion("x", "x", "x", (ModelFile("x", "0" * 64, "bin", 0),)).to_content())
