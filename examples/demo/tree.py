"""A listing of a store as a tree, the way the guide draws it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

Tree: TypeAlias = "dict[str, Tree]"

MEANING = {
    "data/": "blobs, each named by the SHA-256 of its bytes",
    "manifests/": "what each run used and made",
    "names/": "data stored under a name, outside runs",
    "runs/": "views to browse, and who uses which blob",
}
_DIGEST = re.compile(r"([0-9a-f]{8})[0-9a-f]{56}")


def draw(title: str, keys: Iterable[str], *, most: int = 6) -> str:
    """Draw keys as a tree under ``title``; of folders with more than ``most`` entries, the first."""
    tree: Tree = {}
    for key in sorted(keys):
        _insert(tree, key)
    return "\n".join([title, *_lines(tree, "", max(most, len(tree)), most)])


def abbreviate(text: str) -> str:
    """Shorten digests: ``abcd1234...`` for 64 digits."""
    return _DIGEST.sub(r"\1...", text)


def _insert(tree: Tree, key: str) -> None:
    *folders, last = key.split("/")
    for folder in folders:
        tree = tree.setdefault(f"{folder}/", {})
    tree[last] = {}


def _lines(tree: Tree, indent: str, most_here: int, most: int) -> list[str]:
    shown = list(tree.items())[:most_here]
    hidden = len(tree) - len(shown)
    lines: list[str] = []
    for number, (name, below) in enumerate(shown, start=1):
        last = number == len(shown) and not hidden
        lines.append(_line(indent + ("└── " if last else "├── "), name))
        lines += _lines(below, indent + ("    " if last else "│   "), most, most)
    return [*lines, f"{indent}└── ... {hidden} more"] if hidden else lines


def _line(branch: str, name: str) -> str:
    text = branch + abbreviate(name)
    return f"{text:<38}# {MEANING[name]}" if len(branch) == 4 and name in MEANING else text
