"""An audit at work: it walks through the store, looks at each thing, and keeps a journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple, TypeVar

from mltrack_tasks import events, layout
from mltrack_tasks.events import Event, Observe
from mltrack_tasks.parallel import map_ordered
from mltrack_tasks.stores.base import Stat, Store
from mltrack_tasks.trust.checks import Check, Outcome, Target
from mltrack_tasks.trust.findings import MISSING, Finding
from mltrack_tasks.trust.journal import Journal, Tally
from mltrack_tasks.trust.knownkeys import is_other_record
from mltrack_tasks.trust.references import References
from mltrack_tasks.trust.remainder import remainder
from mltrack_tasks.trust.structure import Doubt, fault_of_record, judge_files, judge_place
from mltrack_tasks.trust.walk import END, objects_by_digest, past_folder, pins_by_digest, places

T = TypeVar("T")

DATA, MODELS, REST = "data", "models", "rest"
"""The sections of an audit, in order. The last takes listings only, and begins anew when an audit goes on."""
MODELS_FOLDER = "models/"
RECENT = timedelta(days=1)
"""Younger things without a record may be those of a writer at work, by the store's clock."""
STEP_OBJECTS, STEP_BYTES, STEP_FINDINGS = 10_000, 4 * 1024**3, 5_000
"""A step of the journal is written after so many objects, bytes that were read, or findings."""
_BATCH = 64
"""Things that one thread looks at in turn: to hand over each would cost more than to look at it."""
_REPORT_EVERY = 1_000


class Item(NamedTuple):
    """One place of the store: what is known of it by now, and what is still to be asked."""

    after: str
    """Where the section goes on behind it."""
    sizes: list[int]
    """[bytes] of the blobs there."""
    found: list[Finding]
    doubts: list[Doubt]
    targets: list[Target]
    records: list[str]
    unchanged: list[int]
    """[bytes] of what an earlier audit attested, and nobody has written since."""


class Looked(NamedTuple):
    """What was asked of an item."""

    item: Item
    findings: list[Finding]
    outcomes: list[Outcome]


