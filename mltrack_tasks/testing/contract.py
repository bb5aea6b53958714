"""``StoreContract``: what every store does, checked from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import InvalidInputError, NotFoundError
from mltrack_tasks.layout import MAX_KEY
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.probe import PROBE_FOLDER, Capabilities, probe_capabilities
from mltrack_tasks.testing.copies import CopyContract
from mltrack_tasks.testing.levels import LevelContract
from mltrack_tasks.testing.raw import Raw
from mltrack_tasks.testing.uploads import UploadContract

DEFAULT_CAPABILITIES = Capabilities(
    create_only=True,
    create_only_parts=True,
    refuses_damage=True,
    keeps_checksums=True,
    conditional_delete=True,
    versioning=None,
)
"""What AWS S3 does. ``versioning`` None: either will do."""

BAD_KEYS = (
    *("", "/", "/x", "x/", "..", "../x", "a/../x", "a/./x", "a//x", "x\0y", "x\ny", "x\x7fy", "\ud800"),
    "x" * (MAX_KEY + 1),
    "ü" * (MAX_KEY // 2 + 1),
)
"""Keys that no store may take, write or look for."""

ODD_KEYS = (
    *("a b", "a%20b", "a+b", "A b", "a  b", "%2e%2e", "%2E%2E", "ü/ß", "日本", "a#b?c=d&e", "[x]{y}^|"),
    *("~x~00000002", "...", ".x", "x." * 60, "deep/" * 40 + "x"),
)
"""Unusual keys that every store keeps apart and gives back as they are."""

FOREIGN_KEYS = ("a//b", "x/../y", "./z", "a/b/", "a/\x01", "data//data.bin")
"""Names that other tools may have left in a bucket; a listing must survive them."""


class StoreContract(UploadContract, CopyContract, LevelContract):
    """Checks of one store. Subclasses give the fixtures ``store`` and ``raw`` (empty, of one root).

    ``expects`` says what the server behind it is known to do: a server that does less is not skipped, what
    it does instead is checked. ``many`` is how many keys make a listing and a deletion long.
    """

    expects: Capabilities = DEFAULT_CAPABILITIES
    many: int = 1_100

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        raise NotImplementedError("give the store to check")

    @pytest.fixture
    def raw(self) -> Iterator[Raw]:
        raise NotImplementedError("give raw access to the store's root")

    def test_the_server_does_what_is_expected_of_it(self, store: Store, raw: Raw) -> None:
        found = probe_capabilities(store)
        for field in fields(Capabilities):
            expected = getattr(self.expects, field.name)
            if field.name != "notes" and expected is not None:
                assert getattr(found, field.name) is expected, (field.name, found.notes)
        assert not [key for key in raw.list() if key.startswith(PROBE_FOLDER)]

    def test_a_key_is_created_once(self, store: Store, raw: Raw) -> None:
        assert store.create("a/k", b"first") is True
        assert raw.get("a/k") == b"first"
        assert store.create("a/k", b"second") is False
        assert raw.get("a/k") == b"first"
        assert raw.list() == ["a/k"]

    def test_what_came_from_elsewhere_is_not_overwritten(self, store: Store, raw: Raw) -> None:
        raw.put("k", b"theirs")
        assert store.create("k", b"ours") is False
        assert raw.get("k") == b"theirs"

    @pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 5_000], ids=["empty", "1", "1.28 MB"])
    def test_a_body_comes_back_as_it_went_in(self, store: Store, raw: Raw, body: bytes) -> None:
        assert store.create("k", memoryview(body))
        assert raw.get("k") == store.get("k") == body
        stat = store.head("k")
        assert stat is not None
        assert stat.size == len(body)

    def test_ranges(self, store: Store) -> None:
        store.create("k", b"0123456789")
        assert store.get_range("k", 0, 3) == b"012"
        assert store.get_range("k", 4, 2) == b"45"
        assert store.get_range("k", 8, 2) == b"89"
        assert store.get_range("k", 8, 100) == b"89"
        assert store.get_range("k", 10, 5) == b""
        assert store.get_range("k", 99, 5) == b""

    def test_a_range_of_nothing(self, store: Store) -> None:
        store.create("k", b"")
        assert store.get_range("k", 0, 10) == b""

    def test_missing_keys(self, store: Store) -> None:
        store.create("there/x", b"")
        assert store.head("no") is None
        assert store.head("no", checksum=True) is None
        assert store.head("there") is None
        for read in (store.get, lambda key: store.get_range(key, 0, 1)):
            for key in ("no", "there", "there/x/below"):
                with pytest.raises(NotFoundError, match=key):
                    read(key)

    def test_stat(self, store: Store) -> None:
        before = datetime.now(UTC)
        store.create("d/k", b"body")
        plain, known = store.head("d/k"), store.head("d/k", checksum=True)
        [listed] = store.list("d/")
        assert plain is not None
        assert known is not None
        for stat in (plain, known, listed):
            assert (stat.key, stat.size, stat.archived) == ("d/k", 4, False)
            assert stat.etag == plain.etag
            assert stat.modified.tzinfo is not None
            assert abs(stat.modified - before) < timedelta(minutes=15)  # the server has its own clock
        assert plain.etag
        assert known.sha256 == (sha256_hex(b"body") if self.expects.keeps_checksums else None)
        assert known.composite is None

    def test_etags_differ_with_the_bytes(self, store: Store) -> None:
        store.create("one", b"1")
        store.create("two", b"2")
        one, two = store.head("one"), store.head("two")
        assert one is not None
        assert two is not None
        assert one.etag != two.etag

    def test_a_listing_is_complete_and_in_order(self, store: Store) -> None:
        keys = ["a", "a-b/x", "a.b", "a/b", "a/b-c", "a/b/c", "a/b0", "a0", "ab/x", "b", "é", "日"]
        for key in reversed(keys):
            if key not in ("a", "a/b"):  # on a file system a name is a file or a folder
                store.create(key, key.encode())
        expected = sorted(set(keys) - {"a", "a/b"})
        assert [stat.key for stat in store.list("")] == expected
        assert [stat.size for stat in store.list("")] == [len(key.encode()) for key in expected]
        for after in ["", "0", *keys, "~", "日本"]:
            assert [stat.key for stat in store.list("", after=after)] == [k for k in expected if k > after]

    def test_a_prefix_is_a_folder(self, store: Store) -> None:
        for key in ("a/x", "a/y/z", "ab/x", "a.b", "b/a/x"):
            store.create(key, b"")
        assert [stat.key for stat in store.list("a/")] == ["a/x", "a/y/z"]
        assert [stat.key for stat in store.list("a/y/")] == ["a/y/z"]
        assert [stat.key for stat in store.list("a/", after="a/x")] == ["a/y/z"]
        assert [stat.key for stat in store.list("a/", after="a/zz")] == []
        assert list(store.list("no/")) == []
        assert list(store.list("a/x/")) == []

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert list(store.list("")) == []

    def test_foreign_keys_do_not_break_a_listing(self, store: Store, raw: Raw) -> None:
        ours = ["a/a", "a/c", "data/x", "z"]
        for key in ours:
            store.create(key, b"")
        # obstore drops the slash at the end of a folder's placeholder
        placed = {key.rstrip("/") for key in FOREIGN_KEYS if raw.put(key, b"theirs")}
        for prefix, after in (("", ""), ("a/", ""), ("", "a/b"), ("data/", ""), ("", "a//b")):
            listed = [stat.key for stat in store.list(prefix, after=after)]
            expected = [key for key in ours if key.startswith(prefix) and key > after]
            assert [key for key in listed if key in ours] == expected, (prefix, after)
            assert {key.rstrip("/") for key in listed} - set(expected) <= placed, (prefix, after)

    def test_deleting(self, store: Store, raw: Raw) -> None:
        for key in ("a/x", "a/y", "b"):
            store.create(key, b"")
        store.delete(["a/x", "no", "a/no", "a", "b/below"])
        store.delete([])
        assert sorted(raw.list()) == ["a/y", "b"]
        assert store.create("a/x", b"again") is True

    def test_many_keys(self, store: Store, raw: Raw) -> None:
        keys = sorted(f"m/{number}" for number in range(self.many))
        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(lambda key: store.create(key, b""), keys))
        assert [stat.key for stat in store.list("m/")] == keys
        middle = keys[len(keys) // 2]
        assert [stat.key for stat in store.list("m/", after=middle)] == keys[len(keys) // 2 + 1 :]
        store.delete(iter(keys))
        assert raw.list() == []

    def test_replacing_needs_the_right_etag(self, store: Store, raw: Raw) -> None:
        store.create("k", b"old")
        old = store.head("k", checksum=True)
        assert old is not None
        assert old.etag
        assert store.replace("k", b"new", '"0123456789abcdef0123456789abcdef"') is False
        assert raw.get("k") == b"old"
        assert store.replace("k", b"newer", old.etag) is True
        assert raw.get("k") == b"newer"
        assert store.replace("k", b"newest", old.etag) is False
        assert raw.get("k") == b"newer"
        assert store.replace("no", b"x", old.etag) is False
        assert raw.list() == ["k"]

    def test_odd_keys_stay_as_they_are(self, store: Store, raw: Raw) -> None:
        for key in ODD_KEYS:
            assert store.create(key, key.encode()), key
        assert sorted(raw.list()) == sorted(ODD_KEYS)
        assert [stat.key for stat in store.list("")] == sorted(ODD_KEYS)
        for key in ODD_KEYS:
            assert raw.get(key) == store.get(key) == key.encode()
            stat = store.head(key, checksum=True)
            assert stat is not None, key
            assert (stat.key, stat.size) == (key, len(key.encode()))
        store.delete(ODD_KEYS)
        assert raw.list() == []

    def test_bad_keys_are_refused_by_every_verb(self, store: Store, raw: Raw) -> None:
        store.create("fine", b"x")
        verbs: tuple[Callable[[str], object], ...] = (
            lambda key: store.create(key, b"x"),
            lambda key: store.replace(key, b"x", '"e"'),
            lambda key: store.upload(key, 1),
            store.get,
            lambda key: store.get_range(key, 0, 1),
            store.head,
            lambda key: store.head(key, checksum=True),
            lambda key: store.delete(["fine", key]),
            lambda key: store.copy("fine", key, 1),
            lambda key: store.copy(key, "new", 1),
            store.check,
        )
        for key in BAD_KEYS:
            for verb in verbs:
                with pytest.raises(InvalidInputError):
                    verb(key)
        assert raw.list() == ["fine"]
        for key in ODD_KEYS:
            store.check(key)

    def test_one_of_many_racing_writers_wins(self, store: Store, raw: Raw) -> None:
        def create(number: int) -> bool:
            return store.create("race", f"writer {number}".encode())

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(create, range(16)))
        # False may also mean that a competing write was in flight, but one write lands.
        assert won.count(True) == 1
        assert raw.get("race") == f"writer {won.index(True)}".encode()

    def test_one_of_many_racing_replacements_wins(self, store: Store, raw: Raw) -> None:
        store.create("race", b"old")
        stat = store.head("race")
        assert stat is not None
        etag = stat.etag or ""
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda n: store.replace("race", f"new {n}".encode(), etag), range(8)))
        assert won.count(True) == 1
        assert raw.get("race") == f"new {won.index(True)}".encode()
