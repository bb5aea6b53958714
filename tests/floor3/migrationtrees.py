"""Trees of files for the tests of migrations, and calls that are short to write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mltrack_tasks.digest import MiB
from mltrack_tasks.events import Event
from mltrack_tasks.migration import download_from_s3, migrate_to_s3
from mltrack_tasks.migration.report import MigrationReport
from mltrack_tasks.plan import INLINE_LIMIT, PACK_LIMIT
from mltrack_tasks.stores.base import Store
from tests.floor2 import localtrees
from tests.floor2.localtrees import MadeFile, files, make, names, seen

NAME = "nightly"
AT_ONCE = timedelta(0)

Tree = list[tuple[Any, ...]]

_borders = [near for limit in (INLINE_LIMIT, PACK_LIMIT, MiB) for near in (limit - 1, limit, limit + 1)]


def _grown(made: MadeFile, size: int) -> MadeFile:
    content = made.content[:size]
    return replace(made, content=content, hole=size - len(content))


bordering = st.builds(_grown, files, st.sampled_from([0, 1, *_borders]))
"""Files whose sizes decide where their bytes are kept; many hold the same bytes."""
trees = st.builds(
    lambda tree, more: {**tree, **more},
    localtrees.trees,
    st.dictionaries(names, st.one_of(bordering, st.dictionaries(names, bordering, max_size=4)), max_size=3),
)


def quiet(event: Event) -> None:
    """What happens on the way is not what these tests are about."""


def migrate(store: Store, tree: Path, **options: Any) -> MigrationReport:
    """Migrate under a fixed name, an empty folder as well."""
    return migrate_to_s3(store, tree, **{"name": NAME, "allow_empty": True, "observe": quiet, **options})


def kept(tree: Path) -> Tree:
    """What a migration keeps of a tree: all but pipes and sockets."""
    return [item for item in seen(tree) if item[1] != "other"]


def restored(store: Store, **options: Any) -> Tree:
    """What is in an empty folder after a restore into it."""
    with tempfile.TemporaryDirectory() as folder:
        download_from_s3(store, Path(folder) / "back", observe=quiet, **options)
        return kept(Path(folder) / "back")


def stored(store: Store) -> dict[str, bytes]:
    """Everything in a store."""
    return {stat.key: store.get(stat.key) if stat.size else b"" for stat in store.list("")}


@contextmanager
def made(tree: dict[bytes, Any]) -> Iterator[Path]:
    """A tree on this machine's disk."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        root.mkdir()
        make(bytes(root), tree)
        yield root


def fill(root: Path, contents: dict[str, bytes]) -> Path:
    """Write files below a folder -> the folder."""
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def small_registry(tree: Path) -> Path:
    """A file store with one model of two versions, without MLflow: small, for many rounds."""
    run = "a" * 32
    meta = "artifact_uri: a\nentry_point_name: ''\nexperiment_id: '0'\nlifecycle_stage: active\n"
    more = f"run_id: {run}\nrun_name: n\nsource_type: 4\nstart_time: 1\nend_time: 2\nstatus: 3\nuser_id: u\n"
    version = "creation_timestamp: 1\nname: churn\ncurrent_stage: {}\nversion: {}\nsource: runs:/{}/{}\n"
    return fill(
        tree,
        {
            "0/meta.yaml": b"artifact_location: a\nexperiment_id: '0'\nlifecycle_stage: active\nname: D\n",
            f"0/{run}/meta.yaml": f"{meta}{more}".encode(),
            f"0/{run}/metrics/auc": b"1 0.5 0\n",
            f"0/{run}/artifacts/one/MLmodel": b"flavors: {}\n",
            f"0/{run}/artifacts/one/weights": b"1" * 40_000,
            f"0/{run}/artifacts/two/weights": b"2" * 5_000,
            "models/churn/meta.yaml": b"name: churn\ncreation_timestamp: 1\n",
            "models/churn/aliases/champion": b"2",
            "models/churn/version-1/meta.yaml": version.format("Staging", 1, run, "one").encode(),
            "models/churn/version-2/meta.yaml": version.format("None", 2, run, "two").encode(),
        },
    )
