"""A folder that is migrated again and again while it changes and calls die: nothing that was kept is lost."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.migration.state import latest_manifest
from mltrack_tasks.runs import get_run
from mltrack_tasks.stores.guard import GuardedStore
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.stores.observed import FaultyStore
from tests.floor2.localtrees import SECOND
from tests.floor3.migrationtrees import AT_ONCE, NAME, Tree, kept, migrate, restored
from tests.settings import examples

LARGE = 40_000
"""[bytes] What counts as large here: files above it are hashed while they are sent."""

paths = st.sampled_from(["a", "r", "r/x", "r/y", "r/sub/x", "s/x", "s/y", "s/ä b", "s/r/x"])
contents = st.builds(
    lambda byte, size: bytes([byte]) * (size + (byte if size > LARGE else 0)),
    st.integers(0, 2),
    st.sampled_from([0, 1, 5_000, 39_000, 50_000]),
)
"""In manifests, in packs, as blobs of their own, and large; of those a change shows by size or time."""
failures = st.sampled_from(["crash", "crash", "before", "after"])
times = st.sampled_from([1 * SECOND, 2 * SECOND])


class FolderMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("time.sleep", lambda seconds: None)
        for name, module in list(sys.modules.items()):
            if name.startswith("mltrack_tasks") and hasattr(module, "DEFER_ABOVE"):
                self.patch.setattr(module, "DEFER_ABOVE", LARGE)
        self.home = tempfile.TemporaryDirectory()
        self.patch.setenv("MLTRACK_CACHE_DIR", f"{self.home.name}/cache")
        self.root = Path(self.home.name) / "tree"
        self.root.mkdir()
        self.store = GuardedStore(MemoryStore(max_workers=2))
        self.state: dict[str, tuple[Any, ...]] = {}
        """What a restore gives."""
        self.removed: dict[str, tuple[Any, ...]] = {}
        """What is kept although it is not in the folder any more, or hidden by a file that is in its way."""
        self.settled = False
        """Whether the last call finished: runs are as the folder is."""

    def teardown(self) -> None:
        if hasattr(self, "home"):
            self.home.cleanup()
            self.patch.undo()

    @rule(path=paths, content=contents, when=times)
    def write(self, path: str, content: bytes, when: int) -> None:
        """A file appears or changes, whatever was there; at times without showing it by size or time."""
        file = self._room(path)
        file.write_bytes(content)
        os.utime(file, ns=(when, when))

    @rule(path=paths)
    def append(self, path: str) -> None:
        if self._is_file(path):
            with open(self.root / path, "ab") as file:
                file.write(b"+")

    @rule(path=paths, when=times)
    def touch(self, path: str, when: int) -> None:
        if self._is_file(path):
            os.utime(self.root / path, ns=(when, when))

    @rule(path=paths, mode=st.sampled_from([0o400, 0o755, 0o644]))
    def chmod(self, path: str, mode: int) -> None:
        if self._is_file(path):
            (self.root / path).chmod(mode)

    @rule(path=paths)
    def remove(self, path: str) -> None:
        if (self.root / path).is_dir():
            shutil.rmtree(self.root / path)
        elif os.path.lexists(self.root / path):
            (self.root / path).unlink()

    @rule(path=paths, other=paths)
    def rename(self, path: str, other: str) -> None:
        if self._is_file(path) and not other.startswith(f"{path}/") and not path.startswith(f"{other}/"):
            os.rename(self.root / path, self._room(other))

    @rule(path=paths, to=st.sampled_from(["nowhere", "/nowhere/at/all", "\udcff"]))
    def link(self, path: str, to: str) -> None:
        os.symlink(to, self._room(path, empty=True))

    @rule(path=paths)
    def make_folder(self, path: str) -> None:
        self._room(path, empty=True).mkdir()

    @rule(delete=st.booleans(), pack=st.booleans())
    def migrate(self, delete: bool, pack: bool) -> None:
        there = kept(self.root)
        report = migrate(
            self.store, self.root, delete_after_upload=delete, min_age=AT_ONCE, pack_small_files=pack
        )
        assert not report.kept
        self._acknowledge(there, delete)
        assert kept(self.root) == ([] if delete else there)

    @rule(step=st.integers(1, 40), how=failures, delete=st.booleans())
    def migrate_with_a_failure(self, step: int, how: Any, delete: bool) -> None:
        there, number, self.settled = kept(self.root), self._number(), False
        faulty = FaultyStore(self.store, step, how)
        try:
            migrate(faulty, self.root, delete_after_upload=delete, min_age=AT_ONCE)
        except MLTrackError:
            assert faulty.count >= step
            if self._number() == number:
                assert kept(self.root) == there
                return
        # A failure after the last record was written came too late to undo anything.
        self._acknowledge(there, delete)

    @precondition(lambda self: self.settled)
    @rule()
    def restore_runs(self) -> None:
        """A run alone gives its files, as long as none of them was deleted here since it was stored."""
        manifest = latest_manifest(self.store, NAME)
        assert manifest is not None
        for run in manifest.runs:
            inside = {path: item for path, item in self.state.items() if path.startswith(f"{run.run_id}/")}
            is_run = any(item[1] == "f" for item in inside.values()) and run.folders == (run.run_id,)
            if is_run and self.removed.keys().isdisjoint(inside):
                assert get_run(self.store, run.run_id).revision == run.revision
                alone = {item[0]: item for item in restored(self.store, run_ids=[run.run_id])}
                alone.pop(run.run_id, None)
                assert alone == inside

    @invariant()
    def a_restore_gives_the_last_finished_state(self) -> None:
        if hasattr(self, "store") and self._number():
            above = {str(folder) for path in self.state for folder in Path(path).parents}
            found = restored(self.store, migration=NAME)
            # A folder above a deleted file may be known by no more than its name.
            assert [i for i in found if i[0] in self.state or i[0] not in above] == self._expected()

    def _acknowledge(self, there: Tree, delete: bool) -> None:
        now = {item[0]: item for item in there}
        leaves = {path for path, item in now.items() if item[1] != "d"}
        old = {path: item for path, item in self.removed.items() if path not in now}
        hidden = {path for path in old if not leaves.isdisjoint(map(str, Path(path).parents))}
        self.state = {path: item for path, item in {**old, **now}.items() if path not in hidden}
        self.removed = self.state if delete else old
        self.settled = True

    def _expected(self) -> Tree:
        return sorted(self.state.values(), key=lambda item: os.fsencode(item[0]))

    def _number(self) -> int:
        manifest = latest_manifest(self.store, NAME)
        return manifest.number if manifest else 0

    def _is_file(self, path: str) -> bool:
        return (self.root / path).is_file() and not (self.root / path).is_symlink()

    def _room(self, path: str, *, empty: bool = False) -> Path:
        """Make room for a file: what is no folder above it goes, and so does a folder in its place."""
        place = self.root / path
        for above in list(reversed(Path(path).parents))[1:]:
            if os.path.lexists(self.root / above) and not (self.root / above).is_dir():
                (self.root / above).unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        elif os.path.lexists(place) and (empty or place.is_symlink()):
            place.unlink()
        return place


TestFolder = FolderMachine.TestCase
TestFolder.settings = settings(max_examples=examples(25), stateful_step_count=25, deadline=None)
