"""Numbers in MLflow's files: YAML that takes longer to read than anybody waits, and lines of metrics."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.mlflowdata.textfiles import run_points
from mltrack_tasks.mlflowdata.yamls import load_mapping


@pytest.mark.parametrize(
    "number",
    ["1" + ":1" * 50_000, "-9" + "9" * 5_000, "0x" + "f" * 5_000, "0b" + "1" * 5_000],
    ids=["base 60", "decimal", "hexadecimal", "binary"],
)
def test_a_number_without_end_is_refused_before_it_is_read(number: str) -> None:
    """To base 60 PyYAML would take minutes; of the others Python cannot even write a message."""
    with pytest.raises(IntegrityError, match="digits"):
        load_mapping(f"size: {number}\nlist: [a]\n".encode(), "a file")


def test_text_of_digits_stays_text() -> None:
    body = f"quoted: '{'9' * 90}'\nlist: [a]\nshort: 1:30\n"
    assert load_mapping(body.encode(), "a file") == {"quoted": "9" * 90, "list": ["a"], "short": 90}


_whole = st.integers(-(10**20), 10**20).map(str) | st.sampled_from(["0", "-0", "007", "1_0", "+1", "x", ""])
_real = st.floats().map(repr) | st.sampled_from(["1e5", "-.5E-3", "1e999", "nan", "1_0.5", "1.2.3", "e", "-"])


@given(st.lists(st.tuples(_whole, _real, _whole).map(" ".join), max_size=4))
def test_lines_of_metrics_are_read_alike_many_at_once_and_one_by_one(lines: list[str]) -> None:
    """Lines that end as on Windows are read one by one."""

    def read(end: str) -> str:
        try:
            points = run_points("".join(line + end for line in lines).encode(), "a metric")
        except IntegrityError as error:
            return str(error)
        return repr(points)

    assert read("\n") == read("\r\n")


def test_a_long_metric_is_read_in_one_go() -> None:
    points = run_points(b"1700000000000 1e999 -3\n" * 100_000, "a metric")
    assert points == [[1_700_000_000_000, math.inf, -3]] * 100_000
