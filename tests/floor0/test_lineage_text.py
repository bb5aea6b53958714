"""Lineage as text: no name breaks out of it, whatever it is, and mermaid's limits are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltrack_tasks import lineage_text
from mltrack_tasks.lineage_graph import Graph, Lineage, trace
from mltrack_tasks.lineage_text import to_markdown, to_mermaid
from mltrack_tasks.models import ModelVersion
from mltrack_tasks.records import RunManifest
from tests.floor0.lineage_texts import in_pieces, parse_mermaid
from tests.floor0.lineages import a_version, digest_of, ref_to

HOSTILE = (
    *(
        '"]; click n0 "javascript:alert(1)"',
        "a\nclick n0 href",
        "<script>alert(1)</script>",
        "```",
        "%%{init: {}}%%",
    ),
    *(
        "a|b\\|c",
        "[x](javascript:y)",
        "![x](http://y)",
        "&lt;b&gt;",
        "#quot;",
        "end",
        "1. one",
        "- x",
        "style a:#b;",
    ),
    *(
        "fa:fa-car",
        "ﬂ°°60¶ß",
        "\u202eevil",
        "\x1b[31m",
        "a\u2028b",
        "`md`",
        "$$x$$",
        "@user",
        "||",
        "x" * 500,
    ),
    *(
        "\u0300" * 60,
        "日本語",
        "__init__",
        "subgraph",
        "n0 --> n1",
        "{{x}}",
        "\ufeff",
        "~~~",
        "---",
        " " * 80,
    ),
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_out(name: str) -> None:
    check_names(name, "out", "m", "p")
    check_names("r", name, "m", "p")
    check_names("r", "out", name, "p")
    check_names("r", "out", "m", name)


texts = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from('"`|<>[]#;&\\\n:{}()_*'), min_size=1
)


@given(texts, texts, texts, texts)
def test_any_names(run_id: str, output: str, model: str, project: str) -> None:
    check_names(run_id, output, model, project)


def check_names(run_id: str, output: str, model: str, project: str) -> None:
    """The drawing is the one that plain names give, and says the names."""
    drawn = a_lineage(run_id, output, model, project)
    plain = parse_mermaid(to_mermaid(a_lineage("r", "o", "m", "p")))
    text = to_mermaid(drawn)
    chart = parse_mermaid(text)
    assert [edge[:3] for edge in chart.edges] == [edge[:3] for edge in plain.edges]
    said = [label.split("\n") for _, label in chart.nodes.values()]
    shown = lineage_text.shorten
    assert said[0] == [f"run {shown(run_id)}", shown(f"status finished, project {project}")]
    assert {line[0] for line in said[1:]} == {f"blob {shown(output)}", f"model {shown(model)}"}
    assert all(len(line) <= lineage_text.MAX_LABEL + 6 for lines in said for line in lines)
    assert all(line.replace("\ufffd", "").isprintable() for lines in said for line in lines)
    _, fenced, rows = in_pieces(to_markdown(drawn))
    assert fenced == text
    assert [len(row) for row in rows] == [7] * 3
    assert rows[0][4] == lineage_text.printable(run_id).strip()


def a_lineage(run_id: str, output: str, model: str, project: str) -> Lineage:
    run = RunManifest(run_id, outputs={output: ref_to(1)}, project=project)
    version = a_version("m", {"f": ref_to(1)}, source_runs=(run_id,))
    graph = Graph(
        [run], [ModelVersion(model, version.version, version.tree_digest, version.files)], "run", run_id
    )
    return trace(graph, direction="both", depth=None, max_nodes=10)


def test_common_names_stay_readable() -> None:
    """Where mermaid is not drawn, people read the markdown as it is."""
    assert r"| exp\_2024-01.15 |" in to_markdown(a_lineage("exp_2024-01.15", "o", "m", "p"))


def test_paths_that_are_not_utf8() -> None:
    version = a_version("m", {"w\udcff": ref_to(1)})
    found = trace(Graph([], [version], "blob", digest_of(1)), direction="both", depth=None, max_nodes=10)
    assert found.subject.label == "w\ufffd"
    json.dumps(found.to_json(), ensure_ascii=False).encode()
    to_markdown(found).encode()


def a_chain(length: int, name: str = "x") -> Iterator[RunManifest]:
    for number in range(length):
        yield RunManifest(f"r{number:04}", inputs={name: ref_to(number)}, outputs={name: ref_to(number + 1)})


def test_what_is_too_much_to_draw() -> None:
    graph = Graph(a_chain(300), [], "run", "r0000")
    found = trace(graph, direction="both", depth=None, max_nodes=1_000)
    assert len(found.nodes) == 602 - 1
    chart = parse_mermaid(to_mermaid(found))
    assert (len(chart.nodes), chart.note) == (200, "401 more are not drawn")
    assert len(parse_mermaid(to_mermaid(found, max_nodes=10)).nodes) == 10
    assert "401 more are not listed." in to_markdown(found)
    assert len(in_pieces(to_markdown(found))[2]) == 200
    cut = trace(graph, direction="both", depth=None, max_nodes=50)
    assert parse_mermaid(to_mermaid(cut)).note == "more were not looked at"
    assert "only the nearest" in to_markdown(cut)


def test_mermaids_own_limits_are_kept() -> None:
    """Long names of punctuation, and many more edges than nodes: fewer nodes are drawn."""
    long = [RunManifest(f"{number:04}" + "~" * 60, inputs={"{" * 60: ref_to(1)}) for number in range(300)]
    each = {f"i{number}": ref_to(number) for number in range(15)}
    dense = [RunManifest(f"r{number}", inputs=each, outputs=each) for number in range(40)]
    for runs, edges in ((long, 300), (dense, 1_200)):
        found = trace(Graph(runs, [], "blob", digest_of(1)), direction="both", depth=None, max_nodes=1_000)
        assert len(found.edges) == edges
        text = to_mermaid(found)
        chart = parse_mermaid(text)
        assert len(text) <= lineage_text.MAX_TEXT
        assert len(chart.edges) <= lineage_text.MAX_EDGES
        assert len(chart.nodes) > 40
        assert chart.note == f"{len(found.nodes) - len(chart.nodes)} more are not drawn"
