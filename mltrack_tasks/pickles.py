"""Which files of a tree hold pickled Python, and what would these import? Nothing of them is run.

Whoever unpickles a file runs what its author wrote. A file may be a pickle whatever its name is, so files
are known by their bytes first and by their names as well. What cannot be looked into counts.

The Lambda layers of Keras count as well: their bytecode is marshalled, and runs as a pickle does. They
are seen in the ``config.json`` of a ``.keras``, and in the first MiB of an HDF5 file, where Keras writes
its description, if that is spelt as Keras spells it.

Not seen: layers of other names that are made of functions; pickles that HDF5, Parquet and other formats
keep as values inside; TensorFlow's SavedModel; and Python source beside a model.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from posixpath import basename, dirname, join
from typing import Any, BinaryIO

from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.picklebytes import (
    CLOSED,
    HEAD,
    MAX_READ,
    MORE,
    ZIP,
    BrokenError,
    Reader,
    payload,
    reason_of,
)
from mltrack_tasks.picklemodels import BY_LAMBDA, BY_MLMODEL, has_lambda, mlmodel_says_so
from mltrack_tasks.pickleops import split

Open = Callable[[str], BinaryIO]
Found = tuple[str | None, str]
"""A member, or None for the file itself, and the reason."""

MAX_SCAN = 32 << 20
"""[bytes] of a pickle that picklescan is given."""
MAX_MEMBERS = 10_000
MAX_NESTED = 4 << 20
"""[bytes] of a zip inside a zip."""
INSIDE = "!/"
"""Between the name of a zip inside a zip and that of its member, and of a file and its member in texts."""

BY_NAME, UNSCANNED = "its name", "cannot be scanned"

_NAMES = re.compile(
    r".*\.(pkl|pickle|pckl|pk|p|cpkl|joblib|jbl|dill|cloudpickle|pt|pth|ckpt)"
    r"(\.(gz|bz2|xz|z|lzma|zst|lz4|zip|7z))?[. ]*",
    re.IGNORECASE | re.DOTALL,
)
_KINDS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""zipfile bounds what comes out of these in one read; of bzip2 and LZMA it does not."""
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, BrokenError, EOFError, NotImplementedError, RuntimeError, ValueError),
    *(LookupError, OverflowError, struct.error),
)
"""What zipfile raises for malformed, encrypted and unknown zips."""


@dataclass(frozen=True)
class Pickled:
    """A place with pickled Python: a file, or a ``member`` of one that is a zip; and how it was known."""

    path: str
    member: str | None
    reason: str

    def __str__(self) -> str:
        return self.path if self.member is None else f"{self.path}{INSIDE}{self.member}"


def find_pickles(files: Mapping[str, int], open: Open) -> list[Pickled]:
    """Look for pickled Python in files: path -> size [bytes] -> what was found, ordered by path.

    ``open``: path -> a seekable reader. Of a file that is none, about 100 KB are read, and of a zip its
    directory and the start of each member. Counted are: pickles of any protocol, by bytes or opcodes; names
    such as ``.pkl`` and ``.pt``; ``.npy`` with objects; members of a zip that are so (also of a zip in it);
    what gzip, bzip2, xz or zlib made of these; an ``MLmodel`` that says so, or cannot be read; Lambda
    layers of Keras; and containers that are broken, encrypted, too large or of a kind that is not looked
    into (tar, 7z, rar, zstd, lz4).

    What ``open`` and its reader raise goes through.
    """
    return [found for path in sorted(files) for found in _of_file(path, files[path], open)]


def _of_file(path: str, size: int, open: Open) -> Iterator[Pickled]:
    found: dict[Found, None] = {}
    with open(path) as file:
        reader = Reader(file, size)
        try:
            for each in _looked(path, reader):
                found[each] = None
        except _BROKEN:
            found[None, CLOSED] = None
        if reader.failed:
            raise reader.failed[0]
    if not found and _NAMES.fullmatch(path):
        found[None, BY_NAME] = None
    yield from (Pickled(path, member, reason) for member, reason in found)


def _looked(path: str, reader: Reader) -> Iterator[Found]:
    if basename(path) == "MLmodel":
        yield from _of_mlmodel(reader)
    reason = reason_of(reader, reader.size)
    if reason is not None:
        yield None, reason
    reader.seek(0)
    starts_so = reader.read(4) in ZIP
    if starts_so or zipfile.is_zipfile(reader):
        try:
            archive = zipfile.ZipFile(reader)
        except _BROKEN:
            if starts_so:
                raise
            return  # the mark of a zip's end may be among any bytes
        with archive:
            yield from _members(archive, reader.spend)


def _of_mlmodel(reader: Reader) -> Iterator[Found]:
    data = reader.start(MAX_READ + 1)
    try:
        if len(data) > MAX_READ or mlmodel_says_so(data):
            yield None, BY_MLMODEL if len(data) <= MAX_READ else CLOSED
    except IntegrityError:
        yield None, CLOSED


