"""The floors: imports go downward only, each kind of work has its one place, and modules stay small.

Read from the source with ``ast``, so that imports inside functions and under TYPE_CHECKING count as well.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, FLOWS = "mltrack_tasks", "flows"

FLOORS: tuple[tuple[str, frozenset[str], tuple[str, ...]], ...] = (
    (
        "0 pure",
        frozenset(),
        (
            *("errors", "events", "canonical", "digest", "layout", "fields", "refs", "records"),
            *(
                "parallel",
                "paths",
                "modelkeys",
                "models",
                "promotions",
                "registrations",
                "runfilter",
                "chart",
                "usage_stats",
                "lineage_graph",
            ),
            *("bucket", "bucket.naming", "bucket.merging", "bucket.judging", "bucket.policies"),
            *("removals", "lineage_text", "filetree", "receipts", "migrations", "migrated", "plan"),
            *("pricing", "pricing.prices", "pricing.bills", "pricing.tally", "pricing.lifecycle"),
            *("pricing.whatif", "pricing.figures", "memory", "roles", "permissions"),
            *("arrivals", "arrivals.notices", "arrivals.keys", "formats"),
        ),
    ),
    (
        "1 codecs and tables",
        frozenset({"numpy", "pandas", "pyarrow", "duckdb", "yaml", "picklescan"}),
        (
            *("codecs", "codecs.description", "codecs.kinds", "codecs.spec"),
            *("codecs.thrift", "codecs.pages", "codecs.parquet", "codecs.zstd"),
            *("codecs.arrays", "codecs.column", "codecs.cells", "codecs.plain", "codecs.timezones"),
            *("codecs.temporal", "codecs.objects", "codecs.columns", "codecs.index"),
            *("codecs.composites", "codecs.frames"),
            *("tables", "tables.runcells", "tables.runparts", "tables.runrows", "tables.runtable"),
            *(
                "tables.rangefile",
                "tables.pageroom",
                "tables.ranges",
                "tables.admission",
                "tables.sandbox",
                "tables.results",
            ),
            *("mlflowdata", "mlflowdata.facts", "mlflowdata.words", "mlflowdata.scalars", "mlflowdata.yamls"),
            *("mlflowdata.textfiles", "mlflowdata.treelayout", "mlflowdata.filestore", "mlflowdata.rows"),
            *(
                "mlflowdata.rowfacts",
                "mlflowdata.registryrows",
                "mlflowdata.database",
                "mlflowdata.history",
                "mlflowdata.addresses",
            ),
            *(
                "mlflowdata.repointing",
                "mlflowdata.repointrows",
                "mlflowdata.mlmodel",
                "mlflowdata.modelsources",
            ),
            *("pickles", "picklebytes", "picklemodels", "pickleops"),
        ),
    ),
    (
        "2 stores",
        frozenset({"obstore", "boto3", "botocore"}),
        (
            *(
                "stores",
                "stores.base",
                "stores.lastlook",
                "stores.files",
                "stores.memory",
                "stores.directory",
                "stores.retry",
            ),
            *("stores.observed", "stores.cache", "stores.guard"),
            *("stores.redirects", "stores.s3_errors", "stores.s3_settings"),
            *(
                "stores.s3_objects",
                "stores.s3_parts",
                "stores.s3_upload",
                "stores.s3_answers",
                "stores.s3_copy",
                "stores.s3_heads",
                "stores.s3_versions",
                "stores.s3",
                "stores.identity",
                "stores.traces",
                "stores.asking",
                "stores.probe",
                "stores.s3_inventory",
                "stores.s3_restore",
                "stores.s3_tiers",
                "stores.s3_documents",
                "stores.trails",
                "stores.s3_bucket",
                "stores.queues",
                "stores.queue_setup",
            ),
            *("localtree", "localtree.folders", "localtree.leftovers", "localtree.newfile"),
            *("localtree.reading", "localtree.scanning", "localtree.together", "localtree.writing"),
            "localtree.deleting",
        ),
    ),
    (
        "3 operations",
        frozenset({"pydantic", "mlflow", "joblib"}),
        (
            *("codeversion", "provenance", "sources", "delivery", "recordstore", "deletions", "blobs"),
            *("archives", "copies", "restores"),
            *(
                "values",
                "unpacking",
                "run_inputs",
                "manifests",
                "content",
                "resultfiles",
                "runlog",
                "snapshots",
                "catalog",
                "treeparts",
            ),
            *("compaction", "runs", "views", "lineage", "usage", "query", "captured", "signatures"),
            *("checking", "checking.report", "checking.grants", "checking.rules", "checking.speed"),
            *(
                "access",
                "migration",
                "migration.groups",
                "migration.origin",
                "migration.databases",
                "migration.loggedmodels",
                "migration.registries",
                "migration.registrychoice",
                "migration.hashcache",
                "migration.hashing",
            ),
            *(
                "migration.scan",
                "migration.existing",
                "migration.state",
                "migration.changes",
                "migration.losses",
                "migration.receiptlists",
                "migration.planning",
                "migration.runplan",
            ),
            *("migration.sending", "migration.uploading", "migration.mlflowruns"),
            *("migration.runmanifests", "migration.verification", "migration.finishing"),
            *("migration.modelplan", "migration.aliaswriting", "migration.modelwriting"),
            *(
                "migration.deletion",
                "migration.estimate",
                "migration.report",
                "migration.migrate",
                "migration.restoring",
            ),
            *("migration.selecting", "migration.storecopy", "migration.repoint", "migration.download"),
            *("registry", "registry.numbered", "registry.aliases", "registry.reading", "registry.identity"),
            *(
                "registry.sourcefiles",
                "registry.storedruns",
                "registry.tracking",
                "registry.trackedruns",
                "registry.trackingclient",
                "registry.trackingerrors",
                "registry.modelsource",
            ),
            *(
                "registry.materialising",
                "registry.blobfile",
                "registry.gates",
                "registry.asking",
                "registry.policies",
            ),
            *("registry.registering", "registry.moving", "registry.rolling", "registry.promoting"),
            *("registry.deprecating", "registry.listing"),
            *("registry.downloading", "registry.copying", "registry.modeltrust", "registry.loading"),
            *("registry.loadmodel", "registry.removals", "registry.versionrecords"),
            *("trust", "trust.needs", "trust.readers", "trust.roots", "trust.findings", "trust.references"),
            *("trust.walk", "trust.checks", "trust.structure", "trust.journal", "trust.knownkeys"),
            *("trust.remainder", "trust.audit", "trust.verify", "trust.remedies", "trust.records"),
            *("trust.healing", "trust.agenda", "trust.descriptions", "trust.blobheal", "trust.heal"),
            *(
                "collecting",
                "collecting.keys",
                "collecting.listing",
                "collecting.keptmarks",
                "collecting.marks",
                "collecting.clock",
            ),
            *("collecting.plans", "collecting.planning", "collecting.batches", "collecting.sweeping"),
            *("collecting.collect", "collecting.removing", "collecting.retention", "collecting.retaining"),
            *("storedblob", "replication", "replication.order", "replication.compare", "replication.report"),
            *("replication.records", "replication.blobs", "replication.missing", "replication.following"),
            *("replication.progress", "replication.replicate"),
            *("costs", "costs.owners", "costs.counting", "costs.estimate"),
            *("collecting.undoing", "collecting.outdated", "collecting.versions"),
            *("collecting.ownership", "collecting.inuse", "collecting.removalplans", "collecting.removals"),
            *("collecting.migrations", "collecting.ranges"),
            *("bucket.settings", "bucket.rules", "bucket.wishing", "bucket.linking", "bucket.planning"),
            *("arrivals.batches", "arrivals.holding", "arrivals.report", "arrivals.process"),
            *("bucket.history", "bucket.report", "bucket.applying", "bucket.provision", "bucket.reverting"),
        ),
    ),
    (
        "4 Prefect",
        frozenset({"prefect", "prefect_aws", "pydantic", "httpx"}),
        (
            *("credentials", "blocks", "resolve", "tasking", "artifacts", "transfers", "capturing"),
            *(
                "granting",
                "forms",
                "runlinks",
                "starting",
                "caching",
                "objectlinks",
                "assets",
                "tasks.arrivals",
            ),
            *("calls", "promotiontext", "promoted", "transactions", "tasks.registry"),
            *(
                "tasks",
                "tasks.data",
                "tasks.runs",
                "tasks.search",
                "tasks.migration",
                "tasks.admin",
                "tasks.replication",
                "tasks.trust",
                "tasks.cleaning",
                "tasks.costs",
                "__main__",
                "tasks.archives",
                "tasks.removing",
                "tasks.bucket",
            ),
        ),
    ),
)
"""Lowest first: a name, the libraries beside Python's own that may be imported there, and the modules.

