"""Batches and packs: cut by number and by bytes, and never too many for a flow run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.filetree import FILE, FOLDER, Entry
from mltrack_tasks.plan import (
    BATCH_BYTES,
    BATCH_FILES,
    INLINE_LIMIT,
    INLINE_TOTAL,
    MAX_BATCHES,
    PACK_LIMIT,
    Batch,
    batches_of,
    cut,
    inlined,
    packs_of,
    to_send,
)
from mltrack_tasks.receipts import DEFER_ABOVE


def files(sizes: list[int]) -> list[Entry]:
    """Files of these sizes, each with a content of its own."""
    return [
        Entry(f"f{n:05}", FILE, 0o644, size, n, digest=sha256_hex(b"%d" % n)) for n, size in enumerate(sizes)
    ]


@given(st.lists(st.integers(0, 100)), st.integers(1, 10), st.integers(1, 300))
def test_nothing_is_lost_between_cuts(sizes: list[int], most: int, largest: int) -> None:
    entries = files(sizes)
    parts = list(cut(entries, most, largest))
    assert [entry for part in parts for entry in part] == entries
    assert all(len(part) <= most for part in parts)
    assert all(len(part) == 1 or sum(entry.size for entry in part) <= largest for part in parts)


def test_batches_grow_with_the_work() -> None:
    assert [len(batch.files) for batch in batches_of(files([1] * (BATCH_FILES + 1)), True)] == [
        BATCH_FILES,
        1,
    ]
    assert len(batches_of(files([1] * (100 * BATCH_FILES)), True)) <= MAX_BATCHES
    assert len(batches_of(files([BATCH_BYTES] * 200), True)) <= MAX_BATCHES + 1
    assert batches_of([], True) == []


def test_a_batch_is_named_by_its_work_but_not_by_what_is_known_of_large_files() -> None:
    small, large = files([10, DEFER_ABOVE + 1])
    known, unknown = Batch([small, large], True), Batch([small, large._replace(digest="")], True)
    assert known.id == unknown.id
    assert known.id != Batch([small._replace(digest="0" * 64), large], True).id
    assert known.id != Batch([small, large], False).id


def test_small_files_are_packed_unless_that_is_turned_off() -> None:
    entries = files([0, PACK_LIMIT, PACK_LIMIT + 1])
    assert Batch(entries, True).packed() == entries[:2]
    assert Batch(entries, True).single() == entries[2:]
    assert Batch(entries, False).packed() == []
    assert [len(pack) for pack in packs_of(files([PACK_LIMIT] * 300))] == [256, 44]


def test_a_manifest_holds_small_files_up_to_a_total() -> None:
    many = files([INLINE_LIMIT] * (INLINE_TOTAL // INLINE_LIMIT + 5))
    assert len(inlined(many)) == INLINE_TOTAL // INLINE_LIMIT
    assert inlined(files([INLINE_LIMIT + 1])) == {}
    assert inlined([Entry("folder", FOLDER)]) == {}
    twice = [entry._replace(path=f"copy of {entry.path}") for entry in many[:3]]
    assert len(inlined([*many[:3], *twice])) == 3


def test_each_content_is_sent_once() -> None:
    one, other = files([10, 20])
    again = one._replace(path="again")
    assert list(to_send([one, other, again], (), ())) == [one, other]
    assert list(to_send([one, other, again], (), {one.digest})) == [other]
    assert list(to_send([one, other, again], {one.path, again.path}, ())) == [other]
