"""The tree in the bucket: names <-> key segments, meanings <-> keys. docs/format.md describes it.

Two gates. The *key gate* (``encode_segment``/``decode_segment``) makes any name of a run, project, model,
alias or data item one safe key segment. The *path gate* (``check_path``) admits file paths that stand inside
records. Both are used when writing and when reading, so that a hostile bucket cannot name a key outside the
store or a file outside its target.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from urllib.parse import quote, unquote_to_bytes

from mltrack_tasks.digest import check_digest, is_digest
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.formats import DESCRIBED_FORMATS as DESCRIBED_FORMATS
from mltrack_tasks.formats import FORMATS as FORMATS

FORMAT_KEY = "format.json"
BLOBS = "data/"
NAMES = "names/"
MANIFESTS = "manifests/"
RUN_LOG = "runs/log/"
PINS = "runs/by_data/"
GC_DELETING = "gc/deleting/"
CATALOG = "catalog/"

RUN_TYPES = ("experiment", "production", "evaluation", "development", "analysis")
STATUSES = ("running", "finished", "failed", "killed", "scheduled")
"""MLflow's run statuses, in lower case."""
STORAGE_MODES = ("by_project", "by_date", "by_type", "by_model", "flat")

MAX_SEGMENT = 200
"""Encoded bytes of one name. File systems take 255 and a revision or ``.json`` still has to fit."""
MAX_KEY = 900
"""Bytes of a whole key, prefix included. S3 takes 1,024; promoted files and pins need room below a name."""

_UNSPEAKABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and surrogates: the categories Cc and Cs of Unicode."""
MAX_PREFIX = 400
"""Bytes of a store's prefix: the longest key below it, with two names in it, still fits into MAX_KEY."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BATCH = re.compile(re.escape(GC_DELETING) + r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.json")
_REVISION = re.compile(r"(?P<segment>[^~]+)(?:~(?P<number>[0-9]{8}))?")
_LOG_ENTRY = re.compile(re.escape(RUN_LOG) + r"(?P<day>[^/]+)/(?P<segment>[^~/]+)~(?P<number>[0-9]{8})")
_NAME_PIN = "~name~"
_MIGRATION_PIN = "~migration~"
_MODEL_PIN = "~model~"


