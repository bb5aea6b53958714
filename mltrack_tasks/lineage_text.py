"""Lineage as text: a mermaid flowchart, and markdown with a table for where mermaid is not drawn.

Names come out of records and are hostile until escaped here. Of what users wrote, only letters, digits and
spaces stand for themselves in either text; everything else is a numeric reference, which both languages show
as the character and never read as syntax: quotes, brackets, line breaks, links, HTML, directives, fences.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from mltrack_tasks.chart import human_bytes
from mltrack_tasks.lineage_graph import Edge, Lineage, Node

MAX_DRAWN = 200
"""Nodes drawn and listed: more cannot be read."""
MAX_EDGES = 400
MAX_TEXT = 45_000
"""Mermaid refuses more than 500 edges and 50,000 characters (maxEdges and maxTextSize of its version 11)."""
MAX_LABEL = 48
_MAX_ORIGINS = 8
_HEAD = 2 * MAX_LABEL // 3

_SHAPES = {"run": ('(["', '"])'), "blob": ('[("', '")]'), "model": ('{{"', '"}}')}
_ARROWS = {"data": "-.-"}
"""``data`` has no direction, so no arrow."""
_PLAIN_IN_CELLS = re.compile(r"[ .,/\-]")


def to_mermaid(lineage: Lineage, *, max_nodes: int = MAX_DRAWN) -> str:
    """Draw a lineage -> the text of a mermaid flowchart, from left to right, with the subject emphasised.

    Runs are rounded, blobs are cylinders, model versions hexagons; what a run lists as ``data`` hangs on a
    dotted line. At most ``max_nodes`` of the nearest nodes are drawn, fewer where mermaid's own limits would
    be passed; a box then says how many are left out.
    """
    count = max(1, min(max_nodes, len(lineage.nodes)))
    while True:
        lines, edges = _drawing(lineage, count)
        text = "\n".join(lines) + "\n"
        if count == 1 or (len(text) <= MAX_TEXT and edges <= MAX_EDGES):
            return text
        count = count * 3 // 4


def to_markdown(lineage: Lineage, *, max_nodes: int = MAX_DRAWN) -> str:
    """Describe a lineage -> markdown: a sentence, the flowchart in a fence, and a table of the nodes."""
    up, down = len(lineage.upstream()), len(lineage.downstream())
    subject = lineage.subject
    parts = [
        f"Lineage of {subject.kind} **{_cell(subject.label)}**: {up:,} upstream, {down:,} downstream."
        + (" There is more: only the nearest were looked at." if lineage.truncated else ""),
        f"```mermaid\n{to_mermaid(lineage, max_nodes=max_nodes)}```",
        "\n".join(_table(lineage, max_nodes)),
    ]
    left = len(lineage.nodes) - max_nodes
    if left > 0:
        parts.append(f"{left:,} more are not listed.")
    if any(edge.kind == "data" for edge in lineage.edges):
        parts.append("Listed as *data*: the record does not say whether the run read or made it.")
    return "\n\n".join(parts) + "\n"


def _drawing(lineage: Lineage, count: int) -> tuple[list[str], int]:
    """Lines of a flowchart of the first ``count`` nodes, and how many edges it has."""
    names = {node.key: f"n{number}" for number, node in enumerate(lineage.nodes[:count])}
    nodes = [_node_line(names[node.key], node) for node in lineage.nodes[:count]]
    edges = [
        _edge_line(names, edge) for edge in lineage.edges if edge.source in names and edge.target in names
    ]
    left = len(lineage.nodes) - count
    note = [f"{left} more are not drawn"] if left else []
    note += ["more were not looked at"] if lineage.truncated else []
    lines = ["flowchart LR", *nodes, *edges]
    if note:
        lines.append(f'    more["{"<br/>".join(note)}"]')
    return [*lines, "    classDef subject stroke-width:4px", "    class n0 subject"], len(edges)


def _node_line(name: str, node: Node) -> str:
    before, after = _SHAPES[node.kind]
    lines = (f"{node.kind} {shorten(_title(node))}", shorten(_subtitle(node)))
    return f"    {name}{before}{'<br/>'.join(map(_mermaid, filter(None, lines)))}{after}"


def _edge_line(names: Mapping[str, str], edge: Edge) -> str:
    text = _mermaid(shorten(" ".join((edge.kind, ", ".join(edge.names))).strip()))
    return f'    {names[edge.source]} {_ARROWS.get(edge.kind, "-->")}|"{text}"| {names[edge.target]}'


def _title(node: Node) -> str:
    return str(node.details["model"]) if node.kind == "model" else node.label


def _subtitle(node: Node) -> str:
    """What else to say. Begins with a word of ours: mermaid takes some beginnings of lines for lists."""
    told = node.details
    if node.kind == "model":
        return f"version {told['version']}"
    if node.kind == "blob":
        size = told["size_bytes"]
        return " ".join([*told["formats"], *([] if size is None else [human_bytes(size)])])
    if not told["stored"]:
        return "not in this store"
    return f"status {told['status']}" + (f", project {told['project']}" if told["project"] else "")


def _table(lineage: Lineage, max_nodes: int) -> Iterator[str]:
    """Rows of a markdown table; the numbers in its last column are those of the first."""
    rows = lineage.nodes[:max_nodes]
    numbers = {node.key: number for number, node in enumerate(rows)}
    origins: dict[str, list[Edge]] = {}
    for edge in lineage.edges:
        if edge.source in numbers:
            origins.setdefault(edge.target, []).append(edge)
    yield "| | step | kind | name | id | what | from |"
    yield "|---|---|---|---|---|---|---|"
    for node in rows:
        cells = (
            *(str(numbers[node.key]), _step(lineage, node), node.kind),
            *(_cell(shorten(_title(node))), _cell(node.id), _cell(shorten(_subtitle(node)))),
            _origins(origins.get(node.key, ()), numbers),
        )
        yield f"| {' | '.join(cells)} |"


def _step(lineage: Lineage, node: Node) -> str:
    """Edges to the subject: negative upstream, positive downstream, both in a cycle."""
    if node == lineage.subject:
        return "0"
    up, down = lineage.steps_up.get(node.key), lineage.steps_down.get(node.key)
    steps = [*([] if up is None else [f"-{up}"]), *([] if down is None else [f"+{down}"])]
    return " ".join(steps) or "data"


def _origins(edges: Sequence[Edge], numbers: Mapping[str, int]) -> str:
    ordered = sorted(edges, key=lambda edge: (numbers[edge.source], edge.kind))
    told = [
        f"{numbers[edge.source]} ({_cell(shorten(' '.join((edge.kind, ', '.join(edge.names))).strip()))})"
        for edge in ordered[:_MAX_ORIGINS]
    ]
    left = len(ordered) - len(told)
    return ", ".join([*told, *([f"and {left} more"] if left else [])])


def shorten(text: str) -> str:
    """Make a text printable and at most MAX_LABEL characters long; both ends stay, ids differ at the last."""
    shown = text if len(text) <= MAX_LABEL else f"{text[:_HEAD]}…{text[_HEAD + 1 - MAX_LABEL :]}"
    return printable(shown)


def printable(text: str) -> str:
    """Replace what is not a visible character: controls, marks of direction, surrogates -> U+FFFD."""
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    return "\ufffd" if category[0] in "CZ" else character


def _mermaid(text: str) -> str:
    """Escape for a quoted label of mermaid, whose references are ``#95;``."""
    return "".join(c if c.isalnum() or c == " " else f"#{ord(c)};" for c in text)


def _cell(text: str) -> str:
    """Escape for a cell of a markdown table; common names stay readable as plain text."""
    return "".join(
        c if c.isalnum() or _PLAIN_IN_CELLS.match(c) else r"\_" if c == "_" else f"&#{ord(c)};"
        for c in printable(text)
    )
