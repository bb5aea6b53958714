"""Results as named data: byte for byte what was written, once for equal results, the last write counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import canonical, layout
from mltrack_tasks.content import list_data, store_data
from mltrack_tasks.errors import IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.resultfiles import NAMES, read_result, write_result
from mltrack_tasks.stores import open_memory

RECORDS = st.builds(
    lambda key, given: (
        b'{"metadata":{"storage_key":' + canonical.dumps(key) + b'},"result":' + canonical.dumps(given) + b"}"
    ),
    st.text(st.characters(codec="utf-8")),
    st.text(st.characters(codec="utf-8")),
)


def record(run: str, given: str) -> bytes:
    return b'{"metadata":{"storage_key":"%b"},"result":"%b"}' % (run.encode(), given.encode())


@given(body=st.one_of(st.binary(), RECORDS))
def test_what_was_written_comes_back(body: bytes) -> None:
    store = open_memory()
    write_result(store, "a/b", body)
    assert read_result(store, "a/b") == body


def test_equal_results_of_two_runs_are_one_blob() -> None:
    store = open_memory()
    first = write_result(store, "one", record("one", "same"))
    second = write_result(store, "two", record("two", "same"))
    assert (first.created, second.created) == (True, False)
    assert first.hash == second.hash
    assert len([each for each in store.list("data/") if layout.parse_blob_key(each.key)]) == 1
    assert read_result(store, "one") != read_result(store, "two")


def test_the_last_write_counts_and_writing_again_brings_it_back() -> None:
    store = open_memory()
    for text in ("old", "new", "old"):
        write_result(store, "key", record("run", text))
        assert read_result(store, "key") == record("run", text)
    assert len(list_data(store, f"{NAMES}key")) == 3


def test_nothing_is_told_and_so_is_what_others_named_so() -> None:
    store = open_memory()
    with pytest.raises(NotFoundError, match="'key'"):
        read_result(store, "key")
    store_data(store, b"mine", f"{NAMES}key")
    with pytest.raises(IntegrityError, match="no result"):
        read_result(store, "key")
    with pytest.raises(InvalidInputError, match="bytes"):
        write_result(store, "key", "text")  # type: ignore[arg-type]
