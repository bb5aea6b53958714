"""Strict readers of the texts that show a lineage: what they take is all that may be written."""

from __future__ import annotations

import re
from typing import NamedTuple

_LABEL = r"(?:[^\W_]| |#[0-9]+;|<br/>)*"
_NODE = re.compile(
    r"    (?P<id>n[0-9]+)"
    rf'(?:\(\["(?P<run>{_LABEL})"\]\)|\[\("(?P<blob>{_LABEL})"\)\]|\{{\{{"(?P<model>{_LABEL})"\}}\}})'
)
_EDGE = re.compile(rf'    (?P<from>n[0-9]+) (?P<arrow>-->|-\.-)\|"(?P<label>{_LABEL})"\| (?P<to>n[0-9]+)')
_NOTE = re.compile(rf'    more\["(?P<label>{_LABEL})"\]')


class Flowchart(NamedTuple):
    nodes: dict[str, tuple[str, str]]
    edges: list[tuple[str, str, str, str]]
    note: str


def parse_mermaid(text: str) -> Flowchart:
    """Read the flowcharts that are drawn here, and nothing else of mermaid's language."""
    first, *body, style, mark, last = text.split("\n")
    assert (first, style, mark, last) == (
        "flowchart LR",
        "    classDef subject stroke-width:4px",
        "    class n0 subject",
        "",
    )
    chart, note = Flowchart({}, [], ""), ""
    for line in body:
        if node := _NODE.fullmatch(line):
            assert not chart.edges
            [(kind, label)] = [
                (kind, label) for kind in ("run", "blob", "model") if (label := node[kind]) is not None
            ]
            assert node["id"] == f"n{len(chart.nodes)}"
            chart.nodes[node["id"]] = (kind, decoded(label))
        elif edge := _EDGE.fullmatch(line):
            assert {edge["from"], edge["to"]} <= chart.nodes.keys()
            chart.edges.append((edge["from"], edge["to"], edge["arrow"], decoded(edge["label"])))
        else:
            found = _NOTE.fullmatch(line)
            assert found, line
            assert not note
            note = decoded(found["label"])
    assert set(re.findall(r"<[^>]*>?", text)) <= {"<br/>"}
    return chart._replace(note=note)


def decoded(label: str) -> str:
    return re.sub(r"#([0-9]+);", lambda found: chr(int(found[1])), label.replace("<br/>", "\n"))


def in_pieces(markdown: str) -> tuple[str, str, list[list[str]]]:
    """Markdown of a lineage -> (sentence, flowchart, cells of the table's rows)."""
    sentence, rest = markdown.split("\n\n```mermaid\n", 1)
    drawing, rest = rest.split("```\n\n", 1)
    assert "\n" not in sentence
    assert "`" not in sentence + drawing + rest
    head, line, *rows = rest.split("\n\n")[0].split("\n")
    assert head.count("|") == line.count("|") == 8
    return sentence, drawing, [cells(row) for row in rows if row]


def cells(row: str) -> list[str]:
    assert re.fullmatch(r"(\| [^|]*)+\|", row), row
    assert not re.search(r"[<>\[\]`*$@!]|(?<!\\)_|&(?!#[0-9]+;)", row), row
    plain = row.replace(r"\_", "_")
    assert "\\" not in plain
    return [unreferenced(cell.strip()) for cell in plain.split("|")[1:-1]]


def unreferenced(text: str) -> str:
    return re.sub(r"&#([0-9]+);", lambda found: chr(int(found[1])), text)