A new module must be entered here. Everything in ``flows/`` is floor 5.
"""

FLOW_LIBRARIES = frozenset({"prefect", "pydantic"})

APART = {
    "": "the package itself: lazy names of every floor, which nothing inside may use",
    "testing.__main__": "",
    "testing": "checks that users run; they need pytest",
    "testing.contract": "",
    "testing.copies": "",
    "testing.levels": "",
    "testing.raw": "",
    "testing.uploads": "",
}
TESTING_FLOOR = 2
"""``testing`` stands on the stores, and nothing stands on it."""

FLOOR_OF = {module: number for number, (_, _, modules) in enumerate(FLOORS) for module in modules}

MAY_IMPORT_BY_NAME = {"codecs.timezones", "registry.modeltrust"}
"""The one looks for pytz, whose zones pandas takes and which need not be installed. The other asks
scikit-learn, which loading imports next, whether a class that a model names is its own."""

MAX_MODULE, MAX_FUNCTION = 300, 50
"""[lines]; a function's docstring does not count."""


@dataclass(frozen=True)
class Import:
    """One import statement's target: a module of ours (its name below the package), or a library."""

    target: str
    ours: bool
    line: int
    typing_only: bool


def _path_of(module: str) -> Path:
    path = ROOT / PACKAGE / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _modules() -> list[str]:
    """Name every module below the package: ``""`` is the package itself, ``stores`` a folder's own."""
    parts = [
        path.relative_to(ROOT / PACKAGE).with_suffix("").parts for path in (ROOT / PACKAGE).rglob("*.py")
    ]
    return sorted(".".join(part for part in each if part != "__init__") for each in parts)


