"""The part of the store's contract that is about one level below a prefix."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mltrack_tasks.stores.base import Store
from mltrack_tasks.testing.raw import Raw

FOREIGN_LEVELS = ("a//b", "a/../b", "a/./b", "a//", "x/../y", "./z", "a/\x01", "data//data.bin")
"""Names that other tools may have left in a bucket. No folder in them is one of ours."""


class LevelContract:
    """Checks of ``Store.level``; ``many`` is how many keys and folders make a level long."""

    many: int

    def test_a_level_is_what_is_directly_below(self, store: Store) -> None:
        for key in ("b", "a.b", "a/x", "a/y-z", "a/y/z", "a/y/u/v", "a/é/x", "a/a b/x", "ab/x", "日"):
            store.create(key, key.encode())
        assert _level(store, "") == (["a.b", "b", "日"], ["a", "ab"])
        assert _level(store, "a/") == (["a/x", "a/y-z"], ["a b", "y", "é"])
        assert _level(store, "a/y/") == (["a/y/z"], ["u"])
        assert _level(store, "a/y/u/") == (["a/y/u/v"], [])
        for prefix in ("no/", "a/x/", "a/no/"):
            assert _level(store, prefix) == ([], [])
        [stat] = store.level("a/y/")[0]
        found = store.head("a/y/z")
        assert found is not None
        assert (stat.size, stat.etag) == (5, found.etag)

    def test_an_empty_store_has_an_empty_level(self, store: Store) -> None:
        assert store.level("") == ([], [])

    def test_a_folder_goes_with_its_last_object(self, store: Store) -> None:
        store.create("a/b/c/x", b"")
        store.create("a/y", b"")
        assert _level(store, "a/") == (["a/y"], ["b"])
        store.delete(["a/b/c/x"])
        assert _level(store, "a/") == (["a/y"], [])
        store.delete(["a/y"])
        assert _level(store, "") == ([], [])

    def test_a_long_level_is_complete_and_in_order(self, store: Store, raw: Raw) -> None:
        objects = sorted(f"m/{number}" for number in range(self.many))
        folders = sorted(f"f{number}" for number in range(self.many))
        keys = [*objects, *(f"m/{name}/x" for name in folders)]
        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(lambda key: store.create(key, b""), keys))
        assert _level(store, "m/") == (objects, folders)
        store.delete(keys)
        assert raw.list() == []

    def test_foreign_keys_do_not_break_a_level(self, store: Store, raw: Raw) -> None:
        ours = ["a/a", "a/c", "a/d/x", "data/x", "z"]
        for key in ours:
            store.create(key, b"")
        placed = [key for key in FOREIGN_LEVELS if raw.put(key, b"theirs")]
        for prefix, objects, folders in (
            ("", ["z"], ["a", "data"]),
            ("a/", ["a/a", "a/c"], ["d"]),
            ("data/", ["data/x"], []),
            ("a/d/", ["a/d/x"], []),
        ):
            found = _level(store, prefix)
            assert [key for key in found[0] if key in ours] == objects, prefix
            assert set(found[0]) - set(objects) <= set(placed), prefix
            assert [name for name in found[1] if name != "x"] == folders, prefix


def _level(store: Store, prefix: str) -> tuple[list[str], list[str]]:
    objects, folders = store.level(prefix)
    return [stat.key for stat in objects], folders
