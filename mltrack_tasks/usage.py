"""Usage: what the runs of a store refer to, what its blobs take, and what nothing holds any more."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mltrack_tasks import events, layout
from mltrack_tasks.catalog import current_manifests
from mltrack_tasks.content import list_data
from mltrack_tasks.delivery import deliver
from mltrack_tasks.digest import is_digest, sha256_hex
from mltrack_tasks.errors import IntegrityError, InvalidInputError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.manifests import view_value
from mltrack_tasks.records import RunManifest
from mltrack_tasks.refs import DataRef
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.stores.files import checked_path
from mltrack_tasks.trust.readers import MIGRATION, MODEL
from mltrack_tasks.trust.roots import name_in_log, roots
from mltrack_tasks.usage_stats import NO_MONTH, Amount, GroupUsage, LargeBlob, Usage, UsageStats, usage_chart

_REPORT_EVERY = 10_000
_SIDE_OBJECTS = ("metadata.json", "multipart.json")

K = TypeVar("K", bound=Hashable)


def data_usage_stats(store: Store, *, largest: int = 10, observe: Observe = log_event) -> UsageStats:
    """Count what runs and names refer to, what is stored, what deduplication saves, what nothing holds.

    ``largest`` says how many of the largest blobs are listed. What migrations and versions of models hold
    counts as named, under their names. Costs what reading the catalogue, the named data, the records of
    migrations and those of models does, one LIST each of ``migrations/``, ``data/`` and the pins, and a few
    of each model's folders; no request per blob. The real files of versions,
    under ``models/``, are not counted: they are copies.

    Nothing is locked, so the order counts. References are read before the blobs are listed: a run's record
    comes after its blobs, so none that was read lacks them. Blobs are listed before the pins: of a run stored
    meanwhile, the blobs are not in our list yet, or the pins are in theirs already. What remains is a blob
    whose writer has not come to its pin by the end: it counts as unreferenced, and the collector's grace
    period is for it. Damaged records are left out with a warning in the log.
    """
    if type(largest) is not int or largest < 0:
        raise InvalidInputError(f"largest must be a number of blobs, 0 or more, not {largest!r}.")
    manifests = current_manifests(store, observe=observe)
    named = [_Reference(item.ref, item.name) for item in list_data(store)]
    named += _held(store, observe)
    stored = _Stored.of(_watched(store.list(layout.BLOBS), layout.BLOBS, observe))
    pins = _watched(store.list(layout.PINS), layout.PINS, observe)
    pinned = {digest for stat in pins if (digest := _pinned_digest(stat.key))}
    return _account(store.location, manifests, named, stored, pinned, largest)


def save_chart(stats: UsageStats, path: str | Path) -> Path:
    """Write the chart of these figures as an SVG file -> its absolute path.

    Missing folders are created. A file with this very picture is left alone; one with anything else is a
    ConflictError.
    """
    body = usage_chart(stats).encode()
    return deliver([body], sha256_hex(body), len(body), checked_path(path))


@dataclass(frozen=True)
class _Reference:
    """One place that names a blob. A new kind of record that keeps blobs alive joins in by yielding these."""

    ref: DataRef
    name: str
    run: RunManifest | None = None

    @property
    def blob(self) -> str:
        return f"{self.ref.hash}.{self.ref.format}"


@dataclass(frozen=True)
class _Stored:
    """What lies under ``data/``: sizes of blobs by ``<digest>.<format>``, and the rest."""

    sizes: Mapping[str, int]
    side_objects: Amount
    foreign: Amount

    @classmethod
    def of(cls, stats: Iterable[Stat]) -> _Stored:
        sizes: dict[str, int] = {}
        rest: dict[bool, list[int]] = {True: [], False: []}
        for stat in stats:
            blob = layout.parse_blob_key(stat.key)
            if blob:
                sizes[".".join(blob)] = stat.size
            else:
                rest[_is_side_object(stat.key)].append(stat.size)
        return cls(sizes, _amount(rest[True]), _amount(rest[False]))


def _held(store: Store, observe: Observe) -> Iterator[_Reference]:
    """What models and migrations need, each blob once for each version and each migration."""
    seen = set()
    for root in roots(store, name_in_log, kinds=(MODEL, MIGRATION), observe=observe):
        name = f"{root.holder.kind} {root.holder.name}"
        for digest, format, size, planned in root.needs:
            if format is None or size is None or planned or (name, digest, format) in seen:
                continue
            seen.add((name, digest, format))
            yield _Reference(DataRef(digest, format, size, layout.blob_key(digest, format)), name)


def _account(
    location: str,
    manifests: list[RunManifest],
    names: list[_Reference],
    stored: _Stored,
    pinned: set[str],
    largest: int,
) -> UsageStats:
    """Decide what everything is, from what was read."""
    runs = [*_run_references(manifests)]
    sizes, claims = stored.sizes, _claims([*names, *runs])
    missing = {blob: max(claimed) for blob, claimed in claims.items() if blob not in sizes}
    known = {**missing, **sizes}
    counted = _Counting(manifests, runs, known)
    loose = [blob for blob in sizes if blob not in claims]
    groups = counted.by(lambda run: (run.project, run.run_type, _month(run)))
    return UsageStats(
        location=location,
        groups=tuple(GroupUsage(*key, usage) for key, usage in sorted(groups.items(), key=_group_order)),
        projects=tuple(sorted(counted.by(lambda run: run.project).items(), key=_largest_first)),
        run_types=tuple(sorted(counted.by(lambda run: run.run_type).items(), key=_largest_first)),
        months=tuple(sorted(counted.by(_month).items())),
        total=_usage(len(manifests), [*names, *runs], known),
        named=_usage(0, names, known),
        stored=_amount(sizes.values()),
        held=_amount(sizes[blob] for blob in loose if blob[:64] in pinned),
        unreferenced=_amount(sizes[blob] for blob in loose if blob[:64] not in pinned),
        missing=_amount(missing.values()),
        damaged=_amount(sizes[b] for b, claimed in claims.items() if b in sizes and claimed != {sizes[b]}),
        side_objects=stored.side_objects,
        foreign=stored.foreign,
        largest=_largest(sizes, [*names, *runs], largest),
    )


class _Counting:
    """The references of runs, to be counted in groups of any kind."""

    def __init__(
        self, manifests: list[RunManifest], references: list[_Reference], sizes: Mapping[str, int]
    ) -> None:
        self._manifests, self._references, self._sizes = manifests, references, sizes

    def by(self, key: Callable[[RunManifest], K]) -> dict[K, Usage]:
        runs = Counter(key(manifest) for manifest in self._manifests)
        grouped: dict[K, list[_Reference]] = {group: [] for group in runs}
        for reference in self._references:
            if reference.run is not None:
                grouped[key(reference.run)].append(reference)
        return {group: _usage(runs[group], found, self._sizes) for group, found in grouped.items()}


def _run_references(manifests: Iterable[RunManifest]) -> Iterator[_Reference]:
    for run in sorted(manifests, key=lambda manifest: manifest.run_id):
        for refs in (run.data, run.inputs, run.outputs):
            for name, ref in sorted(refs.items()):
                yield _Reference(ref, name, run)


def _usage(runs: int, references: Iterable[_Reference], sizes: Mapping[str, int]) -> Usage:
    counts = Counter(reference.blob for reference in references)
    return Usage(
        runs=runs,
        references=counts.total(),
        referenced_bytes=sum(sizes[blob] * count for blob, count in counts.items()),
        blobs=len(counts),
        unique_bytes=sum(sizes[blob] for blob in counts),
    )


def _claims(references: Iterable[_Reference]) -> dict[str, set[int]]:
    """The sizes [bytes] that references say a blob has: one, unless a record was forged."""
    claims: dict[str, set[int]] = {}
    for reference in references:
        claims.setdefault(reference.blob, set()).add(reference.ref.size_bytes)
    return claims


def _largest(sizes: Mapping[str, int], references: Iterable[_Reference], count: int) -> tuple[LargeBlob, ...]:
    blobs = heapq.nsmallest(count, sizes, key=lambda blob: (-sizes[blob], blob))
    known: dict[str, list[_Reference]] = {blob: [] for blob in blobs}
    for reference in references:
        if reference.blob in known:
            known[reference.blob].append(reference)
    return tuple(_large_blob(blob, sizes[blob], known[blob]) for blob in blobs)


def _large_blob(blob: str, size: int, references: list[_Reference]) -> LargeBlob:
    """Data names come first among what a blob is known by: somebody chose them for it."""
    if not references:
        return LargeBlob(f"sha256:{blob}", size, 0)
    first = references[0]
    run_id = first.run.run_id if first.run else None
    return LargeBlob(f"sha256:{blob}", size, len(references), first.name, run_id)


def _amount(sizes: Iterable[int]) -> Amount:
    found = list(sizes)
    return Amount(len(found), sum(found))


def _month(run: RunManifest) -> str:
    try:
        return view_value(run, "by_date")[:7]
    except IntegrityError:  # of a run without a start whose provenance, which nobody checked, has no time
        return NO_MONTH


def _group_order(item: tuple[tuple[str | None, str, str], Usage]) -> tuple[bool, str, str, str]:
    (project, run_type, month), _ = item
    return project is None, project or "", run_type, month


def _largest_first(item: tuple[str | None, Usage]) -> tuple[int, bool, str]:
    name, usage = item
    return -usage.unique_bytes, name is None, name or ""


def _is_side_object(key: str) -> bool:
    _, _, digest, *_ = *key.split("/"), "", "", ""
    return is_digest(digest) and key in (layout.blob_metadata_key(digest), layout.blob_parts_key(digest))


def _pinned_digest(key: str) -> str | None:
    """Read a pin's key -> the digest, whoever holds it; None for a folder's placeholder or a foreign key."""
    folder, _, holder = key.rpartition("/")
    digest = folder.rpartition("/")[2]
    return digest if holder and is_digest(digest) and f"{folder}/" == layout.pin_folder(digest) else None


def _watched(stats: Iterable[Stat], what: str, observe: Observe) -> Iterator[Stat]:
    for number, stat in enumerate(stats, start=1):
        if number % _REPORT_EVERY == 0:
            observe(Event(events.PROGRESS, what, {"done": number, "total": None, "unit": "objects"}))
        yield stat