MODULES = _modules()
FLOW_FILES = sorted((ROOT / FLOWS).rglob("*.py"))


def _typing_nodes(tree: ast.AST) -> set[ast.AST]:
    """Everything below ``if TYPE_CHECKING:``."""
    guarded = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )
    return {inner for node in guarded for statement in node.body for inner in ast.walk(statement)}


def _targets(node: ast.AST, package: str) -> Iterator[str]:
    """Name what a statement imports: of ``from a import b``, ``a.b`` if that is a module, else ``a``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base]).rstrip(".")
        for alias in node.names:
            below = f"{base}.{alias.name}".removeprefix(f"{PACKAGE}.")
            yield f"{PACKAGE}.{below}" if base.split(".")[0] == PACKAGE and below in MODULES else base


@functools.cache
def _imports(path: Path) -> list[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = _typing_nodes(tree)
    package = ".".join(path.relative_to(ROOT).parent.parts)
    found = []
    for node in ast.walk(tree):
        for name in _targets(node, package):
            top, _, below = name.partition(".")
            ours = top == PACKAGE
            found.append(Import(below if ours else top, ours, node.lineno, node in typing_only))  # type: ignore[attr-defined]
    return found


def _floor_name(number: int) -> str:
    return FLOORS[number][0] if number < len(FLOORS) else "5 flows"


def test_every_module_has_a_floor() -> None:
    listed = [*FLOOR_OF, *APART]
    assert sorted(listed) == MODULES, "enter each module of mltrack_tasks in FLOORS, once"
    assert len(listed) == sum(len(modules) for _, _, modules in FLOORS) + len(APART)


def _wrong_import(module: str, found: Import) -> str | None:
    floor = FLOOR_OF[module]
    if not found.ours:
        return None
    where = f"{module} (floor {_floor_name(floor)}), line {found.line}"
    if found.target not in FLOOR_OF:
        return f"{where} imports {found.target or PACKAGE!r}, which stands apart"
    target = FLOOR_OF[found.target]
    return None if target <= floor else f"{where} imports {found.target}, above: {_floor_name(target)}"


# Whole floors are tested at once: five hundred modules times six rules take longer to count than to look at.
EACH_FLOOR = pytest.mark.parametrize("number", range(len(FLOORS)), ids=[name for name, _, _ in FLOORS])


@EACH_FLOOR
def test_imports_go_downward(number: int) -> None:
    wrong = [
        _wrong_import(module, each) for module in FLOORS[number][2] for each in _imports(_path_of(module))
    ]
    assert not [each for each in wrong if each]


@EACH_FLOOR
def test_a_library_is_used_on_its_floor_only(number: int) -> None:
    allowed = FLOORS[number][1] | sys.stdlib_module_names
    used = [(module, each) for module in FLOORS[number][2] for each in _imports(_path_of(module))]
    assert not [
        (module, each.target, each.line)
        for module, each in used
        if not each.ours and each.target not in allowed
    ]


@EACH_FLOOR
def test_no_import_hides_in_a_string(number: int) -> None:
    texts = {
        module: _path_of(module).read_text(encoding="utf-8")
        for module in set(FLOORS[number][2]) - MAY_IMPORT_BY_NAME
    }
    assert not [name for name, text in texts.items() if "import_module" in text or "__import__" in text]


@EACH_FLOOR
def test_no_circles_within_a_floor(number: int) -> None:
    """Also none that imports inside functions would hide."""
    graph = {
        module: {
            found.target
            for found in _imports(_path_of(module))
            if found.ours and not found.typing_only and found.target != module
        }
        for module in FLOORS[number][2]
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' <- '.join(error.args[1])}")


def test_testing_stands_on_the_stores() -> None:
    for module in APART:
        if not module:
            continue
        for found in _imports(_path_of(module)):
            if found.ours:
                floor = FLOOR_OF.get(found.target, TESTING_FLOOR if found.target in APART else 99)
                assert floor <= TESTING_FLOOR, f"{module}, line {found.line}: {found.target}"
            else:
                assert found.target in {"pytest", "obstore"} | sys.stdlib_module_names, module


@pytest.mark.parametrize("path", FLOW_FILES, ids=lambda path: path.name)
def test_flows_hold_no_work_of_their_own(path: Path) -> None:
    """They call tasks; what speaks to S3 or encodes frames is below."""
    for found in _imports(path):
        if found.ours:
            floor = FLOOR_OF.get(found.target)
            assert found.target == "" or floor in (0, len(FLOORS) - 1), f"{path.name}, line {found.line}"
        else:
            allowed = FLOW_LIBRARIES | {FLOWS, "mltrack_flows"} | sys.stdlib_module_names
            assert found.target in allowed, f"{path.name}, line {found.line}: {found.target}"


SOURCES = [*map(_path_of, MODULES), *FLOW_FILES, *sorted((ROOT / "deployments").glob("*.py"))]


def test_modules_and_functions_stay_small() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES}
    assert not [name for name, text in texts.items() if len(text.splitlines()) > MAX_MODULE]
    assert not [
        (name, function.name, function.lineno)
        for name, text in texts.items()
        for function in _functions(ast.parse(text))
        if _length(function) > MAX_FUNCTION
    ]


def test_what_is_public_has_a_docstring() -> None:
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if (
                isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                and node.name[0] != "_"
            ):
                assert ast.get_docstring(node), f"{path}: {node.name}, line {node.lineno}"


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


# what the source says, shown by running it


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ([""], {"prefect", "numpy", "pandas", "pyarrow", "obstore", "boto3", "pydantic"}),
        (FLOORS[0][2], {"prefect", "numpy", "pandas", "pyarrow", "obstore", "boto3", "pydantic"}),
        ([module for module, floor in FLOOR_OF.items() if floor <= 2], {"prefect", "pydantic", "mlflow"}),
        ([module for module, floor in FLOOR_OF.items() if floor <= 3], {"prefect", "mlflow"}),
    ],
    ids=["the package", "floor 0", "floors 0 to 2", "floors 0 to 3"],
)
def test_what_is_not_loaded(modules: list[str], absent: set[str]) -> None:
    names = [f"{PACKAGE}.{module}".rstrip(".") for module in modules]
    program = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & absent
