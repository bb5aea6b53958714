"""Any order of calls, damage and losses, against a model made of dictionaries."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from mltrack_tasks import canonical
from mltrack_tasks.content import forget_data, list_data, retrieve_data, store_data, store_file
from mltrack_tasks.errors import ConflictError, IntegrityError, NotFoundError
from mltrack_tasks.refs import DataRef
from mltrack_tasks.runs import get_run, store_run
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from tests.floor3 import invariants
from tests.settings import examples

values = st.sampled_from([None, 0, 1, 1.0, True, "a", [], {}, {"a": [1]}, b"", b"{}", b"x" * 9_000])
names = st.sampled_from(["n", "other", "../x", "ü"])
run_ids = st.sampled_from(["r", "s/t"])


def key_of(value: Any) -> tuple[str, bytes]:
    """What makes two values the same blob."""
    return ("bin", value) if isinstance(value, bytes) else ("json", canonical.dumps_value(value))


class StoreMachine(RuleBasedStateMachine):
    refs = Bundle("refs")

    @initialize()
    def open(self) -> None:
        self.bare = MemoryStore(max_workers=2)
        self.store = GuardedStore(self.bare)
        self.folder = tempfile.TemporaryDirectory()
        self.blobs: dict[DataRef, Any] = {}
        self.gone: set[str] = set()
        self.damaged: set[str] = set()
        self.named: dict[str, set[tuple[str, bytes, bytes]]] = {}
        self.runs: dict[str, list[bytes]] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    def wrote(self, ref: DataRef, value: Any) -> None:
        """Whatever was wrong with a blob is mended by storing it."""
        fresh = ref.storage_path in self.gone | self.damaged or ref not in self.blobs
        assert ref.created is fresh
        self.blobs[ref] = value
        self.gone.discard(ref.storage_path)
        self.damaged.discard(ref.storage_path)

    @rule(target=refs, value=values, name=names, metadata=st.sampled_from([None, {"k": 1}, {"k": True}]))
    def store_a_value(self, value: Any, name: str, metadata: dict[str, Any] | None) -> DataRef:
        ref = store_data(self.store, value, name, metadata=metadata)
        plain = DataRef(ref.hash, ref.format, ref.size_bytes, ref.storage_path, created=ref.created)
        self.wrote(plain, value)
        self.named.setdefault(name, set()).add((*key_of(value), canonical.dumps_value(metadata or {})))
        return plain

    @rule(target=refs, body=st.sampled_from([b"", b"{}", b"x" * 9_000, b"file"]), name=names)
    def store_a_file(self, body: bytes, name: str) -> DataRef:
        path = Path(self.folder.name) / "f"
        path.write_bytes(body)
        ref = store_file(self.store, path, name)
        self.wrote(ref, body)
        self.named.setdefault(name, set()).add(("bin", body, b"{}"))
        return ref

    @rule(run_id=run_ids, value=values, if_exists=st.sampled_from(["raise", "revise"]))
    def store_a_run(self, run_id: str, value: Any, if_exists: str) -> None:
        said = canonical.dumps_value([*map(repr, key_of(value))])
        before = self.runs.setdefault(run_id, [])
        try:
            run = store_run(self.store, run_id, {"v": value}, storage_mode="by_type", if_exists=if_exists)
        except ConflictError:
            assert if_exists == "raise"
            assert before
            assert said not in (before[0], before[-1])
        else:
            first = if_exists == "raise" and before[:1] == [said]
            again = first or before[-1:] == [said]
            assert run.created is not again
            if not again:
                before.append(said)
            assert run.revision == (1 if first else len(before))
        self._mended(value)

    def _mended(self, value: Any) -> None:
        """Blobs of a run are written before its id is found to be taken."""
        kind, body = key_of(value)
        for ref in list(self.blobs):
            if ref.format == kind and key_of(self.blobs[ref]) == (kind, body):
                self.gone.discard(ref.storage_path)
                self.damaged.discard(ref.storage_path)
                return
        ref = store_data(MemoryStore(), value)
        self.blobs[DataRef(ref.hash, ref.format, ref.size_bytes, ref.storage_path)] = value

    @rule(name=names)
    def forget(self, name: str) -> None:
        held = self.named.pop(name, set())
        if not held:
            with pytest.raises(NotFoundError):
                forget_data(self.store, name)
        else:
            assert len(forget_data(self.store, name)) == len(held)

    @rule(ref=refs)
    def damage(self, ref: DataRef) -> None:
        if ref.storage_path not in self.gone:
            self.bare.delete([ref.storage_path])
            self.bare.create(ref.storage_path, b"damaged")
            self.damaged.add(ref.storage_path)

    @rule(ref=refs)
    def lose(self, ref: DataRef) -> None:
        self.bare.delete([ref.storage_path])
        self.gone.add(ref.storage_path)
        self.damaged.discard(ref.storage_path)

    @rule(ref=refs)
    def read(self, ref: DataRef) -> None:
        if ref.storage_path in self.gone:
            with pytest.raises(NotFoundError):
                retrieve_data(self.store, ref)
        elif ref.storage_path in self.damaged:
            with pytest.raises(IntegrityError):
                retrieve_data(self.store, ref)
        else:
            assert key_of(retrieve_data(self.store, ref)) == key_of(self.blobs[ref])

    @rule(target=refs, ref=consumes(refs))
    def mend(self, ref: DataRef) -> Any:
        """Store again whatever a ref named, whatever became of it."""
        again = store_data(self.store, self.blobs[ref], "n")
        self.wrote(
            DataRef(again.hash, again.format, again.size_bytes, again.storage_path, created=again.created),
            self.blobs[ref],
        )
        self.named.setdefault("n", set()).add((*key_of(self.blobs[ref]), b"{}"))
        return multiple(ref)

    @invariant()
    def names_are_those_of_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        for name in ("n", "other", "../x", "ü"):
            assert len(list_data(self.store, name)) == len(self.named.get(name, ()))

    @invariant()
    def runs_are_those_of_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        for run_id, said in self.runs.items():
            if said:
                assert get_run(self.store, run_id).revision == len(said)

    @invariant()
    def what_is_stored_is_sound(self) -> None:
        if hasattr(self, "store") and not self.gone and not self.damaged:
            invariants.check_finished(self.bare)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=examples(15), stateful_step_count=20, deadline=None)
