"""The graph of what was made from what, and walks over it: pure, from manifests and version records.

Nodes are runs, blobs and model versions. A blob is its digest: equal bytes are one blob in whatever format
they are stored. Edges lead from what was there first:

* ``input``: blob -> run, ``output``: run -> blob
* ``source``: run -> model version, ``training``: blob -> model version
* ``file``: blob -> model version that has it among its files, if a run put it out or it is the subject

``data`` is shown and never followed. What a run lists as ``data`` it may have read or written; the record
does not say which. To follow it either way would invent descent: all runs that list one training set would be
made from each other. So its edges (drawn blob -> run) are shown around the subject only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mltrack_tasks import layout
from mltrack_tasks.fields import format_time
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef

KINDS = ("run", "blob", "model")
DIRECTIONS = ("both", "upstream", "downstream")
MAX_NAMES = 10
"""Names of one blob that are told; a popular one may have thousands."""

_Names = set[tuple[str, str]]
"""What links two nodes: (kind of edge, name in the record)."""


@dataclass(frozen=True)
class Node:
    """A run (``id`` is its run id), a blob (its digest) or a model version (``<model>/<version>``)."""

    kind: str
    id: str
    label: str
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """Kind and id as one text, as edges name it."""
        return node_key(self.kind, self.id)


@dataclass(frozen=True)
class Edge:
    """``source`` was there before ``target``; ``names`` are those under which the record lists it."""

    source: str
    target: str
    kind: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """What the subject was made from, and what was made from it.

    ``nodes`` begin with the subject and go outward. ``steps_up`` and ``steps_down`` say how many edges a node
    is away on that side: on both in a cycle, on neither if it is only attached as ``data``. ``edges`` are all
    those between nodes that are shown. ``truncated``: there are more than ``max_nodes``; these are nearest.
    """

    direction: str
    depth: int | None
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    steps_up: Mapping[str, int]
    steps_down: Mapping[str, int]
    truncated: bool = False

    @property
    def subject(self) -> Node:
        """What the lineage is of."""
        return self.nodes[0]

    def upstream(self, kind: str | None = None) -> tuple[Node, ...]:
        """What the subject was made from, nearest first; of one kind if given. Never the subject itself."""
        return self._side(self.steps_up, kind)

    def downstream(self, kind: str | None = None) -> tuple[Node, ...]:
        """What was made from the subject, nearest first; of one kind if given. Never the subject itself."""
        return self._side(self.steps_down, kind)

    def to_json(self) -> dict[str, Any]:
        """Map onto plain JSON."""
        return {
            "subject": self.subject.key,
            "direction": self.direction,
            "depth": self.depth,
            "truncated": self.truncated,
            "nodes": [self._node_json(node) for node in self.nodes],
            "edges": [
                {"source": edge.source, "target": edge.target, "kind": edge.kind, "names": list(edge.names)}
                for edge in self.edges
            ],
        }

    def _side(self, steps: Mapping[str, int], kind: str | None) -> tuple[Node, ...]:
        if kind is not None:
            layout.check_choice(kind, KINDS, "The kind of node")
        nodes = [node for node in self.nodes if steps.get(node.key) and kind in (None, node.kind)]
        return tuple(sorted(nodes, key=lambda node: (steps[node.key], node.key)))

    def _node_json(self, node: Node) -> dict[str, Any]:
        return {
            "key": node.key,
            "kind": node.kind,
            "id": node.id,
            "label": node.label,
            "steps_up": self.steps_up.get(node.key),
            "steps_down": self.steps_down.get(node.key),
            "details": dict(node.details),
        }


def node_key(kind: str, id: str) -> str:
    """Kind and id of a node as one text."""
    return f"{kind}:{id}"


class Graph:
    """All links between runs, blobs and model versions, indexed both ways for one subject."""

    def __init__(
        self, runs: Iterable[RunManifest], versions: Iterable[ModelVersion], kind: str, id: str
    ) -> None:
        self.subject = node_key(kind, id)
        self._runs = {run.run_id: run for run in runs}
        self._versions = {f"{version.model}/{version.version}": version for version in versions}
        self._blobs: dict[str, list[tuple[bool, str, str, int]]] = {}
        self._targets: dict[str, dict[str, _Names]] = {}
        self._sources: dict[str, dict[str, _Names]] = {}
        for run in self._runs.values():
            self._add_run(run)
        for name, version in self._versions.items():
            self._add_version(name, version)

    def __contains__(self, key: str) -> bool:
        kind, _, id = key.partition(":")
        known: dict[str, Collection[str]] = {"run": self._runs, "blob": self._blobs, "model": self._versions}
        return id in known[kind]

    def add_blob(self, digest: str, name: str, format: str, size_bytes: int, *, path: bool = False) -> None:
        """Tell of one occurrence of a blob; paths name it only after what records call it."""
        self._blobs.setdefault(digest, []).append((path, name, format, size_bytes))

    def sources(self, key: str) -> Collection[str]:
        """Nodes that lead to this one."""
        return self._sources.get(key, {}).keys()

    def targets(self, key: str) -> Collection[str]:
        """Nodes that this one leads to."""
        return self._targets.get(key, {}).keys()

    def edges_from(self, source: str, among: Collection[str]) -> Iterator[Edge]:
        """Edges from a node to others of ``among``."""
        for target, names in self._targets.get(source, {}).items():
            if target in among:
                yield from _edges(source, target, names)

    def attached(self) -> list[Edge]:
        """Edges of ``data`` at the subject, but for what is an input or output of the run as well."""
        found: dict[tuple[str, str], _Names] = {}
        for run in self._around_subject():
            for name, ref in run.data.items():
                ends = node_key("blob", ref.hash), node_key("run", run.run_id)
                linked = ends[0] in self.sources(ends[1]) or ends[0] in self.targets(ends[1])
                if self.subject in ends and not linked:
                    found.setdefault(ends, set()).add(("data", name))
        return [edge for ends, names in sorted(found.items()) for edge in _edges(*ends, names)]

    def node(self, key: str) -> Node:
        """Describe a node."""
        kind, _, id = key.partition(":")
        make = {"run": self._run_node, "blob": self._blob_node, "model": self._model_node}[kind]
        return make(id)

    def _around_subject(self) -> Iterable[RunManifest]:
        kind, _, id = self.subject.partition(":")
        if kind == "run":
            return [self._runs[id]] if id in self._runs else []
        return self._runs.values() if kind == "blob" else []

    def _add_run(self, run: RunManifest) -> None:
        key = node_key("run", run.run_id)
        for name, ref in run.data.items():
            self._mention(name, ref)
        for name, ref in run.inputs.items():
            self._link(self._mention(name, ref), key, "input", name)
        for name, ref in run.outputs.items():
            self._link(key, self._mention(name, ref), "output", name)

    def _add_version(self, name: str, version: ModelVersion) -> None:
        """Needs the runs: a file that no run put out leads nowhere, and models have many of them."""
        key = node_key("model", name)
        for run_id in version.source_runs:
            self._link(node_key("run", run_id), key, "source", "")
        for label, ref in version.training_data.items():
            self._link(self._mention(label, ref), key, "training", label)
        for file in version.files:
            blob = node_key("blob", file.digest)
            if blob == self.subject or blob in self._sources:  # only runs lead to blobs
                self.add_blob(file.digest, file.shown_path, file.format, file.size_bytes, path=True)
                self._link(blob, key, "file", file.shown_path)

    def _mention(self, name: str, ref: DataRef) -> str:
        self.add_blob(ref.hash, name, ref.format, ref.size_bytes)
        return node_key("blob", ref.hash)

    def _link(self, source: str, target: str, kind: str, name: str) -> None:
        names = self._targets.setdefault(source, {}).setdefault(target, set())
        names.add((kind, name))
        self._sources.setdefault(target, {})[source] = names

    def _run_node(self, run_id: str) -> Node:
        run = self._runs.get(run_id)
        if run is None:  # a model version tells of it: a run of another store or tracking server
            return Node("run", run_id, run_id, {"stored": False})
        details = {"stored": True, "run_type": run.run_type, "status": run.status, "revision": run.revision}
        more = {"project": run.project, "model": run.model, "started_at": format_time(run.started_at)}
        return Node("run", run_id, run_id, {**details, **more})

    def _blob_node(self, digest: str) -> Node:
        """Called by what most records call it; its size as the records say."""
        told = self._blobs.get(digest, [])
        counts = Counter((path, name) for path, name, _, _ in told if name)
        ranked = sorted(counts, key=lambda each: (each[0], -counts[each], each[1]))
        names = list(dict.fromkeys(name for _, name in ranked))
        details = {
            "formats": sorted({format for _, _, format, _ in told}),
            "size_bytes": min((size for _, _, _, size in told), default=None),
            "names": names[:MAX_NAMES],
        }
        return Node("blob", digest, names[0] if names else digest[:12], details)

    def _model_node(self, name: str) -> Node:
        version = self._versions[name]
        details = {"model": version.model, "version": version.version, "tree_digest": version.tree_digest}
        more = {"files": len(version.files), "size_bytes": version.size_bytes}
        return Node("model", name, f"{version.model} {version.version}", {**details, **more})


def trace(graph: Graph, *, direction: str, depth: int | None, max_nodes: int) -> Lineage:
    """Walk from the subject, nearest first on both sides, until ``depth`` edges or ``max_nodes`` nodes."""
    sides = {"upstream": graph.sources, "downstream": graph.targets}
    if direction != "both":
        sides = {direction: sides[direction]}
    subject = graph.subject
    steps: dict[str, dict[str, int]] = {side: {subject: 0} for side in DIRECTIONS[1:]}
    frontiers: dict[str, Sequence[str]] = dict.fromkeys(sides, (subject,))
    shown, level, truncated = {subject: None}, 0, False
    while any(frontiers.values()) and level != depth:
        level += 1
        for side, neighbours in sides.items():
            near = {key for at in frontiers[side] for key in neighbours(at)}
            new = sorted(near - steps[side].keys())
            taken = _take(new, shown, max_nodes)
            truncated = truncated or len(taken) < len(new)
            steps[side].update(dict.fromkeys(taken, level))
            frontiers[side] = taken
    attached = graph.attached() if depth != 0 else []
    others = sorted({end for edge in attached for end in (edge.source, edge.target)} - {subject})
    truncated = truncated or len(_take(others, shown, max_nodes)) < len(others)
    return Lineage(
        direction=direction,
        depth=depth,
        nodes=tuple(map(graph.node, shown)),
        edges=_edges_among(graph, shown, attached),
        steps_up=steps["upstream"],
        steps_down=steps["downstream"],
        truncated=truncated,
    )


def _take(new: Sequence[str], shown: dict[str, None], max_nodes: int) -> list[str]:
    """Show what is new as long as there is room -> those of ``new`` that are shown."""
    for key in new:
        if len(shown) < max_nodes:
            shown[key] = None
    return [key for key in new if key in shown]


def _edges_among(graph: Graph, shown: Collection[str], attached: Iterable[Edge]) -> tuple[Edge, ...]:
    edges = [edge for key in shown for edge in graph.edges_from(key, shown)]
    edges += [edge for edge in attached if edge.source in shown and edge.target in shown]
    return tuple(sorted(edges, key=lambda edge: (edge.source, edge.target, edge.kind)))


def _edges(source: str, target: str, names: _Names) -> Iterator[Edge]:
    for kind in sorted({kind for kind, _ in names}):
        yield Edge(source, target, kind, tuple(sorted(name for each, name in names if each == kind and name)))