def encode_segment(name: str, *, what: str = "name") -> str:
    """Encode a name -> one key segment: bytes outside ``[A-Za-z0-9._-]`` become ``%XX``.

    Raises InvalidInputError for ``.``, ``..``, the empty name, control characters, lone surrogates and names
    whose segment is longer than MAX_SEGMENT bytes.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"{what} must be a string, not {type(name).__name__}: {name!r}.")
    if name in ("", ".", ".."):
        raise InvalidInputError(f"{what} {name!r} cannot be a name; choose another.")
    if _UNSPEAKABLE.search(name):
        raise InvalidInputError(f"{what} {name!r} holds a control character or lone surrogate; remove it.")
    segment = quote(name, safe="").replace("~", "%7E")
    if len(segment) > MAX_SEGMENT:
        raise InvalidInputError(
            f"{what} {name[:40]!r}... takes {len(segment)} bytes as a key segment; "
            f"the limit is {MAX_SEGMENT}. Shorten it (outside A-Z a-z 0-9 . _ - each byte of UTF-8 takes 3)."
        )
    return segment


def decode_segment(segment: str) -> str:
    """Decode a key segment -> the name; IntegrityError unless ``encode_segment`` wrote it."""
    try:
        name = unquote_to_bytes(segment).decode("utf-8")
        valid = encode_segment(name) == segment
    except (UnicodeError, InvalidInputError):
        valid = False
    if not valid:
        raise IntegrityError(f"{segment!r} is not a name that this library wrote.")
    return name


def check_path(path: str) -> str:
    """Admit a relative file path as it stands in a record, or raise InvalidInputError.

    No empty, ``.``, ``..`` or NUL segment, no leading or trailing slash; all else is verbatim.
    """
    if not isinstance(path, str) or not path:
        raise InvalidInputError(f"{path!r} is not a file path.")
    if "\0" in path:
        raise InvalidInputError(f"The path {path!r} holds a NUL character.")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise InvalidInputError(
                f"The path {path!r} is not plainly relative: it has the segment {part!r}."
            )
    return path


def is_batch_key(key: str) -> bool:
    """Tell whether a key is that of an open batch of deletions."""
    return _BATCH.fullmatch(key) is not None


def check_prefix(prefix: str) -> str:
    """Admit a store's prefix (``a/b``, or empty for the bucket's root), without slashes at its ends."""
    if not isinstance(prefix, str):
        raise InvalidInputError(f"The prefix must be a string, not {prefix!r}.")
    stripped = prefix.strip("/")
    for part in stripped.split("/") if stripped else ():
        if part in ("", ".", "..") or _UNSPEAKABLE.search(part):
            raise InvalidInputError(
                f"The prefix {prefix!r} has the segment {part!r}; use plain folder names."
            )
    if len(stripped.encode()) > MAX_PREFIX:
        raise InvalidInputError(
            f"The prefix {prefix[:60]!r}... takes more than {MAX_PREFIX} bytes; keys below it would not fit."
        )
    return stripped


def check_key(key: str, prefix: str = "") -> str:
    """Admit a key relative to the store, or raise InvalidInputError: the last guard before the wire.

    Control characters and lone surrogates are refused too: not every store can spell them.
    """
    check_path(key)
    if _UNSPEAKABLE.search(key):
        raise InvalidInputError(f"The key {key[:60]!r} holds a control character or lone surrogate.")
    size = len(key.encode()) + (len(prefix.encode()) + 1 if prefix else 0)
    if size > MAX_KEY:
        raise InvalidInputError(
            f"The key {key[:60]!r}... has {size} bytes; the limit is {MAX_KEY}. "
            "Use shorter names or a shorter prefix."
        )
    return key


def check_choice(value: object, choices: tuple[str, ...], what: str) -> str:
    """Return ``value`` if it is one of ``choices``, else raise InvalidInputError listing them."""
    if isinstance(value, str) and value in choices:
        return str(value)
    raise InvalidInputError(f"{what} {value!r} is unknown; choose one of {', '.join(choices)}.")


def blob_folder(digest: str) -> str:
    """Folder of all that exists under one digest, ending in ``/``."""
    return f"{BLOBS}{check_digest(digest)[:2]}/{digest}/"


def blob_key(digest: str, format: str) -> str:
    """Key of a blob."""
    return f"{blob_folder(digest)}data.{check_choice(format, FORMATS, 'The format')}"


def blob_metadata_key(digest: str) -> str:
    """Key of the description of a blob."""
    return f"{blob_folder(digest)}metadata.json"


def blob_parts_key(digest: str) -> str:
    """Key of the record of a blob that was written in parts."""
    return f"{blob_folder(digest)}multipart.json"


def parse_blob_key(key: str) -> tuple[str, str] | None:
    """Read a key -> (digest, format), or None if it is not the key of a blob."""
    parts = key.split("/")
    if len(parts) != 4 or not is_digest(parts[2]) or not parts[3].startswith("data."):
        return None
    format = parts[3].removeprefix("data.")
    return (parts[2], format) if format in FORMATS and key == blob_key(parts[2], format) else None


def name_folder(name: str) -> str:
    """Folder of all records of one data name, ending in ``/``."""
    return f"{NAMES}{encode_segment(name, what='The data name')}/"


def name_key(name: str, content_digest: str) -> str:
    """Key of one record of named data."""
    return f"{name_folder(name)}{check_digest(content_digest)}.json"


def parse_name_key(key: str) -> tuple[str, str] | None:
    """Read a key -> (name, digest of the record's content), or None."""
    parts = key.split("/")
    if len(parts) != 3 or f"{parts[0]}/" != NAMES or not parts[2].endswith(".json"):
        return None
    digest = parts[2].removesuffix(".json")
    try:
        return (decode_segment(parts[1]), digest) if is_digest(digest) else None
    except IntegrityError:
        return None


def revision_segment(run_id: str, revision: int) -> str:
    """``<run id>`` for the first revision, ``<run id>~00000002`` for the second."""
    segment = encode_segment(run_id, what="The run id")
    if not 1 <= revision <= 99_999_999:
        raise InvalidInputError(f"{revision} is not a revision number (1 to 99,999,999).")
    return segment if revision == 1 else f"{segment}~{revision:08d}"


def parse_revision_segment(segment: str) -> tuple[str, int]:
    """Read ``<run id>[~number]`` -> (run id, revision); IntegrityError if it is of another form."""
    match = _REVISION.fullmatch(segment)
    number = int(match["number"] or 1) if match else 0
    if not match or number < 1 or (match["number"] and number == 1):
        raise IntegrityError(f"{segment!r} is not a run id with a revision.")
    return decode_segment(match["segment"]), number


def manifest_key(run_id: str, revision: int = 1) -> str:
    """Key of a run's manifest."""
    return f"{MANIFESTS}{revision_segment(run_id, revision)}.json"


def log_key(stored_at: datetime, run_id: str, revision: int) -> str:
    """Key of the run log's entry: ``<run id>~<revision>`` under the day (UTC) of storing."""
    segment = encode_segment(run_id, what="The run id")
    return f"{RUN_LOG}{utc_day(stored_at)}/{segment}~{revision:08d}"


def parse_manifest_key(key: str) -> tuple[str, int] | None:
    """Read a key -> (run id, revision), or None if it is not the key of a manifest."""
    if not key.startswith(MANIFESTS) or not key.endswith(".json"):
        return None
    try:
        return parse_revision_segment(key.removeprefix(MANIFESTS).removesuffix(".json"))
    except IntegrityError:
        return None


def parse_log_key(key: str) -> tuple[str, int] | None:
    """Read a key -> (run id, revision), or None if it is not an entry of the run log."""
    match = _LOG_ENTRY.fullmatch(key)
    if match is None or int(match["number"]) == 0:
        return None
    try:
        parse_day(match["day"])
        return decode_segment(match["segment"]), int(match["number"])
    except IntegrityError:
        return None


def pin_folder(digest: str) -> str:
    """Folder of the reverse index of one digest, ending in ``/``."""
    return f"{PINS}{check_digest(digest)[:2]}/{digest}/"


def run_pin_key(digest: str, run_id: str) -> str:
    """Key of the pin by which a run holds a blob."""
    return pin_folder(digest) + encode_segment(run_id, what="The run id")


def name_pin_key(digest: str, name: str) -> str:
    """Key of the pin by which a data name holds a blob; no run id begins with ``~``."""
    return pin_folder(digest) + _NAME_PIN + encode_segment(name, what="The data name")


def migration_pin_key(digest: str, migration: str) -> str:
    """Key of the pin by which a migration holds a blob that it is about to list."""
    return pin_folder(digest) + _MIGRATION_PIN + encode_segment(migration, what="The migration's name")


def model_pin_key(digest: str, model: str) -> str:
    """Key of the pin by which the versions of a model hold a blob."""
    return pin_folder(digest) + _MODEL_PIN + encode_segment(model, what="The model")


def run_of_pin(key: str) -> str | None:
    """Read a pin's key -> the run id, or None when a data name, a migration or a model holds it."""
    last = key.rsplit("/", 1)[-1]
    return None if last.startswith((_NAME_PIN, _MIGRATION_PIN, _MODEL_PIN)) else decode_segment(last)


def view_key(mode: str, value: str, run_id: str) -> str:
    """Key of one entry of a view: an empty object named by the run."""
    check_choice(mode, STORAGE_MODES[:-1], "The storage mode")
    segment = encode_segment(value, what=f"The {mode.removeprefix('by_')}")
    return f"runs/{mode}/{segment}/{encode_segment(run_id, what='The run id')}"


def utc_day(moment: datetime) -> str:
    """Day of a moment in UTC: ``yyyy-mm-dd``."""
    return moment.astimezone(UTC).date().isoformat()


def parse_day(text: str) -> date:
    """Read ``yyyy-mm-dd`` -> date; IntegrityError otherwise."""
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise IntegrityError(f"{text!r} is not a day of the form yyyy-mm-dd.")
