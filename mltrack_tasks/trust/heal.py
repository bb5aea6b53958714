"""Healing: what an audit found damaged or missing is written again, from wherever its bytes still are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mltrack_tasks import events, layout, modelkeys
from mltrack_tasks.copies import copy_blob
from mltrack_tasks.errors import IntegrityError, InvalidInputError, MLTrackError, NotFoundError
from mltrack_tasks.events import Event, Observe, log_event
from mltrack_tasks.localtree import LocalTree
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.receipts import Receipt
from mltrack_tasks.registry.reading import read_version
from mltrack_tasks.stores.base import Store
from mltrack_tasks.stores.files import checked_path
from mltrack_tasks.stores.guard import for_replication
from mltrack_tasks.trust import remedies
from mltrack_tasks.trust.agenda import agenda
from mltrack_tasks.trust.blobheal import heal_blob
from mltrack_tasks.trust.descriptions import heal_description
from mltrack_tasks.trust.findings import OF_BLOBS, UNDESCRIBED, UNKNOWN_FORMAT, UNREADABLE, Finding
from mltrack_tasks.trust.healing import Healed, HealReport, Lost
from mltrack_tasks.trust.needs import formats_of
from mltrack_tasks.trust.records import each_record, heal_records
from mltrack_tasks.trust.remedies import Remedy, Wanted
from mltrack_tasks.trust.roots import Root, Unreadable, roots

_WORKERS = 4
"""Blobs that are fetched at once: each may take SINGLE_PUT_LIMIT bytes of memory."""


@dataclass
class _About:
    """What the records say of one damaged blob."""

    sizes: set[int] = field(default_factory=set)
    roots: list[Root] = field(default_factory=list)
    members: tuple[str, ...] = ()


def heal_store(
    store: Store,
    *,
    audit: str | None = None,
    replicas: Sequence[Store] = (),
    local_path: str | Path | None = None,
    dry_run: bool = False,
    observe: Observe = log_event,
) -> HealReport:
    """Write again what an audit found damaged or missing -> what became of each object.

    ``audit`` is the id of a finished audit; None: the newest, and what the newest of other levels and parts
    told of wrong bytes. The bytes of a blob are looked for in the
    store's read cache, in ``replicas`` (other stores), among earlier versions of the object, and among the
    files below ``local_path``, such as a folder that was migrated from; they are used only if they hash to
    the blob's name. A damaged object is replaced only if it still is the one that was looked at
    (``If-Match``); a missing one is created. Records that cannot be read, or that name what nobody has, are
    taken from replicas and earlier versions. What describes a blob (``metadata.json``) follows from it. Files
    in the folders of models are copied anew from their blobs. What is intact by now is left alone; the same
    call again does what is left.

    ``dry_run`` fetches and proves, and writes nothing. Raises NotFoundError or InvalidInputError if there is
    no such audit, AccessError if this store may not be written. What cannot be healed is not raised: see
    ``lost``.
    """
    if not isinstance(replicas, (list, tuple)):
        raise InvalidInputError(f"replicas is {type(replicas).__name__}; give a list of stores.")
    audits, found = agenda(store, audit)
    with ExitStack() as stack:
        work = _Work(store, dry_run, observe)
        work.read_records(found)
        tree = None if local_path is None else stack.enter_context(LocalTree(checked_path(local_path)))
        work.remedies = _remedies(store, replicas, tree, work.wanted, observe)
        work.heal_blobs(work.wanted)
        work.heal_records([each for each in found if each.kind in (UNREADABLE, UNKNOWN_FORMAT)], replicas)
        work.heal_files(found)
        work.describe([each.key for each in found if each.kind == UNDESCRIBED], replicas)
    report = work.report(", ".join(audits))
    observe(Event(events.STORE_HEALED, store.location, _told(report)))
    return report


def _remedies(
    store: Store,
    replicas: Sequence[Store],
    tree: LocalTree | None,
    wanted: Sequence[Wanted],
    observe: Observe,
) -> list[Remedy]:
    found = [remedies.from_cache(store), *map(remedies.from_replica, replicas)]
    found.append(remedies.from_older_versions(store))
    if tree is not None:
        found.append(remedies.from_tree(tree, wanted, observe, store.max_workers))
    return found


class _Work:
    """The findings of one audit, and what becomes of them."""

    def __init__(self, store: Store, dry_run: bool, observe: Observe) -> None:
        store = for_replication(store)  # what is healed is what its source has
        self._store, self._direct, self._dry_run, self._observe = store, store.uncached(), dry_run, observe
        self._about: dict[str, _About] = {}
        self.wanted: list[Wanted] = []
        self.remedies: list[Remedy] = []
        self._healed: dict[str, Healed] = {}
        self._intact: list[str] = []
        self._lost: dict[str, Lost] = {}
        self._breaks: set[str] = set()
        self._undescribed: list[str] = []

    def read_records(self, found: Iterable[Finding]) -> None:
        """Read what all records say of the damaged blobs: sizes, who needs them, what packs are made of."""
        of_blobs = (each.key for each in found if each.kind in OF_BLOBS)
        places = {key: place for key in of_blobs if (place := layout.parse_blob_key(key))}
        self._about = {digest: _About() for digest, _ in places.values()}
        for root in roots(self._direct, _pass_over, observe=self._observe):
            for need in root.needs:
                about = self._about.get(need.digest)
                if about is not None and not need.planned:
                    about.roots.append(root._replace(needs=(need,), record=None))
                    about.sizes |= {need.size} if need.size is not None else set()
            if isinstance(root.record, Receipt):
                self._note_packs(root.record)
        for key, (digest, format) in places.items():
            about = self._about[digest]
            self.wanted.append(Wanted(key, digest, format, frozenset(about.sizes), about.members))

    def _note_packs(self, receipt: Receipt) -> None:
        for pack in receipt.packs:
            if pack.digest in self._about:
                in_order = sorted(pack.members, key=lambda member: pack.members[member])
                self._about[pack.digest].members = tuple(in_order)

    def heal_blobs(self, blobs: Sequence[Wanted]) -> None:
        """Heal what can be healed, several blobs at once."""
        heal = partial(heal_blob, self._store, remedies=self.remedies, dry_run=self._dry_run)
        answers = map_ordered(heal, blobs, min(_WORKERS, self._store.max_workers))
        for wanted, answer in zip(blobs, answers, strict=True):
            if isinstance(answer, Healed):
                self._keep(answer)
            elif answer is None:
                self._intact.append(wanted.key)
            else:
                holders = (root.holder for root in self._needing(wanted))
                named = tuple(dict.fromkeys(f"{holder.kind} {holder.name}" for holder in holders))
                self._lost[wanted.key] = Lost(wanted.key, named, tuple(answer))

    def _needing(self, wanted: Wanted) -> list[Root]:
        """The records that need a blob in this format."""
        return [
            root for root in self._about[wanted.digest].roots if wanted.format in formats_of(root.needs[0])
        ]

    def heal_records(self, unreadable: Iterable[Finding], replicas: Sequence[Store]) -> None:
        """Heal records that cannot be read, and those that name what nobody has, or as it is not."""
        keys = [*each_record(self._direct, (each.key for each in unreadable), replicas)]
        doubtful = {key: frozenset[str]() for key in keys}
        wrong = dict.fromkeys(keys, "")
        for wanted in self.wanted:
            size = None if wanted.key in self._lost else self._size_of(wanted.key)
            for root in self._needing(wanted):
                [need] = root.needs
                if need.size is None or need.size == size:
                    continue
                doubtful[root.holder.key] = doubtful.get(root.holder.key, frozenset()) | {need.digest}
                if size is not None:
                    wrong[root.holder.key] = f"{root.holder.kind} {root.holder.name}"
        answers = heal_records(self._direct, doubtful, replicas, dry_run=self._dry_run)
        for key, source, size in answers.healed:
            self._keep(Healed(key, source, size))
        for key in answers.failed.keys() & wrong.keys():
            named = tuple(filter(None, [wrong[key]]))
            self._lost[key] = Lost(key, named, tuple(answers.failed[key]))
            self._breaks |= set(named)
        self._intact += answers.intact
        self._heal_needs(answers.roots)
        self._still_lost(answers.cleared)

    def _heal_needs(self, healed: Iterable[Root]) -> None:
        """See to the blobs that only records needed which could not be read."""
        more: dict[str, Wanted] = {}
        for root in healed:
            for need in root.needs:
                if need.format is None or need.planned:
                    continue
                key = layout.blob_key(need.digest, need.format)
                about = self._about.setdefault(need.digest, _About())
                about.roots.append(root._replace(needs=(need,), record=None))
                stat = self._direct.head(key)
                if stat is None or need.size not in (None, stat.size):
                    sizes = frozenset(() if need.size is None else (need.size,))
                    more[key] = Wanted(key, need.digest, need.format, sizes, about.members)
        known = {wanted.key for wanted in self.wanted}
        new = [wanted for key, wanted in more.items() if key not in known]
        self.wanted += new
        self.heal_blobs(new)

    def _size_of(self, key: str) -> int | None:
        healed = self._healed.get(key)
        if healed is not None:
            return healed.size_bytes
        stat = self._direct.head(key)
        return None if stat is None else stat.size

    def _still_lost(self, cleared: Mapping[str, frozenset[str]]) -> None:
        """Of the blobs that were found nowhere, those that a record needs after records were healed."""
        for wanted in self.wanted:
            if wanted.key not in self._lost:
                continue
            needing = [
                root.holder
                for root in self._needing(wanted)
                if wanted.digest not in cleared.get(root.holder.key, frozenset())
            ]
            lost = self._lost.pop(wanted.key)
            if needing:
                named = dict.fromkeys(f"{holder.kind} {holder.name}" for holder in needing)
                self._lost[wanted.key] = Lost(wanted.key, tuple(named), lost.tried)
                self._breaks |= set(named)

    def heal_files(self, found: Iterable[Finding]) -> None:
        """Copy the files of models anew from their blobs."""
        for finding in found:
            if not modelkeys.is_file_of_version(finding.key):
                continue
            try:
                size = self._copy(finding.key)
            except MLTrackError as error:
                self._lost[finding.key] = Lost(finding.key, finding.needed_by, (str(error),))
                self._breaks |= set(finding.needed_by)
                continue
            self._keep(Healed(finding.key, "its blob", size))

    def describe(self, undescribed: Iterable[str], replicas: Sequence[Store]) -> None:
        """Make anew what describes blobs: of those that were healed, and of those that lack it."""
        blobs = dict.fromkeys(
            [*undescribed, *(each.key for each in self.wanted if each.key not in self._lost)]
        )
        heal = partial(heal_description, self._direct, replicas=replicas, dry_run=self._dry_run)
        answers = map_ordered(heal, blobs, min(_WORKERS, self._store.max_workers))
        for key, answer in zip(blobs, answers, strict=True):
            if isinstance(answer, Healed):
                self._keep(answer)
            elif not answer:
                self._undescribed.append(key)

    def _copy(self, key: str) -> int:
        _, _, model, version, path = key.split("/", 4)
        record = read_version(self._direct, layout.decode_segment(model), version)
        for file in record.files:
            if file.path == path:
                blob = layout.blob_key(file.digest, file.format)
                if blob in self._lost:
                    raise NotFoundError(f"{blob}, of which it is a copy, is lost.")
                if not self._dry_run:
                    copy_blob(self._direct, file.digest, file.format, file.size_bytes, key)
                return file.size_bytes
        raise IntegrityError(f"{key} is no file of {version} of {model!r}.")

    def _keep(self, healed: Healed) -> None:
        self._healed[healed.key] = healed
        if not self._dry_run:
            details = {"bytes": healed.size_bytes, "source": healed.source}
            self._observe(Event(events.BLOB_HEALED, healed.key, details))

    def report(self, audit: str) -> HealReport:
        """Say what became of everything."""
        return HealReport(
            location=self._store.location,
            audit=audit,
            healed=tuple(self._healed.values()),
            intact=tuple(self._intact),
            lost=tuple(self._lost.values()),
            breaks=tuple(sorted(self._breaks)),
            dry_run=self._dry_run,
            undescribed=tuple(self._undescribed),
        )


def _pass_over(found: Unreadable) -> None:
    """The audit has told of it."""


def _told(report: HealReport) -> dict[str, Any]:
    return {
        "audit": report.audit,
        "healed": len(report.healed),
        "lost": len(report.lost),
        "breaks": list(report.breaks[:100]),
        "dry_run": report.dry_run,
    }
