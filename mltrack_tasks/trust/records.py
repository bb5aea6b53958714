"""Records from elsewhere: one that cannot be read, or was forged, becomes what it was when it was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from mltrack_tasks import modelkeys
from mltrack_tasks.errors import MLTrackError
from mltrack_tasks.records import MAX_RECORD_SIZE, Record
from mltrack_tasks.recordstore import read_record, same_content
from mltrack_tasks.registry.aliases import parse_event
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.memory import MemoryStore
from mltrack_tasks.trust.knownkeys import is_other_record
from mltrack_tasks.trust.needs import Need
from mltrack_tasks.trust.readers import MODEL, Holder
from mltrack_tasks.trust.remedies import Candidate
from mltrack_tasks.trust.roots import Root, Unreadable, roots


@dataclass
class RecordsHealed:
    """What became of doubtful records."""

    healed: list[tuple[str, str, int]] = field(default_factory=list)
    """(key, where it was found, size [bytes])."""
    failed: dict[str, list[str]] = field(default_factory=dict)
    """Key -> what stood in the way."""
    cleared: dict[str, frozenset[str]] = field(default_factory=dict)
    """Key -> digests that the healed record does not need."""
    roots: list[Root] = field(default_factory=list)
    """The healed records, and those that were healed before."""
    intact: list[str] = field(default_factory=list)


def heal_records(
    store: Store, doubtful: Mapping[str, frozenset[str]], replicas: Sequence[Store], *, dry_run: bool
) -> RecordsHealed:
    """Replace records by what replicas, or earlier versions of the object, have under the same key.

    ``doubtful`` says of each key which digests it names that cannot be had, or not as it says; none if it
    cannot be read at all. What comes instead must be readable in its place, say something else, and not name
    the same of those digests again.
    """
    done = RecordsHealed()
    for key, digests in doubtful.items():
        _heal(store, key, digests, replicas, done, dry_run)
    return done


def each_record(store: Store, keys: Iterable[str], replicas: Sequence[Store]) -> Iterator[str]:
    """Name the records that keys are of: all promotions of an alias, for its folder."""
    for key in keys:
        if modelkeys.parse_alias_folder(key) is None:
            yield key
            continue
        listed = (stat.key for place in (store, *replicas) for stat in place.list(key))
        numbers = [number for each in listed if (number := modelkeys.parse_numbered_key(each, key))]
        for number in range(1, max(numbers, default=0) + 1):
            yield modelkeys.numbered_key(key, number)


def _heal(
    store: Store,
    key: str,
    digests: frozenset[str],
    replicas: Sequence[Store],
    done: RecordsHealed,
    dry_run: bool,
) -> None:
    there = _root_there(store, key)
    if there is not None and not digests:
        done.intact.append(key)
        done.roots.append(there)
        return
    now = set() if there is None else _of(there.needs, digests)
    failures: list[str] = []
    for candidate in _candidates(store, key, replicas, failures):
        try:
            body = b"".join(candidate.read())
            root = _root(key, body)
        except MLTrackError as error:
            failures.append(str(error))
            continue
        if root is None or _is_same(store, key, body) or now & _of(root.needs, digests):
            continue
        if dry_run or _write(store, key, body):
            done.healed.append((key, candidate.source, len(body)))
            done.cleared[key] = digests - {need.digest for need in root.needs}
            done.roots.append(root)
            return
    done.failed[key] = failures


def _candidates(
    store: Store, key: str, replicas: Sequence[Store], failures: list[str]
) -> Iterator[Candidate]:
    for replica in replicas:
        yield Candidate(replica.location, partial(_body, replica, key))
    try:
        for older in store.older(key):
            yield Candidate(f"the version of {older.modified:%Y-%m-%d %H:%M:%S}", older.read)
    except MLTrackError as error:
        failures.append(str(error))


def _body(replica: Store, key: str) -> Iterator[bytes | memoryview]:
    yield replica.get_range(key, 0, MAX_RECORD_SIZE + 1)


def _root(key: str, body: bytes) -> Root | None:
    """What a record would be under this key; None if it could not be read there."""
    alone = MemoryStore()
    alone.create(key, body)
    folder = f"{key.rpartition('/')[0]}/"
    number = modelkeys.parse_numbered_key(key, folder)
    if number and (place := modelkeys.parse_alias_folder(folder)):
        event = parse_event(*place, Record.from_bytes(body, what=key), number, key)
        return Root(Holder(MODEL, " ".join(place), key), (), event)
    if is_other_record(key):
        return Root(Holder("", key, key), (), Record.from_bytes(body, what=key))
    unreadable: list[Unreadable] = []
    return next((root for root in roots(alone, unreadable.append) if root.holder.key == key), None)


def _root_there(store: Store, key: str) -> Root | None:
    """The record that is there, if it can be read by now."""
    try:
        return _root(key, bytes(store.get_range(key, 0, MAX_RECORD_SIZE + 1)))
    except MLTrackError:
        return None


def _of(needs: Sequence[Need], digests: frozenset[str]) -> set[Need]:
    return {need for need in needs if need.digest in digests}


def _is_same(store: Store, key: str, body: bytes) -> bool:
    try:
        return same_content(read_record(store, key).content, Record.from_bytes(body, what=key).content)
    except MLTrackError:
        return False


def _write(store: Store, key: str, body: bytes) -> bool:
    """Put a record in its place, unless somebody changes it meanwhile."""
    stat = store.head(key)
    if stat is None or stat.etag is None:
        return store.create(key, body)
    return store.replace(key, body, stat.etag)