class Audit:
    """Takes the references that were read, and works through the sections that are left."""

    def __init__(
        self, store: Store, journal: Journal, references: References, check: Check | None, observe: Observe
    ) -> None:
        self._store, self._journal, self._references = store, journal, references
        self._check, self._observe = check, observe
        self._aside: list[Finding] = []
        self._marks: dict[str, bool] = {}
        self._done = 0
        self.since: datetime | None = None
        """When an earlier audit began that attested all, but for what is suspect."""
        self.chosen: Callable[[str], bool] = lambda digest: True
        """Which digests a part takes."""
        self.left_out: list[str] = []

    def run(self) -> None:
        """Look at all that is left."""
        if self._journal.section in ("", DATA) and self._journal.after != END:
            self._work(DATA, self._data(self._journal.after))
        after = self._journal.after if self._journal.section == MODELS else ""
        self._work(MODELS, self._models(after))
        found = remainder(self._store, self._references, self._is_old, self.left_out)
        self._work(REST, (Item("", [], [finding], [], [], [], []) for finding in found))

    def _is_old(self, moment: datetime) -> bool:
        return self._journal.began - moment > RECENT

    def _data(self, after: str) -> Iterator[Item]:
        """Every digest that is claimed, there or pinned."""
        behind = past_folder(layout.blob_folder(after)) if after else ""
        pins_behind = past_folder(layout.pin_folder(after)) if after else ""
        pins = self._store.list(layout.PINS, after=pins_behind)
        merged = places(
            self._references.claims(after),
            objects_by_digest(self._store.list(layout.BLOBS, after=behind)),
            pins_by_digest(pins, self._references.pins(after), self._is_old),
        )
        for place in merged:
            sizes = [stat.size for stat in place.blobs.values()]
            judged = judge_place(place, self._references, self._is_old)
            yield self._item(place.digest, sizes, judged)

    def _models(self, after: str) -> Iterator[Item]:
        """The folders of models, and the records there that need no blob."""
        stats = self._store.list(MODELS_FOLDER, after=after)
        files = self._references.files(after)
        found = judge_files(stats, files, self._is_complete, self._is_old, self._aside.append)
        for key, judged in found:
            if _is_text(key):  # else it is foreign, and no record can hold it: the next one tells of it
                yield self._item(key, [], judged)
        yield self._item("models0", [], [])

    def _is_complete(self, mark: str) -> bool:
        """Whether a folder's mark is there: asked once, as its files come one after the other."""
        if mark not in self._marks:
            self._marks = {mark: self._store.head(mark) is not None}
        return self._marks[mark]

    def _item(self, after: str, sizes: list[int], judged: Iterable[Finding | Doubt | Target | Stat]) -> Item:
        item = Item(after, sizes, self._aside.copy(), [], [], [], [])
        self._aside.clear()
        for each in judged:
            if isinstance(each, Finding):
                item.found.append(each)
            elif isinstance(each, Doubt):
                item.doubts.append(each)
            elif isinstance(each, Target):
                self._choose(item, each)
            elif is_other_record(each.key):
                item.records.append(each.key)
        return item

    def _choose(self, item: Item, target: Target) -> None:
        """Decide whether an object is looked at: one that was written since an audit has a newer time."""
        if self._check is None or not self.chosen(target.digest):
            return
        is_older = self.since is not None and target.modified < self.since
        if is_older and not self._references.is_suspect(target.key):
            item.unchanged.append(target.size)
        else:
            item.targets.append(target)

    def _work(self, section: str, items: Iterable[Item]) -> None:
        """Look at items in parallel, keep what is found in order, and write steps."""
        tally, read, after = Tally(), 0, ""
        for batch in map_ordered(self._look_at_all, _batches(items), self._store.max_workers):
            for looked in batch:
                after = looked.item.after
                read += self._take(tally, looked)
                if _is_due(tally, read):
                    self._journal.step(section, after, tally)
                    tally, read = Tally(), 0
        if tally != Tally():
            self._journal.step(section, after, tally)

    def _look_at_all(self, items: list[Item]) -> list[Looked]:
        return [self._look(item) for item in items]

    def _look(self, item: Item) -> Looked:
        """Ask what is to be asked of an item; in any thread."""
        findings = [doubt.finding for doubt in item.doubts if doubt.stands(self._store)]
        findings += filter(None, (fault_of_record(self._store, key) for key in item.records))
        check = self._check
        outcomes = [check(self._store, target) for target in item.targets] if check else []
        return Looked(item, findings, outcomes)

    def _take(self, tally: Tally, looked: Looked) -> int:
        """Count what was seen of an item -> [bytes] that were read; in the caller's thread."""
        for size in looked.item.sizes:
            tally.count("blobs", size)
        for finding in (*looked.item.found, *looked.findings):
            tally.find(finding)
        for outcome in looked.outcomes:
            self._take_outcome(tally, outcome)
        for size in looked.item.unchanged:
            tally.count("unchanged", size)
        self._tell()
        return sum(outcome.target.size for outcome in looked.outcomes)

    def _take_outcome(self, tally: Tally, outcome: Outcome) -> None:
        target = outcome.target
        if outcome.checked:
            tally.count("checked", target.size)
        if not outcome.attested:
            tally.count("unattested", target.size)
        if outcome.kind:
            blob = layout.parse_blob_key(target.key)
            holders, count = self._references.holders(target.digest, blob[1] if blob else None)
            if outcome.kind != MISSING or count:
                named = tuple(dict.fromkeys(f"{holder.kind} {holder.name}" for holder in holders))
                tally.find(Finding(outcome.kind, target.key, outcome.detail, target.size, named, count))

    def _tell(self) -> None:
        self._done += 1
        if self._done % _REPORT_EVERY == 0:
            details = {"done": self._done, "total": None, "unit": "things"}
            self._observe(Event(events.PROGRESS, "verifying", details))


def _is_text(key: str) -> bool:
    """Whether a key can stand in a record: a file's name may hold bytes that are no UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in key)


def _is_due(tally: Tally, read: int) -> bool:
    objects = tally.amounts["blobs"].objects + tally.amounts["checked"].objects
    return objects >= STEP_OBJECTS or read >= STEP_BYTES or len(tally.findings) >= STEP_FINDINGS


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
