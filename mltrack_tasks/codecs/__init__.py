"""Values <-> bytes: frames as Parquet, arrays as npy, JSON values as exact JSON, bytes as they are.

The law: what ``encode`` accepts, ``decode`` gives back equal in value and type; anything else is
refused with ``InvalidInputError`` before it can be stored. So two different values never share
bytes, and with one encoder version equal values have equal bytes. ``docs/adr/0003-encodings.md``
has the reasons and limits.

Importing this package imports neither pandas nor pyarrow nor numpy; the first frame or array does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from mltrack_tasks import canonical
from mltrack_tasks.codecs.description import Description
from mltrack_tasks.codecs.kinds import estimate_size, format_of, refused
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, MLTrackError
from mltrack_tasks.formats import FORMATS, PACKED, is_packed, plain_format

__all__ = ["Description", "decode", "describe", "encode", "estimate_size", "format_of", "packed", "sniff"]

_JSON = Description(kind="json", format="json", codec="mltrack-json/1")
_BIN = Description(kind="file", format="bin", codec="bin")


def encode(value: Any, sink: BinaryIO, *, what: str = "data") -> Description:
    """Write value -> bytes to ``sink`` and describe them; ``sink`` needs only ``write``.

    Frames go out row group by row group and arrays chunk by chunk, so memory beyond the value stays
    bounded. Raises InvalidInputError naming ``what``, column and dtype when the value would not
    come back exactly; a row group may have been written by then, so the caller discards what the
    sink received.
    """
    form = _format_of(value, what)
    if form == "parquet":
        from mltrack_tasks.codecs import frames

        return frames.encode_frame(value, sink, what)
    if form == "npy":
        from mltrack_tasks.codecs import arrays

        return arrays.encode_array(value, sink, what)
    if form == "json":
        sink.write(canonical.dumps_value(value, what=what))
        return _JSON
    sink.write(value)
    return _BIN


def decode(format: str, body: bytes | memoryview, *, what: str) -> Any:
    """Read the bytes of one blob -> value; ``what`` names the blob in errors.

    Parquet and npy that others wrote are read by pyarrow and numpy. Nothing is ever unpickled.
    Raises IntegrityError on damaged or forged bytes, FormatError on a codec or type that this
    version does not know, InvalidInputError on an unknown ``format``.
    """
    _known(format)
    with _reading(what, format):
        if format == "parquet":
            from mltrack_tasks.codecs import frames

            return frames.decode_frame(body, what)
        if format == "npy":
            from mltrack_tasks.codecs import arrays

            return arrays.decode_array(body, what)
        if is_packed(format):
            from mltrack_tasks.codecs import zstd

            inside = plain_format(format)
            return decode(inside, memoryview(zstd.unpacked(body, inside)), what=what)
        if format == "json":
            return canonical.loads_value(body, what=what)
        return bytes(body)


def describe(format: str, source: BinaryIO, *, what: str = "data") -> Description:
    """Describe stored bytes from a seekable file: footer or header only, all of it for JSON.

    Gives exactly what ``encode`` returned for the same bytes. Errors as ``decode``.
    """
    _known(format)
    with _reading(what, format):
        source.seek(0)
        if format == "parquet":
            from mltrack_tasks.codecs import frames

            return frames.describe_frame(source, what)
        if format == "npy":
            from mltrack_tasks.codecs import arrays

            return arrays.describe_array(source, what)
        if is_packed(format):
            from mltrack_tasks.codecs import zstd

            if plain_format(format) == "json":  # all of it is read: weighed as it is for ``decode``
                canonical.loads_value(zstd.unpacked(source.read(), "json"), what=what)
                return packed(_JSON)
            with zstd.unpacked_file(source) as inside:
                return packed(describe(plain_format(format), inside, what=what))
        if format == "json":
            canonical.loads_value(source.read(), what=what)
            return _JSON
        return _BIN


def packed(inside: Description) -> Description:
    """Describe bytes that were packed as a whole, given what is inside."""
    return replace(inside, format=inside.format + PACKED, codec=f"{inside.codec}+zstd")


def sniff(head: bytes, tail: bytes) -> str:
    """Name the format of a file (parquet, npy or bin) from its first and last 8 bytes or more.

    Only the magic bytes are looked at: a damaged file keeps its format and fails in ``describe``.
    """
    if head[:4] == b"PAR1" and tail[-4:] == b"PAR1" and len(head) > 4 and len(tail) > 4:
        return "parquet"
    return "npy" if head[:6] == b"\x93NUMPY" else "bin"


def _format_of(value: Any, what: str) -> str:
    try:
        return format_of(value)
    except InvalidInputError as error:
        raise refused(value, what) from error


def _known(format: str) -> None:
    if format not in FORMATS:
        raise InvalidInputError(f"The format {format!r} is unknown; use one of {', '.join(FORMATS)}.")


@contextmanager
def _reading(what: str, format: str) -> Iterator[None]:
    """Turn whatever a library raises on hostile bytes into IntegrityError; real I/O errors pass."""
    try:
        yield
    except (IntegrityError, FormatError) as error:
        if str(error).startswith(what):
            raise
        raise type(error)(f"{what}: {error}", details=error.details) from error
    except Exception as error:
        # The proof that a value packs runs while reading too: what it refuses there was forged.
        if isinstance(error, MLTrackError) and not isinstance(error, InvalidInputError):
            raise
        # pyarrow reports damage as OSError without an errno; with one, a disk or a network failed.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise IntegrityError(
            f"{what} cannot be read as {format} ({_reason(error)}): the bytes are damaged, "
            "forged, or need more memory than there is. Verify the blob, restore it from a copy.",
            details={"format": format},
        ) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
