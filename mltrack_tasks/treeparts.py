"""A tree of files as blobs: its list in parts, of which those that are there already are not sent again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from mltrack_tasks import layout
from mltrack_tasks.blobs import read_blob
from mltrack_tasks.deletions import hold
from mltrack_tasks.digest import sha256_hex
from mltrack_tasks.errors import IntegrityError
from mltrack_tasks.events import Event
from mltrack_tasks.filetree import Entry, check_tree, decode_part, encode_part, parts_of
from mltrack_tasks.migrations import PartRef
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.stores.base import Store
from mltrack_tasks.values import write_value


def encoded(entries: Sequence[Entry]) -> Iterator[tuple[PartRef, bytes]]:
    """Encode a tree, part by part -> the references of the parts, and their bytes."""
    for part in parts_of(entries):
        body = encode_part(part)
        yield PartRef(sha256_hex(body), len(body), len(part)), body


def tree_refs(entries: Sequence[Entry]) -> tuple[PartRef, ...]:
    """What the parts of a tree would be called."""
    return tuple(ref for ref, _ in encoded(entries))


def write_tree(
    store: Store, entries: Sequence[Entry], known: Iterable[PartRef], migration: str
) -> tuple[PartRef, ...]:
    """Store a tree in parts -> their references; those that are ``known`` to be listed are not sent again."""
    there, refs = set(known), []
    writers = []
    for ref, body in encoded(entries):
        refs.append(ref)
        if ref not in there:
            writers.append(partial(write_value, store, body, "tree"))
    if writers:
        hold(store, writers, lambda digest: layout.migration_pin_key(digest, migration), observe=_ignore)
    return tuple(refs)


def read_tree(store: Store, parts: Sequence[PartRef], what: str) -> list[Entry]:
    """Read a tree that ``write_tree`` stored; IntegrityError if it is not one."""
    bodies = map_ordered(partial(_read_part, store), parts, store.max_workers)
    entries = [
        entry for part, body in zip(parts, bodies, strict=True) for entry in _decoded(part, body, what)
    ]
    check_tree(entries, what)
    return entries


def _read_part(store: Store, part: PartRef) -> bytes:
    return read_blob(store, part.digest, "bin", part.size)


def _decoded(part: PartRef, body: bytes, what: str) -> list[Entry]:
    entries = decode_part(body, what=f"{what}: part {part.digest}")
    if len(entries) != part.entries:
        raise IntegrityError(f"{what}: part {part.digest} has {len(entries)} entries, not {part.entries}.")
    return entries


def _ignore(event: Event) -> None:
    """Lists of files are not what a user counts."""
