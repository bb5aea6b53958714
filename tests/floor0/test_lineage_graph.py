"""Walks over lineage equal a naive reference on any graph: cycles, dead ends, limits and all."""

from __future__ import annotations

import json
import math
from random import Random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import lineage_text
from mltrack_tasks.lineage_graph import Graph, Lineage, trace
from mltrack_tasks.lineage_text import to_mermaid
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from tests.floor0.lineages import a_version, digest_of, ref_to


def some_refs(random: Random, most: int) -> dict[str, DataRef]:
    return {name: ref_to(random.randrange(6)) for name in "abc"[: random.randint(0, most)]}


def a_run(random: Random, number: int) -> RunManifest:
    groups = {group: some_refs(random, 2) for group in ("inputs", "outputs", "data")}
    return RunManifest(str(number), **groups)


def some_version(random: Random, number: int) -> ModelVersion:
    sources = tuple({str(random.randrange(8)) for _ in range(random.randint(0, 2))})
    files = {"in every model": ref_to(99), **some_refs(random, 3)}
    return a_version(f"m{number}", files, source_runs=sources, training_data=some_refs(random, 2))


class Case(NamedTuple):
    runs: list[RunManifest]
    versions: list[ModelVersion]
    kind: str
    id: str
    direction: str
    depth: int | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Six blobs between up to seven runs and three models, so that most of them hang together."""
    random = draw(st.randoms(use_true_random=False))
    runs = [a_run(random, number) for number in range(random.randint(1, 7))]
    versions = [some_version(random, number) for number in range(random.randint(0, 3))]
    subjects = [("run", run.run_id) for run in runs]
    subjects += [("blob", digest_of(number)) for number in (*range(6), 99)]
    subjects += [("model", f"{version.model}/{version.version}") for version in versions]
    kind, id = random.choice(subjects)
    direction = random.choice(["both", "both", "upstream", "downstream"])
    return Case(runs, versions, kind, id, direction, random.choice([None, None, None, 0, 1, 2, 3]))


def naive_links(case: Case) -> set[tuple[str, str, str, str]]:
    """(source, target, kind, name) of everything that is followed."""
    links = set()
    for run in case.runs:
        links |= {(f"blob:{r.hash}", f"run:{run.run_id}", "input", n) for n, r in run.inputs.items()}
        links |= {(f"run:{run.run_id}", f"blob:{r.hash}", "output", n) for n, r in run.outputs.items()}
    made = {target for _, target, kind, _ in links if kind == "output"} | {f"{case.kind}:{case.id}"}
    for version in case.versions:
        key = f"model:{version.model}/{version.version}"
        links |= {(f"run:{run_id}", key, "source", "") for run_id in version.source_runs}
        links |= {(f"blob:{r.hash}", key, "training", n) for n, r in version.training_data.items()}
        files = {(f"blob:{file.digest}", key, "file", file.path) for file in version.files}
        links |= {link for link in files if link[0] in made}
    return links


def naive_steps(pairs: set[tuple[str, str]], subject: str, depth: int | None) -> dict[str, int]:
    """How many pairs lead from the subject to each node."""
    steps, level = {subject: 0}, 0
    while level != depth:
        level += 1
        new = {b for a, b in pairs if steps.get(a) == level - 1 and b not in steps}
        if not new:
            break
        steps |= dict.fromkeys(new, level)
    return steps


def naive_data(case: Case, links: set[tuple[str, str, str, str]]) -> set[tuple[str, str, str, str]]:
    pairs = {(a, b) for a, b, _, _ in links}
    subject = f"{case.kind}:{case.id}"
    data = {
        (f"blob:{ref.hash}", f"run:{run.run_id}", "data", name)
        for run in case.runs
        for name, ref in run.data.items()
    }
    return {d for d in data if subject in d[:2] and not {d[:2], (d[1], d[0])} & pairs and case.depth != 0}


@given(cases())
def test_a_lineage_equals_the_naive_one(case: Case) -> None:
    links = naive_links(case)
    subject = f"{case.kind}:{case.id}"
    down = {(a, b) for a, b, _, _ in links} if case.direction != "upstream" else set()
    up = {(b, a) for a, b, _, _ in links} if case.direction != "downstream" else set()
    steps_down, steps_up = naive_steps(down, subject, case.depth), naive_steps(up, subject, case.depth)
    data = naive_data(case, links)
    shown = {*steps_up, *steps_down, *(end for each in data for end in each[:2])}
    found = trace_case(case, 10_000)
    assert {node.key for node in found.nodes} == shown
    assert len(found.nodes) == len(shown)
    assert (found.steps_up, found.steps_down) == (steps_up, steps_down)
    assert flat(found) == {link for link in links | data if {*link[:2]} <= shown}
    assert {node.key for node in found.upstream()} == steps_up.keys() - {subject}
    assert {node.key for node in found.downstream()} == steps_down.keys() - {subject}
    assert not found.truncated
    again = Case(case.runs[::-1], case.versions[::-1], *case[2:])
    assert trace_case(again, 10_000) == found
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


@given(cases(), st.integers(1, 8))
def test_the_nearest_are_kept(case: Case, most: int) -> None:
    whole, part = trace_case(case, 10_000), trace_case(case, most)
    assert len(part.nodes) == min(most, len(whole.nodes))
    assert part.truncated is (len(whole.nodes) > most)
    kept = {node.key for node in part.nodes}
    far = {
        key: min(whole.steps_up.get(key, math.inf), whole.steps_down.get(key, math.inf))
        for key in keys(whole)
    }
    assert max(far[key] for key in kept) <= min((far[key] for key in far.keys() - kept), default=math.inf)
    assert part.steps_up.items() <= whole.steps_up.items()
    assert part.steps_down.items() <= whole.steps_down.items()
    assert flat(part) == {link for link in flat(whole) if {*link[:2]} <= kept}


def trace_case(case: Case, most: int) -> Lineage:
    graph = Graph(case.runs, case.versions, case.kind, case.id)
    return trace(graph, direction=case.direction, depth=case.depth, max_nodes=most)


def keys(lineage: Lineage) -> list[str]:
    return [node.key for node in lineage.nodes]


def flat(lineage: Lineage) -> set[tuple[str, str, str, str]]:
    return {
        (edge.source, edge.target, edge.kind, name) for edge in lineage.edges for name in edge.names or ("",)
    }


def test_a_popular_blob() -> None:
    """A hub of thousands is bounded, and says so."""
    many = [RunManifest(f"r{number:05}", inputs={"x": ref_to(1)}) for number in range(10_000)]
    graph = Graph(many, [], "blob", digest_of(1))
    found = trace(graph, direction="both", depth=None, max_nodes=1_000)
    assert (len(found.nodes), found.truncated) == (1_000, True)
    assert [node.id for node in found.downstream()] == [f"r{number:05}" for number in range(999)]
    assert len(found.subject.details["names"]) == 1
    assert len(to_mermaid(found)) < lineage_text.MAX_TEXT
