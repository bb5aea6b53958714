"""Lineage: what a run, a blob or a model version was made from, and what was made from it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from mltrack_tasks import events, layout
from mltrack_tasks.catalog import current_manifests
from mltrack_tasks.errors import FormatError, IntegrityError, InvalidInputError, NotFoundError
from mltrack_tasks.events import Observe, log_event
from mltrack_tasks.lineage_graph import DIRECTIONS, Edge, Graph, Lineage, Node, node_key, trace
from mltrack_tasks.lineage_text import to_markdown, to_mermaid
from mltrack_tasks.modelkeys import VERSIONS, parse_version_key, version_key
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.refs import DataRef, blob_named
from mltrack_tasks.registry.reading import read_version
from mltrack_tasks.runs import get_run
from mltrack_tasks.stores.base import Store

__all__ = ["Edge", "Lineage", "Node", "to_markdown", "to_mermaid", "trace_lineage"]

MAX_NODES = 1_000


def trace_lineage(
    store: Store,
    *,
    run_id: str | None = None,
    ref: DataRef | str | None = None,
    model: str | None = None,
    version: str | None = None,
    direction: str = "both",
    depth: int | None = None,
    max_nodes: int = MAX_NODES,
    observe: Observe = log_event,
) -> Lineage:
    """Trace what the subject was made from and what was made from it -> its lineage.

    The subject is a run (``run_id``), a blob (``ref``: a DataRef, its text or a digest) or a version of a
    model (``model`` and ``version``); a run id may look like a digest, so which it is must be said. The links
    are the ``inputs`` and ``outputs`` of runs, and source runs, training data and files of model versions.
    What runs list as ``data`` is shown beside the subject and not followed: the record does not say whether
    it was read or made. The format of a ref plays no part: equal bytes are one blob.

    ``direction`` is both, upstream or downstream. ``depth`` counts links: 1 from a run are its inputs and
    outputs, 2 the runs behind those; None is all. ``max_nodes`` keeps the nearest (``truncated`` tells).
    Damaged records are left out with a warning in the log, but for the subject's own.

    Raises NotFoundError if there is no such run or version, or no such blob that anything lists or this store
    holds; InvalidInputError for another combination of arguments.
    """
    layout.check_choice(direction, DIRECTIONS, "The direction")
    _check_number(depth, "depth", 0)
    _check_number(max_nodes, "max_nodes", 1)
    kind, id = _subject(run_id, ref, model, version)
    runs = current_manifests(store, observe=observe)
    if run_id is not None and all(run.run_id != run_id for run in runs):
        runs.append(get_run(store, run_id))  # stored meanwhile, or it raises what is wrong with it
    if model is not None and version is not None:
        versions = [read_version(store, model, version)]
    else:  # nothing leads from a version, so others than the subject can only be downstream
        versions = [] if direction == "upstream" else _versions(store)
    graph = Graph(runs, versions, kind, id)
    if ref is not None and node_key(kind, id) not in graph:
        _add_stored_blob(store, graph, id)
    return trace(graph, direction=direction, depth=depth, max_nodes=max_nodes)


def _subject(
    run_id: str | None, ref: DataRef | str | None, model: str | None, version: str | None
) -> tuple[str, str]:
    """Check what is asked for -> kind and id of its node."""
    if [run_id, ref, model].count(None) != 2 or (model is None) != (version is None):
        raise InvalidInputError(
            "Give one subject of a lineage: run_id=..., ref=..., or model=... together with version=...."
        )
    if run_id is not None:
        layout.manifest_key(run_id)
        return "run", run_id
    if ref is not None:
        return "blob", blob_named(ref)[0]
    version_key(str(model), str(version))
    return "model", f"{model}/{version}"


def _check_number(value: object, what: str, least: int) -> None:
    if value is None and what == "depth":
        return
    if type(value) is not int or value < least:
        raise InvalidInputError(f"{what} is {value!r}; give a whole number from {least}.")


def _versions(store: Store) -> list[ModelVersion]:
    """Read the records of all versions of all models; what is damaged is left out with a warning."""
    places = filter(None, (parse_version_key(stat.key) for stat in store.list(VERSIONS)))
    found: Iterable[ModelVersion | None] = map_ordered(
        partial(_try_version, store), places, store.max_workers
    )
    return [version for version in found if version is not None]


def _try_version(store: Store, place: tuple[str, str]) -> ModelVersion | None:
    try:
        return read_version(store, *place)
    except NotFoundError:
        return None  # removed meanwhile
    except (IntegrityError, FormatError) as error:
        events.logger.warning("left out: %s", error)
        return None


def _add_stored_blob(store: Store, graph: Graph, digest: str) -> None:
    """Admit a blob that nothing lists, if it is stored at all."""
    for stat in store.list(layout.blob_folder(digest)):
        blob = layout.parse_blob_key(stat.key)
        if blob is not None:
            graph.add_blob(digest, "", blob[1], stat.size)
    if node_key("blob", digest) not in graph:
        raise NotFoundError(
            f"The blob {digest} is not in {store.location}, and no run or model version there lists it.",
            details={"digest": digest},
        )
