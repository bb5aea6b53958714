"""The formats of blobs: a function of what they hold, never of a file's name. docs/format.md lists them."""

from __future__ import annotations

PACKED = ".zst"
"""What the format of a blob ends in whose bytes are compressed by Zstandard."""
FORMATS = ("parquet", "npy", "json", "bin", "npy.zst", "json.zst", "bin.zst")
DESCRIBED_FORMATS = ("parquet", "npy", "json", "npy.zst", "json.zst")
COMPRESSIONS = ("zstd",)


def plain_format(format: str) -> str:
    """The format of what is inside: ``json`` for ``json.zst``; any other is its own."""
    return format.removesuffix(PACKED)


def is_packed(format: str) -> bool:
    """Tell whether a blob of this format is compressed as a whole."""
    return format.endswith(PACKED)
