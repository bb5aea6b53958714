"""ndarray <-> npy bytes: numpy's public file format, always C order, never pickled.

The header is written by numpy's own function, so ``np.save`` of a C-ordered array gives the same
bytes.
"""

from __future__ import annotations

import ast
import struct
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from mltrack_tasks.codecs.description import Description
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError

CHUNK_BYTES = 16 * 1024 * 1024
"""Written at once: the buffer that an array in another order needs. The part size of the stores."""

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 64 * 1024
_PREAMBLE = {1: ("<H", "latin1"), 2: ("<I", "latin1"), 3: ("<I", "utf8")}
"""Header length and text encoding by major version, from NumPy's format description (NEP 1)."""


@dataclass(frozen=True)
class Header:
    """Meaning of an npy header: ``offset`` is where the values begin [bytes]."""

    version: str
    dtype: Any
    fortran: bool
    shape: tuple[int, ...]
    offset: int

    @property
    def body_bytes(self) -> int:
        return prod(self.shape) * int(self.dtype.itemsize)

    def description(self) -> Description:
        return Description(
            kind="ndarray",
            format="npy",
            codec=f"npy/{self.version}",
            shape=self.shape,
            dtypes=(str(self.dtype),),
        )


def encode_array(array: Any, sink: BinaryIO, what: str) -> Description:
    """Write array -> npy. Equal values give equal bytes whatever the memory order or strides.

    Raises InvalidInputError for dtypes whose bytes would not be the value: objects, padding,
    longdouble.
    """
    _check_dtype(array.dtype, what)
    header = BytesIO()
    fields = {
        "descr": npy.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    try:
        npy.write_array_header_1_0(header, fields)
    except ValueError as error:
        raise InvalidInputError(
            f"{what}: the dtype {array.dtype} does not fit an npy header ({error}); use "
            "fewer or shorter latin-1 field names."
        ) from error
    sink.write(header.getvalue())
    _write_values(array, sink)
    return parse_header(header.getvalue(), what).description()


def decode_array(body: bytes | memoryview, what: str) -> Any:
    """Read npy bytes -> a new writable array.

    Raises IntegrityError when header and length disagree.
    """
    header = parse_header(bytes(body[: _MAX_HEADER + 12]), what)
    _check_length(header, len(body), what)
    count = prod(header.shape)
    flat = np.frombuffer(body, dtype=header.dtype, count=count, offset=header.offset if count else 0)
    return flat.reshape(header.shape, order="F" if header.fortran else "C").copy(order="K")


def describe_array(source: BinaryIO, what: str) -> Description:
    """Read the header of an npy file at its beginning, and compare it with the file's length."""
    header = parse_header(source.read(_MAX_HEADER + 12), what)
    _check_length(header, source.seek(0, 2), what)
    return header.description()


def parse_header(head: bytes, what: str) -> Header:
    """Parse the first bytes of an npy file without allocating anything for its values.

    Raises IntegrityError on a malformed header, FormatError on a version or dtype that is not read.
    """
    if head[:6] != _MAGIC or len(head) < 12:
        raise IntegrityError(f"{what} does not begin with an npy header.")
    major, minor = head[6], head[7]
    if major not in _PREAMBLE:
        raise FormatError(
            f"{what} is npy version {major}.{minor}, which is not known: upgrade mltrack_tasks."
        )
    length_format, encoding = _PREAMBLE[major]
    offset = 8 + struct.calcsize(length_format)
    end = offset + struct.unpack_from(length_format, head, 8)[0]
    if end > len(head):
        raise IntegrityError(f"{what}: the npy header ends at byte {end}, beyond {len(head)}.")
    dtype, fortran, shape = _meaning(head[offset:end].decode(encoding), what)
    return Header(f"{major}.{minor}", dtype, fortran, shape, end)


def _meaning(text: str, what: str) -> tuple[Any, bool, tuple[int, ...]]:
    try:
        fields = ast.literal_eval(text.strip())
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        dtype = npy.descr_to_dtype(descr)
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        SyntaxError,
        RecursionError,
        MemoryError,
    ) as error:
        raise IntegrityError(f"{what}: the npy header {text[:200]!r} cannot be read: {error}.") from error
    sizes_ok = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    if len(fields) != 3 or type(fortran) is not bool or not sizes_ok:
        raise IntegrityError(f"{what}: the npy header {text[:200]!r} is malformed.")
    if dtype.hasobject:
        raise FormatError(
            f"{what} holds pickled Python objects, which are never loaded (unpickling runs code); "
            "fetch the file itself and load it where you trust it."
        )
    if dtype.itemsize == 0:
        raise FormatError(f"{what} has the dtype {dtype} without bytes; fetch the file itself.")
    return dtype, fortran, shape


def _check_length(header: Header, length: int, what: str) -> None:
    expected = header.offset + header.body_bytes
    if length != expected:
        raise IntegrityError(
            f"{what} has {length} bytes, but its npy header (shape {header.shape}, "
            f"dtype {header.dtype}) needs {expected}; it was cut, or holds more than one array."
        )


def _write_values(array: Any, sink: BinaryIO) -> None:
    if array.size == 0:
        return
    if array.flags.c_contiguous:
        raw = memoryview(array.reshape(-1).view(np.uint8))
        for start in range(0, len(raw), CHUNK_BYTES):
            sink.write(raw[start : start + CHUNK_BYTES])
        return
    items = max(1, CHUNK_BYTES // array.dtype.itemsize)
    chunks: Any = np.nditer(array, ["external_loop", "buffered"], buffersize=items, order="C")
    for chunk in chunks:
        sink.write(chunk.tobytes("C"))


def _check_dtype(dtype: Any, what: str) -> None:
    reason = _reason_against(dtype)
    if reason is None and repr(npy.descr_to_dtype(npy.dtype_to_descr(dtype))) != repr(dtype):
        reason = "an npy header cannot express it (alignment or metadata would be lost)"
    if reason:
        raise InvalidInputError(
            f"{what} is an array of dtype {dtype}, which cannot be stored exactly: {reason}."
        )


def _reason_against(dtype: Any) -> str | None:
    if dtype.hasobject and dtype.kind != "T":
        return "objects would have to be pickled; use a numeric or string dtype, or a DataFrame"
    if dtype.kind not in "biufcSUVmM":
        return "npy has no form for it; use astype('U') or a DataFrame"
    if dtype.metadata:
        return "dtype metadata would be lost; use np.dtype without metadata"
    if dtype.itemsize == 0:
        return "its items have no bytes; use a wider dtype"
    if dtype.kind in "fc" and dtype.itemsize > (8 if dtype.kind == "f" else 16):
        return "its bytes hold padding and differ between machines; use float64 or complex128"
    if dtype.subdtype:
        return _reason_against(dtype.subdtype[0])
    if dtype.names is not None:
        return _reason_against_fields(dtype)
    return None


def _reason_against_fields(dtype: Any) -> str | None:
    position = 0
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        if offset != position or dtype.isalignedstruct:
            return "padding between fields has no value; use numpy.lib.recfunctions.repack_fields"
        reason = _reason_against(field)
        if reason:
            return f"field {name!r}: {reason}"
        position += field.itemsize
    return (
        None if position == dtype.itemsize else "padding after the last field has no value; repack the fields"
    )
