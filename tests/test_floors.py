"""Imports go downward only: the floors of the package, checked on its syntax trees."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mltrack_tasks"
FLOORS = {
    0: ("errors", "events", "canonical", "digest", "layout", "fields", "refs", "records", "parallel"),
    1: ("codecs",),
    2: ("stores",),
    3: (
        *("access", "blobs", "content", "deletions", "delivery", "manifests", "provenance", "recordstore"),
        *("run_inputs", "runs", "sources", "values"),
    ),
    4: ("__init__", "blocks", "resolve", "tasking", "tasks"),
}
"""``testing`` stands beside the floors: it checks stores, and may use anything up to floor 2."""
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names} | {"testing": 2}
PREFECT = ("prefect", "prefect_aws", "prefect_dask")
SERVICE = ("boto3", "botocore", "obstore")
DATA = ("pandas", "pyarrow", "numpy")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Top-level name within the package: of the module, or of the folder that holds it."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every absolute name that a module imports, wherever in it; type checkers' imports too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    floor = FLOOR_OF[name_of(path)]
    for name in imports(path):
        if name.startswith("mltrack_tasks."):
            below = FLOOR_OF.get(name.split(".")[1], floor)
            assert below <= floor, f"{path.name} (floor {floor}) imports {name} (floor {below})"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_each_floor_knows_its_own_libraries_only(path: Path) -> None:
    floor, name = FLOOR_OF[name_of(path)], name_of(path)
    roots = {imported.partition(".")[0] for imported in imports(path)}
    if floor < 4:
        assert not roots & set(PREFECT)
    if name not in ("stores", "testing") and floor < 4:
        assert not roots & set(SERVICE)
    if name != "codecs":
        assert not roots & set(DATA)
    if floor == 0:
        assert roots <= {"mltrack_tasks", *sys.stdlib_module_names}


def test_every_module_has_a_floor() -> None:
    assert {name_of(path) for path in modules()} <= set(FLOOR_OF)
    there = {name_of(path) for path in modules()}
    assert {name for names in FLOORS.values() for name in names} <= there
