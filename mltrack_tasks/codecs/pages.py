"""What Parquet takes in memory, found out before it is read: from the headers of its pages.

Few bytes can stand for many. A page is compressed, runs of equal values take nothing, and one long text in a
dictionary may be repeated a million times. Honest files do all that too, so no ratio tells them apart from
forged ones: what counts is whether there is room. The footer is not believed, the pages have headers of their
own; what these say is what pyarrow allocates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mltrack_tasks.codecs.thrift import Thrift
from mltrack_tasks.digest import MiB

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
_HEADERS = {DATA: 5, DICTIONARY: 7, DATA_V2: 8}
"""Field of a page's header that has more of its kind."""
_WIDTHS = {"BOOLEAN": 2, "INT32": 8, "FLOAT": 8}
"""[bytes] that a value takes, in Arrow and once more in pandas."""
_WIDTH = 16
"""[bytes] of any other, and of the offset of a text."""
_LOOKED_INTO = 16 * MiB
"""[bytes] of a dictionary whose texts are measured one by one, where they might take more than so much."""
_CODECS = {0: None, 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd"}
"""Numbers of the codecs that can be undone a page at a time; None for none."""
_STRUCT = 800
"""[bytes] that parquet-cpp takes for a struct of a footer: 690 for a column chunk, measured."""
_SHORTEST = 3
"""[bytes] that a struct has at least."""
_TEXTS = 3
"""Times that the texts of a footer lie in memory."""


class Chunk(NamedTuple):
    """A column chunk as the footer describes it: where it is [bytes], and what it holds."""

    group: int
    path: str
    start: int
    length: int
    values: int
    rows: int
    width: int
    text: bool
    nested: bool
    codec: Callable[[], int | None]
    """Number of the codec. It is not asked of pyarrow, which ends the process at an unknown one."""


class Weight(NamedTuple):
    """[bytes] that a chunk takes at least, and at most: depending on which texts of a dictionary repeat."""

    sure: int
    worst: int


class Page(NamedTuple):
    """What a page's header says: its kind, and its bytes and values once it is unpacked; what is stored."""

    kind: int
    size: int
    values: int
    stored: memoryview


def chunks_of(metadata: Any) -> Iterator[Chunk]:
    """Name the column chunks that a footer lists."""
    columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    footer = cache(partial(_footer_of, metadata))
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        for number, column in enumerate(columns):
            codec = partial(_codec, footer, group, number)
            yield _chunk(group, found.num_rows, found.column(number), column, codec)


def _footer_of(metadata: Any) -> Any:
    sink = pa.BufferOutputStream()
    metadata.write_metadata_file(sink)
    raw = memoryview(sink.getvalue())
    size = int.from_bytes(raw[-8:-4], "little")
    return Thrift(raw[-8 - size : -8], most=len(raw), lists=True).struct()


def _codec(footer: Callable[[], Any], group: int, number: int) -> int | None:
    """Fields of parquet.thrift: row_groups, columns, meta_data, codec."""
    try:
        found = footer()[4][group][1][number][3][4]
    except (KeyError, IndexError, TypeError):
        return None
    return found if isinstance(found, int) else None


def _chunk(group: int, rows: int, found: Any, column: Any, codec: Callable[[], int | None]) -> Chunk:
    start, first = found.data_page_offset, found.dictionary_page_offset
    if found.has_dictionary_page and first is not None and 0 < first < start:
        start = first
    text = column.physical_type == "BYTE_ARRAY"
    width = max(column.length, _WIDTHS.get(column.physical_type, _WIDTH))
    nested = column.max_repetition_level > 0
    size, values = found.total_compressed_size, found.num_values
    return Chunk(group, column.path, max(start, 0), max(size, 0), values, rows, width, text, nested, codec)


def require_footer_room(footer: memoryview, room: int) -> None:
    """Raise ValueError if a footer takes more than ``room`` [bytes]. Looks closer only if it might."""
    if len(footer) * _STRUCT > room * _SHORTEST:
        Thrift(footer, most=max(room - _TEXTS * len(footer), 0) // _STRUCT).struct()


def weigh(chunk: Chunk, body: memoryview, rows: int) -> Weight:
    """Weigh a chunk from its bytes; ``rows`` is how many are unpacked at once.

    Raises ValueError if its pages are not what the footer says.
    """
    data = dictionary = longest = most = values = 0
    for page in pages_of(body, chunk.values):
        most = max(most, page.size)
        if page.kind == DICTIONARY:
            dictionary += page.size
            longest = max(longest, _longest(page, chunk) if chunk.text else 0)
        else:
            data += page.size
            values += page.values
    if values < chunk.values:
        raise ValueError(f"the pages of {chunk.path} have {values} values, the footer says {chunk.values}")
    unpacked = values if chunk.nested else min(chunk.rows, rows)
    sure = unpacked * chunk.width + most + dictionary + (data if chunk.text else 0)
    return Weight(sure, sure + unpacked * longest if chunk.text else sure)


def require_room(
    weighed: Iterable[tuple[Chunk, Weight]], reopen: Callable[[Sequence[str]], Any], room: int
) -> None:
    """Raise ValueError if chunks take more than ``room`` [bytes].

    ``reopen(paths)`` opens the file so that texts of these columns stay in their dictionaries: where it is
    not clear how often each repeats, it is counted.
    """
    listed = list(weighed)
    if sum(weight.worst for _, weight in listed) <= room:
        return
    needed = sum(weight.sure for _, weight in listed)
    unclear = [chunk for chunk, weight in listed if weight.worst > weight.sure]
    if needed <= room:
        file = reopen(sorted({chunk.path for chunk in unclear}))
        for chunk in unclear:
            needed += _text_bytes(file.read_row_group(chunk.group, [chunk.path], use_threads=False))
            if needed > room:
                break
    if needed > room:
        raise ValueError(f"it takes {needed:,} bytes of memory, and {room:,} are free")


def pages_of(body: memoryview, values: int) -> Iterator[Page]:
    """Read the headers of pages, up to that with the last of so many values."""
    at, seen = 0, 0
    while seen < values:
        header = Thrift(body, at)
        fields, at = header.struct(), header.at
        kind, size, stored = (fields.get(number) for number in (1, 2, 3))
        if not isinstance(kind, int) or not isinstance(size, int) or not isinstance(stored, int):
            raise ValueError("a page has no header")
        inner = fields.get(_HEADERS.get(kind, 0))
        count = inner.get(1) if isinstance(inner, dict) else 0
        if size < 0 or not 0 <= stored <= len(body) - at or not isinstance(count, int) or count < 0:
            raise ValueError("a page is not where it should be")
        seen += count if kind in (DATA, DATA_V2) else 0
        yield Page(kind, size, count, body[at : at + stored])
        at += stored


def _longest(page: Page, chunk: Chunk) -> int:
    """Bytes of the longest text of a dictionary. Of a large one, no more than follows from its size."""
    most = page.size - 4 * page.values
    if page.size > _LOOKED_INTO or most * chunk.values < _LOOKED_INTO or chunk.codec() not in _CODECS:
        return most
    raw, codec = page.stored, _CODECS[chunk.codec() or 0]
    if codec is not None:
        raw = memoryview(pa.Codec(codec).decompress(raw, page.size))
    longest = at = 0
    for _ in range(page.values):
        length = int.from_bytes(raw[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
    return min(longest, most)


def _text_bytes(table: Any) -> int:
    """Count the bytes of texts in dictionaries, as often as each is there."""
    return sum(_repeated(chunk) for column in table.columns for chunk in column.chunks)


def _repeated(array: Any) -> int:
    kind = array.type
    if pa.types.is_dictionary(kind):
        times = np.bincount(array.indices.drop_null().to_numpy(), minlength=len(array.dictionary))
        return int(times @ pc.binary_length(array.dictionary).fill_null(0).to_numpy().astype(np.int64))
    if pa.types.is_map(kind):
        return _repeated(array.keys) + _repeated(array.items)
    if pa.types.is_struct(kind):
        return sum(map(_repeated, array.flatten()))
    return _repeated(array.flatten()) if pa.types.is_nested(kind) else 0
