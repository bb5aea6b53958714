"""A long history of metrics as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

COLUMNS = ("metric", "timestamp_ms", "value", "step", "dataset_name", "dataset_digest")


def history_frame(history: Mapping[str, Sequence[Sequence[Any]]]) -> pd.DataFrame:
    """Points of metrics -> frame with COLUMNS; ``timestamp_ms`` counts from 1970, UTC.

    The dataset's columns hold None for points that were logged without one.
    """
    rows = [[name, *point] for name, points in history.items() for point in points]
    padded = [[*row, *[None] * (len(COLUMNS) - len(row))] for row in rows]
    return pd.DataFrame(padded, columns=list(COLUMNS))
