"""What can be said about a blob without decoding it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """Kind, form and encoder of one blob: a pure function of its bytes.

    ``kind`` is ``dataframe``, ``ndarray``, ``json`` or ``file``; ``format`` is ``parquet``,
    ``npy``, ``json`` or ``bin``. ``codec`` names the layout inside the format (``mltrack-frame/1``,
    ``npy/1.0``, ``mltrack-json/1``; ``parquet`` for a file of someone else). ``shape`` is (rows,
    columns) for frames. ``columns`` holds ``str(label)`` and ``dtypes`` ``str(dtype)`` of each
    column; an array has one dtype. ``writer`` is the encoder with its version, or empty where the
    bytes do not tell (npy, json, bin).
    """

    kind: str
    format: str
    codec: str
    shape: tuple[int, ...] | None = None
    columns: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None
    writer: str = ""
