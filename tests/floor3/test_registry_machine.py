"""Any order of registering, promoting, rolling back, deprecating, copying and crashes, against a model."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mltrack_tasks import modelkeys, registry
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import ConflictError, InvalidInputError, NotFoundError, TransientError
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import FaultyStore
from tests.floor3 import invariants
from tests.settings import examples

contents = st.integers(0, 3)
aliases = st.sampled_from(["production", "staging", "champion"])


class RegistryMachine(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.bare = MemoryStore(max_workers=1)
        self.store: Store = GuardedStore(self.bare)
        self.other: Store = GuardedStore(MemoryStore(max_workers=1))
        self.folder = tempfile.TemporaryDirectory()
        self.versions: dict[int, str] = {}
        self.copied: set[str] = set()
        self.requests = 0
        self.deprecated: set[str] = set()
        self.history: dict[str, list[str | None]] = {}
        self.stacks: dict[str, list[str | None]] = {}

    def teardown(self) -> None:
        self.folder.cleanup()
        for store in (self.store, self.other):
            invariants.check_finished(store)

    def tree(self, content: int) -> Path:
        root = Path(self.folder.name) / str(content)
        root.mkdir(exist_ok=True)
        (root / "own").write_bytes(bytes([content]))
        (root / "shared").write_bytes(b"shared")
        return root

    def now(self, alias: str) -> str | None:
        return self.history[alias][-1] if self.history.get(alias) else None

    def moved(self, alias: str, version: str | None) -> None:
        self.history.setdefault(alias, []).append(version)

    @rule(content=contents)
    def register(self, content: int) -> None:
        made = registry.register_model(self.store, None, "m", self.tree(content))
        assert made.created is (content not in self.versions)
        assert self.versions.setdefault(content, made.version) == made.version

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), alias=aliases)
    def promote(self, data: st.DataObject, alias: str) -> None:
        version = data.draw(st.sampled_from(sorted(self.versions.values())))
        if version in self.deprecated:
            with pytest.raises(InvalidInputError, match="deprecated"):
                registry.promote_model(self.store, "m", version, alias)
            return
        done = registry.promote_model(self.store, "m", version, alias)
        assert done.created is (self.now(alias) != version)
        if done.created:
            assert done.previous == self.now(alias)
            self.moved(alias, version)
            self.stacks.setdefault(alias, []).append(version)

    def before(self, alias: str) -> str | None:
        """What a rollback of an alias leads to."""
        stack = self.stacks.get(alias, [])
        return stack[-2] if len(stack) > 1 else None

    def went_back(self, alias: str) -> None:
        target, stack = self.before(alias), self.stacks[alias]
        stack.pop()
        while stack[-1] != target:
            stack.pop()
        self.moved(alias, target)

    def standing(self, alias: str) -> str | None:
        """What everybody reads of an alias; a version has its folder, with its files and no others."""
        try:
            now = registry.resolve_model(self.store, "m", alias)
        except NotFoundError:
            return None
        place = modelkeys.promoted_folder("m", now.version)
        found = {
            stat.key.removeprefix(place): sha256_hex(self.store.get(stat.key))
            for stat in self.store.list(place)
        }
        assert found == {file.path: file.digest for file in now.files}
        return now.version

    @rule(alias=aliases)
    def roll_back(self, alias: str) -> None:
        target = self.before(alias)
        if target is None:
            with pytest.raises(NotFoundError):
                registry.rollback_model(self.store, "m", alias)
        elif target in self.deprecated and target != self.now(alias):
            with pytest.raises(InvalidInputError, match="deprecated"):
                registry.rollback_model(self.store, "m", alias)
        else:
            registry.rollback_model(self.store, "m", alias)
            self.went_back(alias)

    @rule(alias=aliases)
    def remove(self, alias: str) -> None:
        if self.now(alias) is None:
            with pytest.raises(NotFoundError):
                registry.remove_alias(self.store, "m", alias)
            return
        registry.remove_alias(self.store, "m", alias)
        self.moved(alias, None)
        self.stacks[alias].append(None)

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def deprecate(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.versions.values())))
        if version in {self.now(alias) for alias in self.history}:
            with pytest.raises(ConflictError):
                registry.deprecate_version(self.store, "m", version)
        else:
            registry.deprecate_version(self.store, "m", version)
            self.deprecated.add(version)

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.versions.values())))
        made = registry.copy_model(self.store, "m", version, self.other)
        assert (made.version, made.created) == (version, version not in self.copied)
        self.copied.add(version)

    @rule(content=contents, alias=aliases, step=st.integers(1, 60), how=st.sampled_from(["after", "crash"]))
    def crash(self, content: int, alias: str, step: int, how: Any) -> None:
        """A process that dies in the middle, and its successor that makes the same calls."""
        if self.versions.get(content) in self.deprecated:
            return
        broken = FaultyStore(self.store, step, how)
        self.requests += 1

        def call(store: Store) -> ModelVersion:
            made = registry.register_model(store, None, "m", self.tree(content))
            registry.promote_model(store, "m", made.version, alias, request_id=f"{self.requests}")
            return made

        with suppress(TransientError):
            call(broken)
        seen = self.standing(alias)
        made = call(self.store)
        assert seen in (self.now(alias), made.version)
        self.versions.setdefault(content, made.version)
        if self.now(alias) != made.version:
            self.moved(alias, made.version)
            self.stacks.setdefault(alias, []).append(made.version)

    @rule(alias=aliases, step=st.integers(1, 40), how=st.sampled_from(["after", "crash"]))
    def crash_on_the_way_back(self, alias: str, step: int, how: Any) -> None:
        target = self.before(alias)
        if target is None or target in self.deprecated:
            return
        self.requests += 1

        def call(store: Store) -> None:
            registry.rollback_model(store, "m", alias, request_id=f"{self.requests}")

        with suppress(TransientError):
            call(FaultyStore(self.store, step, how))
        assert self.standing(alias) in (self.now(alias), target)
        call(self.store)
        self.went_back(alias)

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), step=st.integers(1, 40), how=st.sampled_from(["after", "crash"]))
    def crash_while_copying(self, data: st.DataObject, step: int, how: Any) -> None:
        version = data.draw(st.sampled_from(sorted(self.versions.values())))
        with suppress(TransientError):
            registry.copy_model(self.store, "m", version, FaultyStore(self.other, step, how))
        listed = [one for model in registry.list_models(self.other) for one in model.versions]
        made = registry.copy_model(self.store, "m", version, self.other)
        assert (made.version, made.created) == (version, version not in listed)
        self.copied.add(version)

    @invariant()
    def everybody_reads_the_same(self) -> None:
        for alias, moves in self.history.items():
            found = registry.model_history(self.store, "m", alias)
            assert [event.version for event in found] == moves
            assert [event.number for event in found] == list(range(1, len(moves) + 1))
            assert self.standing(alias) == moves[-1]

    @invariant()
    def versions_are_listed(self) -> None:
        listed = {one.name: one for one in registry.list_models(self.store)}
        assert set(listed["m"].versions if listed else ()) == set(self.versions.values())
        assert set(listed["m"].deprecated if listed else ()) == self.deprecated
        copied = {version for one in registry.list_models(self.other) for version in one.versions}
        assert copied == self.copied


RegistryMachine.TestCase.settings = settings(max_examples=examples(25), stateful_step_count=25)
TestRegistryMachine = RegistryMachine.TestCase
