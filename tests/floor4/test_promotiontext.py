"""Promotions and refusals as markdown: what stands in it, and names that try to break out of their cell."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mltrack_tasks.models import ModelFile, ModelVersion
from mltrack_tasks.promotions import Promotion
from mltrack_tasks.promotiontext import MAX_LINES, compared, refused
from mltrack_tasks.refs import DataRef

AT = {"at": "2024-01-15T10:00:00Z", "actor": "ada"}
HOSTILE = [
    *("a|b", "`x` ``y``", "<img src=x onerror=alert(1)>", "one\ntwo\r\n\n# three", "x" * 10_000),
    *("[l](javascript:alert(1))", "\u202egnp.exe", "a\x00b", "\\", "\\|", "&lt;", "~~~", "| --- |"),
]


def version(name: str, files: dict[str, str], **facts: Any) -> ModelVersion:
    made = tuple(ModelFile(path, digit * 64, "bin", 1_000 * len(digit)) for path, digit in files.items())
    return ModelVersion("churn", name, name[-6:] + "0" * 58, made, provenance=AT, **facts)


def promotion(**facts: Any) -> Promotion:
    values = {"number": 2, "version": "v20240115_bbbbbb", "tree_digest": "b" * 64, **facts}
    return Promotion("churn", "production", previous="v20240115_aaaaaa", provenance=AT, **values)


def ref(digit: str) -> DataRef:
    return DataRef(digit * 64, "parquet", 5, f"data/{digit * 2}/{digit * 64}/data.parquet", "train")


OLD = version(
    "v20240115_aaaaaa",
    {"same.bin": "1", "model.bin": "2", "gone.bin": "3"},
    metrics={"auc": 0.8, "loss": 3, "old": 1.5, "big": 10**400, "nan": float("nan")},
    params={"depth": 3, "kind": "forest", "on": True},
    training_data={"train": ref("e")},
    source_runs=("r1",),
)
NEW = version(
    "v20240115_bbbbbb",
    {"same.bin": "1", "model.bin": "4", "new.bin": "5"},
    metrics={"auc": 0.9, "loss": 3, "big": 1, "nan": 1.0},
    params={"depth": 5, "kind": "forest", "on": False},
    training_data={"train": ref("f")},
    source_runs=("r2", "r3", "r4", "r5"),
)


def tables(text: str) -> dict[str, list[list[str]]]:
    """The cells of each table by the heading above it, as markdown reads them; all rows are of one width."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.split("\n"):
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]
            found.setdefault(heading, []).append([re.sub(r"\\(.)", r"\1", cell) for cell in cells])
    for rows in found.values():
        assert len({len(row) for row in rows}) == 1, rows
    return {name: rows[2:] for name, rows in found.items()}


def test_both_versions_stand_side_by_side() -> None:
    text = compared(promotion(reason="weekly", approval={"by": "Bob", "comment": "fine"}), NEW, OLD)
    found = tables(text)
    assert found["Metrics"] == [
        ["auc", "0.8", "0.9", "+0.1"],
        ["big", "1" + "0" * 39 + "\u200b" + "0" * 39 + "…", "1", "changed"],
        ["loss", "3", "3", "0"],
        ["nan", "nan", "1", "changed"],
        ["old", "1.5", "", "gone"],
    ]
    assert found["Params"] == [
        ["depth", "3", "5", "+2"],
        ["kind", "forest", "forest", ""],
        ["on", "True", "False", "changed"],
    ]
    assert found["Files"] == [
        ["gone.bin", "1,000 B", "", "gone"],
        ["model.bin", "1,000 B", "1,000 B", "changed"],
        ["new.bin", "", "1,000 B", "new"],
    ]
    assert found["Lineage"] == [
        ["registered", *["2024-01-15 10:00 UTC by ada"] * 2],
        ["runs", "r1", "r2, r3, r4 and 1 more"],
        ["data train", f"`{'e' * 12}`", f"`{'f' * 12}`"],
        ["tree digest", "`aaaaaa000000`", "`bbbbbb000000`"],
    ]
    for line in ("# churn: production is v20240115_bbbbbb", "Reason: weekly", "Approved by Bob: fine"):
        assert line in text.split("\n")
    assert "3 files, 2.93 KiB, 1 of them as before." in text


def test_a_first_promotion_is_compared_with_nothing() -> None:
    found = tables(compared(promotion(), NEW, None))
    assert found["Metrics"][0] == ["auc", "0.9"]
    assert "Files" not in found


def test_a_long_table_says_what_it_leaves_out() -> None:
    many = version("v20240115_cccccc", {"f": "1"}, metrics={f"m{number:03}": 1 for number in range(120)})
    text = compared(promotion(), many, OLD)
    assert len(tables(text)["Metrics"]) == MAX_LINES
    assert "75 more are left out." in text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_in_their_cells(name: str) -> None:
    files = {f"f/{name}".replace("\x00", ""): "1"} if len(name) < 1_000 else {"f": "1"}
    new = version(
        "v20240115_bbbbbb", files, metrics={name: 1}, params={"p": name, name: [name]}, source_runs=("r",)
    )
    reports = ({"gate": {"kind": "function", "name": name}, "passed": True, "detail": name},)
    done = promotion(gates=reports, reason=name, approval={"by": name, "comment": name})
    text = compared(done, new, OLD) + refused({"model": name, "version": new.version, "gates": reports}, name)
    found = tables(text)
    assert set(found) == {"Metrics", "Params", "Gates", "Files", "Lineage"}
    assert max(len(line) for line in text.split("\n")) < 2_000
    assert not re.search(r"[^\s\u200b]{90}", text), "a word runs over the page"
    assert not re.search(r"(?<!\\)[<\[]|[\x00-\x09\x0b-\x1f\u202e]", text)


def test_a_refusal_shows_every_gate() -> None:
    reports = [
        {"gate": {"kind": "metric"}, "passed": True, "detail": "auc is 0.9"},
        {"gate": {"kind": "pickle"}, "passed": False, "detail": "model.pkl is a pickle"},
    ]
    text = refused({"model": "churn", "version": "v20240115_bbbbbb", "gates": reports}, "production")
    assert "1 of 2 gates refused it. The alias is as it was." in text
    assert tables(text)["Gates"] == [
        ["metric", "yes", "auc is 0.9"],
        ["pickle", "**no**", "model.pkl is a pickle"],
    ]