def _members(archive: zipfile.ZipFile, spend: Callable[[int], None], above: str = "") -> Iterator[Found]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS or len({each.filename for each in members}) < len(members):
        yield above.removesuffix(INSIDE) or None, CLOSED  # of two with one name, readers take different ones
        return
    for member in members:
        name = above + member.filename
        try:
            found = list(_of_member(archive, member, spend, above))
        except _BROKEN:
            found = [(name, CLOSED)]
        if not found and _NAMES.fullmatch(member.filename):
            found = [(name, BY_NAME)]
        yield from found


def _of_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, spend: Callable[[int], None], above: str
) -> Iterator[Found]:
    if member.compress_type not in _KINDS:
        raise NotImplementedError
    name = above + member.filename
    reason: str | None = None
    for most in (HEAD, MORE):
        data = _start(archive, member, most, spend)
        cut = len(data) == most
        reason = reason_of(io.BytesIO(data), len(data), cut=cut, most=member.file_size)
        if reason is None or not cut:
            break
    if reason is not None:
        yield name, reason
    if basename(name) == "config.json" and has_lambda(_start(archive, member, MAX_READ, spend)):
        yield name, BY_LAMBDA
    if data.startswith(ZIP) or (member.file_size <= MORE and b"PK\x05\x06" in data):
        yield from _nested(archive, member, spend, above)


def _nested(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, spend: Callable[[int], None], above: str
) -> Iterator[Found]:
    data = _start(archive, member, MAX_NESTED + 1, spend)
    if above or len(data) > MAX_NESTED:
        raise NotImplementedError
    try:
        inner = zipfile.ZipFile(Reader(io.BytesIO(data), len(data)))
    except _BROKEN:
        if data.startswith(ZIP):
            raise
        return
    with inner:
        yield from _members(inner, spend, member.filename + INSIDE)


def _start(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int, spend: Callable[[int], None]
) -> bytes:
    with archive.open(member) as stream:
        data = stream.read(most)
    spend(len(data))
    return data


def dangerous_globals(found: Sequence[Pickled], files: Mapping[str, int], open: Open) -> list[str]:
    """Name what the pickles in ``found`` would import that is not known to be harmless; nothing is imported.

    One text each, such as ``model.pkl: posix.system``. Harmless is what picklescan calls innocuous, and
    nothing else. What cannot be scanned is named as well: more than 32 MiB, other bytes after a pickle (as
    joblib and older PyTorch write), containers that were not looked into, Lambda layers, and an ``MLmodel``
    that says so where no file in its folder was found to be a pickle.

    InvalidInputError if picklescan is not installed (extra ``scan``).
    """
    if not found:
        return []
    scan = _picklescan()
    texts: dict[str, None] = {}
    for each in found:
        texts.update((f"{each}: {name}", None) for name in _imported(each, found, files, open, scan))
    return list(texts)


def _imported(
    each: Pickled,
    found: Sequence[Pickled],
    files: Mapping[str, int],
    open: Open,
    scan: Callable[[bytes], list[str]],
) -> list[str]:
    if each.reason == BY_MLMODEL:
        folder = join(dirname(each.path), "")
        if any(other.path.startswith(folder) and other.reason != BY_MLMODEL for other in found):
            return []
        return [f"{UNSCANNED} (its pickle was not found)"]
    if each.reason in (CLOSED, BY_LAMBDA):
        return [f"{UNSCANNED} ({each.reason})"]
    with open(each.path) as file:
        reader = Reader(file, files[each.path])
        try:
            # picklescan keeps the memo from one pickle to the next, as one unpickler does that loads them
            # all; but mostly each has its own, so they are scanned apart as well.
            data = payload(_whole(reader, each.member), MAX_SCAN)
            return sorted({name for part in {*split(data), data} for name in scan(part)})
        except _BROKEN as error:
            if reader.failed:
                raise reader.failed[0] from None
            return [f"{UNSCANNED} ({error})" if str(error) else UNSCANNED]


def _whole(reader: Reader, member: str | None) -> bytes:
    if member is None:
        if reader.size > MAX_SCAN:
            raise ValueError("too large")
        return reader.start(MAX_SCAN)
    outer, inside, inner = member.partition(INSIDE)
    with zipfile.ZipFile(reader) as archive:
        if not inside or member in archive.namelist():
            return _member(archive, member)
        data = _member(archive, outer)
    with zipfile.ZipFile(Reader(io.BytesIO(data), len(data))) as archive:
        return _member(archive, inner)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as stream:
        if archive.getinfo(name).compress_type not in _KINDS:
            raise NotImplementedError
        data = stream.read(MAX_SCAN + 1)
    if len(data) > MAX_SCAN:
        raise ValueError("too large")
    return data


def _picklescan() -> Callable[[bytes], list[str]]:
    """Import it -> a function: bytes of pickles -> the names that are not innocuous."""
    try:
        from picklescan.scanner import SafetyLevel, scan_pickle_bytes
    except ImportError as error:
        raise InvalidInputError(
            "Scanning pickles needs picklescan: pip install 'mltrack_tasks[scan]'."
        ) from error

    def scan(data: bytes) -> list[str]:
        result: Any = scan_pickle_bytes(io.BytesIO(data), "a pickle")
        names = [
            f"{each.module}.{each.name}" for each in result.globals if each.safety != SafetyLevel.Innocuous
        ]
        return [*names, UNSCANNED] if result.scan_err else names

    return scan
