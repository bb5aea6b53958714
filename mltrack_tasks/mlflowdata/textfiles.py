"""The small text files of an MLflow file store: one value each, or the lines of a metric.

Their names are the names of params, metrics and tags, which may hold ``/``: then they are paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from operator import itemgetter
from typing import Any

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata import scalars

_PLAIN_LINES = re.compile(rb"(?:[0-9]{1,18} [0-9.eE+-]{1,40} -?[0-9]{1,18}\n)*+")
"""Timestamp, value and step, as MLflow writes nearly all lines: they are read many at once."""
_PLAIN_RANK = itemgetter(2, 0, 1)

Named = dict[str, tuple[str, bytes]]
"""Name -> (what the file is called in messages, its bytes)."""


def below(files: Mapping[str, bytes], folders: tuple[str, ...], what: str) -> dict[str, Named]:
    """Sort files by the folder on top: each of ``folders`` -> the files below it by name."""
    parts: dict[str, Named] = {folder: {} for folder in folders}
    for path, data in files.items():
        folder, _, name = path.partition("/")
        if name and folder in parts:
            parts[folder][name if name.isascii() else scalars.text(name, what)] = (f"{what}, {path}", data)
    return parts


def texts_of(named: Named) -> dict[str, str]:
    """Files of one value each -> name -> text."""
    return {name: decode(data, what) for name, (what, data) in named.items()}


def run_points(data: bytes, what: str) -> list[list[Any]]:
    """Lines of a run's metric -> points as in ``RunFacts.history``.

    An empty file has none: MLflow creates it just before its first line.
    """
    if _PLAIN_LINES.fullmatch(data):
        words = data.split()
        with suppress(ValueError):
            columns = map(int, words[::3]), map(float, words[1::3]), map(int, words[2::3])
            return list(map(list, zip(*columns, strict=True)))
    points: list[list[Any]] = []
    for fields in _lines(data, (2, 3, 5), what):
        timestamp, value = _timestamp_and_value(fields, what)
        points.append([timestamp, value, _step(fields, what) if len(fields) > 2 else 0, *fields[3:]])
    return points


def model_points(metric: str, data: bytes, what: str) -> list[list[Any]]:
    """Lines of a logged model's metric -> points as in ``LoggedModel.metrics``."""
    points: list[list[Any]] = []
    for fields in _lines(data, (4, 6), what):
        timestamp, value = _timestamp_and_value(fields, what)
        name, digest = fields[4:] if len(fields) > 4 else (None, None)
        points.append([metric, timestamp, value, _step(fields, what), fields[3], name, digest])
    return points


def answer(points: list[list[Any]]) -> float:
    """Choose the value that MLflow answers for a run: of the last step the last, of these the largest.

    MLflow's file store takes the step of a line with a dataset for 0.
    """
    plain = max(map(len, points)) == 3
    return float(max(points, key=_PLAIN_RANK if plain else _rank)[1])


def decode(data: bytes, what: str) -> str:
    """Bytes of a file -> text; IntegrityError if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{what} is not UTF-8 text: {error.reason} at byte {error.start}.") from error


def _rank(point: list[Any]) -> tuple[int, int, float]:
    return (point[2] if len(point) == 3 else 0, point[0], point[1])


def _lines(data: bytes, counts: tuple[int, ...], what: str) -> Iterator[list[str]]:
    for line in decode(data, what).splitlines():
        fields = line.strip().split(" ")
        if len(fields) not in counts:
            expected = f"lines of {', '.join(map(str, counts[:-1]))} or {counts[-1]} fields"
            raise scalars.refuse(line, what, expected)
        yield fields


def _timestamp_and_value(fields: list[str], what: str) -> tuple[int, float]:
    try:
        return scalars.whole(int(fields[0]), what), float(fields[1])
    except ValueError as error:
        raise scalars.refuse(" ".join(fields), what, "lines of a timestamp and a value") from error


def _step(fields: list[str], what: str) -> int:
    try:
        return scalars.whole(int(fields[2]), what)
    except ValueError as error:
        raise scalars.refuse(" ".join(fields), what, "lines with a step") from error
