"""Numbers in YAML files that take longer to read than anybody waits."""

from __future__ import annotations

import pytest

from mltrack_tasks.errors import IntegrityError
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
