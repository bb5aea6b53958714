"""The names that users' code depends on: a change of them must be meant.

``public_names.txt`` holds what is promised. Write it anew with MLTRACK_UPDATE_PUBLIC_NAMES=1, and say in the
changelog what changed.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prefect import Task

import mltrack_tasks
from mltrack_tasks import (
    MLTrackStore,
    access,
    compaction,
    content,
    costs,
    lineage,
    migration,
    query,
    registry,
    restores,
    runs,
    usage,
    views,
)
from mltrack_tasks.arrivals import process
from mltrack_tasks.bucket import provision, reverting
from mltrack_tasks.collecting import collect, migrations, removals, removing, retaining, undoing, versions
from mltrack_tasks.replication import progress as replica
from mltrack_tasks.replication import replicate
from mltrack_tasks.trust import heal, verify

PROMISED = Path(__file__).with_name("public_names.txt")
OPERATIONS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(
            access,
            collect,
            compaction,
            content,
            costs,
            heal,
            lineage,
            migration,
            query,
            registry,
            runs,
            replica,
            replicate,
            usage,
            verify,
        ),
        *(migrations, removals, removing, restores, retaining, undoing, versions, views),
        *(process, provision, reverting),
    )
}
"""The modules of floor 3; a task and its operation share the verb."""
THREE = {
    *("register_model", "promote_model", "download_model", "model_at", "copy_model", "set_policy"),
}
"""Tasks that name a model, a version or alias, and what to do with it, in this order."""
HEAVY = {"boto3", "botocore", "obstore", "pandas", "prefect", "prefect_aws", "pyarrow", "pydantic"}

TASKS: dict[str, Task[..., Any]] = {
    name: thing for name in mltrack_tasks.__all__ if isinstance(thing := getattr(mltrack_tasks, name), Task)
}


def operation(verb: str) -> tuple[str, Callable[..., Any]]:
    """The plain function behind a task, and its full name."""
    ((module, function),) = [
        (name, found)
        for name, module in OPERATIONS.items()
        if (found := getattr(module, verb, None)) and _is_of(found, module)
    ]
    return f"{module}.{verb}", function


def _is_of(function: Callable[..., Any], module: ModuleType) -> bool:
    """Whether a function is a module's own, or, of a package, one that it hands on from inside."""
    return (function.__module__ + ".").startswith(module.__name__ + ".")


class _Shown:
    """A function as a default, shown by its name: its repr holds an address."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    @classmethod
    def of(cls, default: Any) -> Any:
        return cls(default.__name__) if inspect.isfunction(default) else default


def signature(name: str, function: Callable[..., Any]) -> str:
    """Order, kinds, defaults and the return annotation; the types of parameters may become wider."""
    found = inspect.signature(function)
    bare = [
        each.replace(annotation=inspect.Parameter.empty, default=_Shown.of(each.default))
        for each in found.parameters.values()
    ]
    plain = found.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    returns = found.return_annotation
    return f"{name}{plain}" + (f" -> {returns}" if returns is not inspect.Signature.empty else "")


def public_names() -> Iterator[str]:
    """What is promised, a line each."""
    yield "# names"
    yield from mltrack_tasks.__all__
    yield "# tasks"
    yield from (signature(name, task.fn) for name, task in TASKS.items())
    yield "# functions"
    yield from sorted(signature(*operation(name)) for name in TASKS)
    yield "# values"
    for name in mltrack_tasks.__all__:
        thing = getattr(mltrack_tasks, name)
        if isinstance(thing, type) and dataclasses.is_dataclass(thing):
            yield signature(name, thing).removesuffix(" -> None")
    yield "# fields of the block"
    for name, field in MLTrackStore.model_fields.items():
        default = field.default_factory or field.default
        yield f"{name} = {default.__name__ + '()' if callable(default) else repr(default)}"


def test_the_public_names_are_what_is_promised(given: Mapping[str, str]) -> None:
    found = "\n".join([*public_names(), ""])
    if given.get("MLTRACK_UPDATE_PUBLIC_NAMES"):
        PROMISED.write_text(found, encoding="utf-8")
    promised = PROMISED.read_text(encoding="utf-8")
    changes = difflib.unified_diff(
        promised.splitlines(), found.splitlines(), "promised", "found", lineterm="", n=0
    )
    assert found == promised, "\n".join(["public names changed:", *changes])


@pytest.mark.parametrize("name", TASKS)
def test_a_task_and_its_function_take_the_same(name: str) -> None:
    """Parameters, order, kinds, defaults and types are equal; the store comes last here and first there."""
    there = dict(inspect.signature(operation(name)[1]).parameters)
    here = dict(inspect.signature(TASKS[name].fn).parameters)
    assert ("store" in here) == ("store" in there)
    if "store" in here:
        assert next(iter(there)) == "store"
        assert list(here)[-1] == "store"
        store = here.pop("store")
        assert (store.kind, store.default) == (store.KEYWORD_ONLY, None)
        del there["store"]
    there.pop("observe", None)
    if there.pop("act", None):  # the task runs a deployment
        for own in ("deployment", "parameter", "parameters", "wait"):
            del here[own]
        del there["own_deployment"]
    here.pop("progress", None)  # what a task has in the place of an observer
    for other in ("target", "target_store"):
        assert (other in here) == (other in there)
    for each in (here, there):
        for stores in ("target", "target_store", "replicas"):
            each.pop(stores, None)  # blocks or addresses in a task, open stores in its function
    assert list(here.values()) == list(there.values())


@pytest.mark.parametrize("name", TASKS)
def test_beyond_the_first_two_arguments_are_named(name: str) -> None:
    kinds = [each.kind for each in inspect.signature(TASKS[name].fn).parameters.values()]
    allowed = 3 if name in THREE else 2
    assert len([kind for kind in kinds if kind is not inspect.Parameter.KEYWORD_ONLY]) <= allowed


def test_the_lazy_names_are_the_typed_names() -> None:
    """A type checker reads the imports under TYPE_CHECKING, Python the table of homes."""
    tree = ast.parse(Path(mltrack_tasks.__file__).read_text(encoding="utf-8"))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(typed.body)
    seen = [(str(node.module), alias) for node in imports for alias in node.names]
    assert all(alias.name == alias.asname for _, alias in seen)  # that is a re-export
    homes = {alias.name: module.removeprefix("mltrack_tasks.") for module, alias in seen}
    assert homes == mltrack_tasks._HOME_OF
    assert sorted(homes) == mltrack_tasks.__all__


def test_each_name_is_there_and_others_are_not() -> None:
    for name in mltrack_tasks.__all__:
        assert getattr(mltrack_tasks, name).__module__.startswith("mltrack_tasks.") or name in TASKS
        assert name in dir(mltrack_tasks)
    with pytest.raises(AttributeError, match="store_date"):
        mltrack_tasks.store_date  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, mltrack_tasks; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROMISED.parents[1], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "mltrack_tasks" in loaded
    assert not loaded & HEAVY
