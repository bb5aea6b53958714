"""Each frame of the table comes back indistinguishable, and no two of them share bytes."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.floor1.examples import frames
from tests.floor1.strict import assert_same, encoded, roundtrip

FRAMES = frames()


@pytest.mark.parametrize("name", FRAMES)
def test_comes_back_exactly(name: str) -> None:
    assert_same(FRAMES[name], roundtrip(FRAMES[name]))


@pytest.mark.parametrize("name", FRAMES)
def test_comes_back_writable(name: str) -> None:
    back = roundtrip(FRAMES[name])
    for number in range(back.shape[1]):
        values = back.iloc[:, number].array
        if len(values) and not isinstance(values.dtype, pd.CategoricalDtype | pd.ArrowDtype):
            values[[0]] = values[[-1]]


def test_no_two_share_bytes() -> None:
    seen: dict[bytes, str] = {}
    for name, frame in FRAMES.items():
        twin = seen.setdefault(encoded(frame)[0], name)
        assert twin == name or frame_twins(frame, FRAMES[twin]), f"{name} and {twin} share bytes"


def frame_twins(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    try:
        assert_same(left, right)
    except AssertionError:
        return False
    return True
