"""Addresses of artifacts on a file system, as MLflow writes them: read, and written for a new place.

MLflow takes both ``file:`` addresses and plain paths, and decodes ``%20`` in either.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from mltrack_tasks.errors import InvalidInputError
from mltrack_tasks.mlflowdata.treelayout import MODELS

ARTIFACTS = "artifacts"
MAX_LENGTH = 4096
"""[characters] PATH_MAX of Linux; MLflow's own columns hold at most 1,000."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_FILE = re.compile(r"file:(?://(?:localhost)?(?=/))?(?!//)([^?#]*)")
_SAFE = re.compile(r"[\w /.@+=,~-]+")
"""Paths that mean the same with and without percent-encoding."""
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff\ufffd]")
_NOT_NAMES = frozenset({"", ".", ".."})

Segments = tuple[str, ...]


class Address(NamedTuple):
    """A place on a file system."""

    segments: Segments
    """Decoded; the first one of an absolute path is empty."""
    plain: bool
    """Whether it is written as a path, without ``file:``."""


def read_address(text: object) -> Address | None:
    """Read an address; None if it is none of a file system, or not one that MLflow would write."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_LENGTH:
        return None
    match = _FILE.fullmatch(text)
    if match is None and _SCHEME.match(text):
        return None
    path = unquote(match[1] if match else text).removeprefix("./").removesuffix("/")
    first, *others = path.split("/")
    if _ODD.search(path) or first in (".", "..") or not others or not _NOT_NAMES.isdisjoint(others):
        return None
    return Address((first, *others), plain=match is None)


def moved(address: Address, root: Path, segments: Sequence[str]) -> str | None:
    """Write the address of what lies below ``root`` now, in the old one's form where that is safe.

    None if the old one leads there already. Raises InvalidInputError if ``root`` is not absolute, or its name
    is no UTF-8: MLflow knows no other.
    """
    path = root.joinpath(*segments)
    if not root.is_absolute():
        raise InvalidInputError(f"{root} is not absolute; addresses of artifacts are.")
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{str(path)!r} is no UTF-8, so MLflow cannot have addresses in it. Choose another folder."
        ) from error
    if address.segments == tuple(str(path).split("/")):
        return None
    return str(path) if address.plain and _SAFE.fullmatch(str(path)) else path.as_uri()


def base_of(address: Address | None, place: Segments) -> Segments | None:
    """Take away the place that something has in its store -> the store's folder; None if it is elsewhere."""
    if address is None or address.segments[-len(place) :] != place:
        return None
    return address.segments[: -len(place)]


def is_in_store(rest: Segments) -> bool:
    """Tell whether segments lead from a store's folder to artifacts of a run or logged model, or below."""
    return rest[2:3] == (ARTIFACTS,) or (rest[1:2] == (MODELS,) and rest[3:4] == (ARTIFACTS,))


class Bases:
    """Where stores lay -> where they lie in the tree now."""

    def __init__(self) -> None:
        self._folders: dict[Segments, set[str]] = {}

    def learn(self, base: Segments, folders: Collection[str]) -> None:
        """Note that what lay at ``base`` is in one of these folders of the tree."""
        self._folders.setdefault(base, set()).update(folders)

    def folder_of(self, base: Segments | None, among: Collection[str] = ()) -> str | None:
        """Return the folder of what lay at ``base``, one of ``among`` if given; None unless it is one."""
        found = self._folders.get(base, set()) if base is not None else set()
        chosen = found.intersection(among) if among else found
        return next(iter(chosen)) if len(chosen) == 1 else None

    def moved(self, text: object, root: Path, *, near: str | None = None) -> str | None:
        """Write a new address for one that leads to artifacts of a store that is known; else None.

        ``near`` is the store that has the address: it goes before others that lay in the same place.
        """
        address = read_address(text)
        if address is None:
            return None
        for end in range(1, len(address.segments)):
            base, rest = address.segments[:end], address.segments[end:]
            if is_in_store(rest):
                near_by = None if near is None else self.folder_of(base, (near,))
                folder = self.folder_of(base) if near_by is None else near_by
                if folder is not None:
                    return moved(address, root, (folder, *rest))
        return None
