"""docs/format.md shows the records of the registry: each example there is what is written."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest

from mltrack_tasks import canonical, registry
from mltrack_tasks.modelkeys import is_file_of_version
from mltrack_tasks.registry import identity
from mltrack_tasks.stores.base import Store

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


def examples() -> dict[str, str]:
    """The keys of the section on models -> content as the document shows it; empty for empty objects."""
    section = FORMAT.read_text().partition("\n## Models\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    for block in blocks:
        key = ""
        for line in block.splitlines():
            if line.startswith("models/"):
                key = line
                found[key] = ""
            elif key:
                found[key] += line.strip()
    return found


def short(text: str) -> str:
    """Digests by their first six digits, as the document writes them."""
    return re.sub(r"\b([0-9a-f]{6})[0-9a-f]{58}\b", r"\1...", text)


def test_the_examples_are_what_is_written(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "today", lambda: date(2024, 1, 15))
    (tmp_path / "weights").write_bytes(b"1.5")
    first = registry.register_model(store, None, "churn", tmp_path / "weights", metrics={"auc": 0.91})
    registry.register_model(store, None, "churn", tmp_path / "weights", metrics={"f1": 0.87})
    registry.set_policy(store, "churn", "production", [{"kind": "metric", "metric": "auc", "at_least": 0.9}])
    approval = {"approved": True, "by": "Ada", "tree_digest": first.tree_digest}
    registry.promote_model(store, "churn", first.version, reason="better", request_id="r1", approval=approval)
    registry.remove_alias(store, "churn", "production", request_id="r2")
    registry.deprecate_version(store, "churn", first.version, reason="leaks labels")
    written = {}
    for stat in store.list("models/"):
        if not is_file_of_version(stat.key):
            body = store.get(stat.key)
            written[short(stat.key)] = (
                short(canonical.dumps(json.loads(body)["content"]).decode()) if body else ""
            )
    assert examples() == written
